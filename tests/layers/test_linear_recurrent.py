"""Layers whose state is carried by a linear map: against the formulas of their papers, and in all paths of the library."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.layers.linear_recurrent import mamba
from continual.layers.linear_recurrent.base import PIECE
from tests.layers.linear_recurrences import FORMULAS, as_trained
from tests.long import by_turns

C = 6
MADE: dict[str, Callable[[], Any]] = {
    "minGRU": lambda: co.minGRU(C, 5),
    "minGRU, no bias": lambda: co.minGRU(C, bias=False),
    "RGLRU": lambda: co.RGLRU(C, num_blocks=3),
    "Mamba": lambda: co.Mamba(C, state_size=3, conv_kernel=3, expand=1.5, time_step_rank=2),
    "Mamba, normed": lambda: co.Mamba(C, state_size=4, bias=True, conv_bias=False, norm_eps=1e-6),
    "Mamba2": lambda: co.Mamba2(C, num_heads=4, head_dim=3, state_size=5, groups=2, time_step_limit=(0.05, 0.6)),
    "Mamba2, biases": lambda: co.Mamba2(C, num_heads=3, head_dim=2, state_size=4, conv_kernel=2, bias=True),
    "GatedLinearAttention": lambda: co.GatedLinearAttention(C, 3, expand_k=1.5, gate_low_rank_dim=2, gate_logit_normalizer=2),
    "DeltaNet": lambda: co.DeltaNet(C, 2, expand_v=2, conv_size=3),
    "RWKV": lambda: co.RWKV(C, 7),
    "S4D": lambda: co.S4D(C, state_size=10, dt_min=0.05, dt_max=0.5),
}
LAYERS = pytest.mark.parametrize("name", MADE)


def layer(name: str, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return as_trained(MADE[name]())


def formula(name: str) -> Callable[[Any, Tensor], Tensor]:
    return FORMULAS[name.partition(",")[0]]


def off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / max(1.0, float(b.abs().max())))


@LAYERS
def test_the_formula_of_the_paper(name: str):
    net, clip = layer(name).double(), torch.randn(2, C, PIECE + 21, dtype=torch.float64)
    with torch.no_grad():
        want = formula(name)(net, clip)
        assert off(net(clip), want) < 1e-10
        steps = torch.stack([net.forward_step(clip[:, :, t]) for t in range(clip.shape[2])], 2)
    assert off(steps, want) < 1e-10


@LAYERS
def test_the_contract(name: str):
    assert co.verify(layer(name), torch.randn(3, C, 23), effort="quick")


@LAYERS
def test_in_double_precision_and_with_gradients_of_the_formula(name: str):
    net, clip = layer(name).double(), torch.randn(2, C, 21, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, net(clip).shape[1], 21, dtype=torch.float64)
    wanted = torch.autograd.grad((formula(name)(net, clip) * weight).sum(), (clip, *net.parameters()))
    got = torch.autograd.grad((net(clip) * weight).sum(), (clip, *net.parameters()))
    for (key, _), a, b in zip([("clip", clip), *net.named_parameters()], got, wanted, strict=True):
        assert off(a, b) < 1e-9, key


@LAYERS
def test_half_precision_keeps_its_state_in_single(name: str):
    net, clip = layer(name), torch.randn(2, C, 40)
    with torch.no_grad():
        want = net(clip)
        net.bfloat16()
        steps = torch.stack([net.forward_step(clip[:, :, t].bfloat16()) for t in range(40)], 2)
        assert steps.dtype == torch.bfloat16
        assert {t.dtype for t in net.get_state().tensors.values()} == {torch.float32}
        assert off(steps.float(), net(clip.bfloat16()).float()) < 1e-2
    assert off(steps.float(), want) < 0.1


@LAYERS
def test_a_stream_goes_on_when_the_module_moves(name: str):
    net, clip = layer(name), torch.randn(2, C, 11)
    with torch.no_grad():
        want = net.double()(clip.double())[:, :, 8]
        net.float()
        net.forward_steps(clip[:, :, :8])
        net.double()
        assert off(net.forward_step(clip[:, :, 8].double(), update_state=False), want) < 1e-5
        net.bfloat16()
        assert torch.bfloat16 not in {t.dtype for t in net.get_state().tensors.values()}
        steps = [net.forward_step(clip[:, :, 8].bfloat16(), update_state=False)]
        steps.append(net.forward_steps(clip[:, :, 8:].bfloat16())[:, :, 0])
        assert all(off(y.double(), want) < 3e-2 for y in steps)


def network(name: str) -> co.CoModule:
    made = layer(name)
    return co.Sequential(
        co.Conv1d(C, C, 3, padding=1), made, nn.ReLU(), co.Conv1d(made(torch.zeros(1, C, 1)).shape[1], 2, 2)
    ).eval()


@pytest.mark.parametrize("name", by_turns(list(MADE), 2))
def test_in_programs(name: str):
    net, clip = network(name), torch.randn(3, C, 17)
    with torch.no_grad():
        expected = net(clip)
        for chunk in (None, 4):
            program = co.compile(net, clip[:, :, 0], backend="eager", chunk=chunk)
            state, found = program.init_state(), []
            for i in range(0, 17 // program.chunk * program.chunk, program.chunk):
                y, valid, state = program(clip[:, :, i : i + program.chunk], state)
                found.append(y[:, :, valid[0]])
            got = torch.cat(found, 2)
            assert got.shape[2] >= expected.shape[2] - net.delay - program.chunk
            torch.testing.assert_close(got, expected[:, :, : got.shape[2]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("format, name", by_turns(product(["onnx", "pt2", "openvino", "executorch"], MADE), 40))
def test_as_files(format: Any, name: str, tmp_path: Path):
    net, clip = network(name), torch.randn(1, C, 12)
    made = tmp_path / {"onnx": "net.onnx", "pt2": "net.pt2", "openvino": "net.xml", "executorch": "net.pte"}[format]
    runner = co.load(co.export(net, clip[:, :, 0], made))
    with torch.no_grad():
        for t in range(12):
            expected, got = net.forward_step(clip[:, :, t]), runner.forward_step(clip[:, :, t])
            assert (expected is None) == (got is None)
            if expected is not None:
                torch.testing.assert_close(torch.as_tensor(got), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", by_turns(list(MADE), 10))
def test_chunks_as_files(name: str, tmp_path: Path):
    net, clip = layer(name), torch.randn(1, C, 15)
    runner = co.load(co.export(net, clip[:, :, 0], tmp_path / "net.onnx", chunk=5))
    with torch.no_grad():
        got = torch.cat([torch.as_tensor(runner.forward_steps(clip[:, :, i : i + 5])) for i in (0, 5, 10)], 2)
        torch.testing.assert_close(got, net(clip), atol=1e-5, rtol=1e-4)


@LAYERS
def test_a_frame_that_is_nan_does_not_change_those_before(name: str):
    net, clip = layer(name), torch.randn(2, C, 30)
    with torch.no_grad():
        want = net(clip)[:, :, :20]
        clip[1, :, 20] = float("nan")
        y = net(clip)
        steps = torch.stack([net.forward_step(clip[:, :, t]) for t in range(30)], 2)
    assert off(y[:, :, :20], want) < 1e-5
    assert y[0].isfinite().all()
    assert torch.equal(y.isnan(), steps.isnan())
    assert y[1, :, 20:].isnan().all()


@LAYERS
def test_reports(name: str):
    net, step = layer(name), torch.randn(2, C)
    assert type(net).__name__ in str(co.summary(net, step))
    operations = co.operations(net, step)
    assert operations.params == sum(p.numel() for p in net.parameters())
    products = sum(m.weight.numel() for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv1d)))
    assert operations.mean.macs >= products, "the maps and convolutions are counted"


@pytest.mark.parametrize("numbers", [1, 150])
def test_states_of_few_frames_at_a_time(numbers: int, monkeypatch: pytest.MonkeyPatch):
    """As of many channels: one frame, and several with a rest."""
    monkeypatch.setattr(mamba, "IN_CACHE", numbers)
    net, clip = layer("Mamba").double(), torch.randn(2, C, 19, dtype=torch.float64)
    with torch.no_grad():
        assert off(net(clip), formula("Mamba")(net, clip)) < 1e-10


def test_multiply_adds_of_mamba():
    net = co.Mamba(6, state_size=3, conv_kernel=4, expand=1.5, time_step_rank=2)
    maps = 6 * 18 + 9 * (2 + 2 * 3) + 2 * 9 + 9 * 6
    assert co.operations(net, torch.zeros(2, 6)).mean.macs == maps + 9 * 4 + 2 * 9 * 3  # … the window, the state and its output


@LAYERS
def test_refuses_other_steps(name: str):
    net = co.Sequential({"first": nn.ReLU(), "mixer": layer(name)})
    for shape in ((2, C + 1), (2, C, C)):
        with pytest.raises(co.ShapeMismatch, match=rf"expects steps \(B, {C}\), got \(2, "):
            net.forward_step(torch.zeros(shape))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: co.RGLRU(6, num_blocks=4), "4 blocks do not divide 6 channels"),
        (lambda: co.Mamba2(6, num_heads=3, groups=2), "2 groups do not divide 3 heads"),
        (lambda: co.GatedLinearAttention(6, num_heads=2), "2 heads do not divide 3 channels of keys and 6 of values"),
        (lambda: co.DeltaNet(6, num_heads=4), "4 heads do not divide 6 channels of keys and 6 of values"),
        (lambda: co.S4D(6, state_size=7), "state_size=7 is odd"),
    ],
)
def test_refuses_sizes(make: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_large_keys_of_rwkv_are_no_infinities():
    net = layer("RWKV")
    with torch.no_grad():
        net.key.weight.mul_(1000)
        clip = torch.randn(2, C, 50)
        exact = formula("RWKV")(net.double(), clip.double())
        y = net.float()(clip)
    assert y.isfinite().all()
    assert off(y.double(), exact) < 1e-3
