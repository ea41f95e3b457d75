"""Spiking neurons: against their equations, in all paths of the library, and in the place of spikingjelly's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.layers.spiking import IntegrateAndFire, fire
from gallery import packages

OPTIONS: dict[str, dict[str, Any]] = {
    "no leak": {"rate": None},
    "decays the input": {"rate": 0.3, "reset": -0.2},
    "keeps the input": {"rate": 0.4, "decay_input": False, "threshold": 0.8, "reset": 0.1},
    "lowered": {"rate": 0.25, "reset": None, "detach_reset": True},
}
KINDS = pytest.mark.parametrize("kind", OPTIONS)


def equations(clip: Tensor, o: dict[str, Any]) -> Tensor:
    """Charge, fire, reset, neuron by neuron."""
    rate, rest, threshold = o["rate"], o.get("reset", 0.0), o.get("threshold", 1.0)
    out = torch.zeros_like(clip)
    flat, spikes = clip.movedim(2, -1).flatten(0, -2), out.movedim(2, -1).reshape(-1, clip.shape[2])
    for row, fired in zip(flat, spikes, strict=True):
        v = rest or 0.0
        for t, x in enumerate(row.tolist()):
            above = v - (rest or 0.0)
            v = v + x if rate is None else v + rate * (x - above) if o.get("decay_input", True) else v - rate * above + x
            if v >= threshold:
                fired[t] = 1
                v = v - threshold if rest is None else rest
    return spikes.view(out.movedim(2, -1).shape).movedim(-1, 2)


def clip_of(*shape: int) -> Tensor:
    torch.manual_seed(3)
    return 2 * torch.randn(shape, dtype=torch.float64) + 0.7


@KINDS
def test_the_equations(kind: str):
    clip = clip_of(2, 3, 40, 2)
    want = equations(clip, OPTIONS[kind])
    assert 0.05 < want.mean() < 0.9
    net = IntegrateAndFire(**OPTIONS[kind])
    assert torch.equal(net(clip), want)
    with torch.no_grad():
        assert torch.equal(torch.stack([net.forward_step(x) for x in clip.unbind(2)], 2), want)


@KINDS
def test_the_contract(kind: str):
    net = IntegrateAndFire(**OPTIONS[kind])
    assert co.verify(net, clip_of(3, 3, 20), effort="quick")


def test_in_a_program_and_a_file(tmp_path: Path):
    clip = clip_of(2, 3, 12).float()
    net = co.Sequential(co.Conv1d(3, 3, 3, padding=1), IntegrateAndFire(0.3)).eval()
    program, runner = (
        co.compile(net, clip[:, :, 0], backend="eager"),
        co.load(co.export(net, clip[:1, :, 0], tmp_path / "net.onnx")),
    )
    with torch.no_grad():
        for t in range(12):
            want = net.forward_step(clip[:, :, t])
            got, ran = program.step(clip[:, :, t]), runner.forward_step(clip[:1, :, t])
            assert (want is None) == (got is None) == (ran is None)
            if want is not None:
                torch.testing.assert_close(got, want)
                torch.testing.assert_close(torch.as_tensor(ran), want[:1])


def test_the_gradient_is_that_of_the_function_given():
    x = torch.tensor([[0.9]], requires_grad=True)
    IntegrateAndFire(None).forward_step(x).sum().backward()
    smooth = torch.sigmoid(torch.tensor(4 * (0.9 - 1)))
    torch.testing.assert_close(x.grad, (4 * smooth * (1 - smooth)).view(1, 1))
    assert set(fire(torch.linspace(-1, 1, 99)).tolist()) == {0.0, 1.0}


# ---- in the place of spikingjelly's ---------------------------------------------------------------------------------


class _Fire(nn.Module):
    spiking = True

    def forward(self, x: Tensor) -> Tensor:
        return fire(x)


class _Node(nn.Module):
    """All frames at a time, ``(T, B, C)``."""

    step_mode, store_v_seq, v_threshold, v_reset, detach_reset = "m", False, 1.0, -0.2, False

    def __init__(self) -> None:
        super().__init__()
        self.surrogate_function = _Fire()

    def options(self) -> dict[str, Any]:
        return {"rate": None, "reset": -0.2}

    def forward(self, *args: Tensor) -> Tensor:
        return equations(args[0].permute(1, 2, 0), self.options()).permute(2, 0, 1)


class IFNode(_Node):
    pass


class LIFNode(_Node):
    tau, decay_input = 3.0, False

    def options(self) -> dict[str, Any]:
        return {"rate": 1 / 3, "reset": -0.2, "decay_input": False}


class ParametricLIFNode(_Node):
    decay_input = True

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(-0.4, dtype=torch.float64))

    def options(self) -> dict[str, Any]:
        return {"rate": torch.sigmoid(self.w).item(), "reset": -0.2}


NODES = {"integrate_and_fire": IFNode, "lif": LIFNode, "plif": ParametricLIFNode}
for _file, _cls in NODES.items():
    _cls.__module__ = f"spikingjelly.activation_based.neuron.{_file}"


@pytest.mark.parametrize("file", NODES)
def test_a_node_by_its_name(file: str):
    node, clip = NODES[file](), clip_of(20, 3, 4)
    net = co.continual(node)
    assert type(net) is IntegrateAndFire
    with torch.no_grad():
        assert torch.equal(net(clip), node(clip))
        assert torch.equal(torch.stack([net.forward_step(x) for x in clip]), node(clip))


@pytest.mark.parametrize("file", NODES)
def test_a_node_inside_a_network(file: str):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 5), NODES[file](), nn.Linear(5, 3)).double().eval()
    clip = clip_of(14, 2, 4)
    net = co.continual(module, clip, time_dim=0)
    assert net.notes == ("1: streams as IntegrateAndFire",)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack([net.forward_step(x) for x in clip]), module(clip))
        if file == "plif":
            module[1].w.add_(1.0)
            torch.testing.assert_close(net(clip), module(clip))


def test_a_node_of_single_frames_is_refused():
    node = LIFNode()
    node.step_mode = "s"
    with pytest.raises(co.NotStreamable, match="takes single frames.*step_mode='m'"):
        co.continual(node)


@pytest.mark.skipif(packages.missing("spikingjelly"), reason="spikingjelly is not installed")
@pytest.mark.parametrize(
    "name, options",
    [("IFNode", {}), ("LIFNode", {"tau": 3.0, "decay_input": False, "v_reset": None}), ("ParametricLIFNode", {"init_tau": 2.5})],
)
def test_the_neurons_of_spikingjelly(name: str, options: dict[str, Any]):
    node = packages.cls(f"spikingjelly.activation_based.neuron.{name}")(step_mode="m", **options)
    net, clip = co.continual(node), clip_of(30, 2, 4).float()
    with torch.no_grad():
        want = node(clip)
        assert 0.05 < want.mean() < 0.9
        torch.testing.assert_close(torch.stack([net.forward_step(x) for x in clip]), want)
