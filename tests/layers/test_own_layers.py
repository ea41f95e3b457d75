"""Layers that users write take every path of the library."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.core.state import StateNode
from tests.layers.leaky import Leaky, TheirLeaky
from tests.layers.spread import Spread
from tests.long import by_turns

torch.manual_seed(5)
CLIP = torch.randn(3, 4, 17)


class Gated(co.Recurrence):
    """Two states of other shapes than the steps, a learned start, another number of channels, and a fast chunk."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.take = nn.Linear(channels, hidden)
        self.start = nn.Parameter(torch.randn(hidden))
        self.hidden = hidden

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        return {"h": self.start.expand(len(x), -1), "n": torch.ones(len(x), dtype=torch.int64, device=x.device)}

    def recur(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = torch.tanh(self.take(x)) + state["h"] / state["n"].unsqueeze(1)
        return h, {"h": h, "n": state["n"] + 1}


class Sums(co.Recurrence):
    """With a chunk of its own."""

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        return {"total": torch.zeros_like(x)}

    def recur(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total = state["total"] + x
        return total, {"total": total}

    def recur_chunk(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        y = state["total"].unsqueeze(2) + x.cumsum(2)
        return y, {"total": y[:, :, -1]}


MADE: dict[str, Callable[[], co.CoModule]] = {
    "leaky": lambda: Leaky(4),
    "gated": lambda: Gated(4, 5),
    "sums": Sums,
    "spread": lambda: Spread(3),
    "strided": lambda: Spread(5, 2, 2),
}
LAYERS = pytest.mark.parametrize("name", MADE)


def network(name: str) -> co.CoModule:
    layer = MADE[name]()
    out = layer(CLIP).shape[1]
    return co.Sequential(co.Conv1d(4, 4, 3, padding=1), layer, nn.ReLU(), co.Conv1d(out, 2, 2)).eval()


@LAYERS
def test_the_contract_holds(name: str):
    assert co.verify(MADE[name](), torch.randn(3, 4, 17)), name
    report = co.verify(network(name), CLIP)
    assert report, str(report)


def test_in_branches():
    net = co.Sequential(co.Residual(Leaky(4)), co.BroadcastReduce(Spread(3, padding=1), Sums(), reduce="concat"))
    report = co.verify(net, CLIP)
    assert report, str(report)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", ["leaky", "gated", "sums"])
def test_clips_with_time_in_another_dim(name: str, dim: int):
    """`forward` ignored the dimension of time: each layer moved it for itself."""
    layer = MADE[name]()
    expected = layer(CLIP)
    layer._set_time_dim(dim)
    torch.testing.assert_close(layer(CLIP.movedim(2, dim)), expected.movedim(2, dim))
    torch.testing.assert_close(layer.forward_steps(CLIP.movedim(2, dim)), expected.movedim(2, dim))


@LAYERS
def test_in_programs(name: str):
    net = network(name)
    expected = net(CLIP)
    for chunk in (None, 4):
        program = co.compile(net, CLIP[:, :, 0], backend="eager", chunk=chunk)
        length = CLIP.shape[2] // program.chunk * program.chunk
        got = torch.cat([y for y in program_outputs(program, CLIP[:, :, :length]) if y is not None], 2)
        torch.testing.assert_close(got, expected[:, :, : got.shape[2]])
        assert got.shape[2] >= expected.shape[2] - net.delay - program.chunk


def program_outputs(program: co.StepProgram, clip: Tensor) -> list[Tensor | None]:
    state, found = program.init_state(), []
    for i in range(0, clip.shape[2], program.chunk):
        y, valid, state = program(clip[:, :, i : i + program.chunk], state)
        found.append(y[:, :, valid[0]])
    return found


@LAYERS
def test_in_a_batch_of_streams(name: str):
    net = network(name)
    expected = [y for t in range(CLIP.shape[2]) if (y := net.forward_step(CLIP[:1, :, t])) is not None]
    batch = co.StreamBatch(net, CLIP[:1, :, 0], capacity=2, backend="eager")
    first, other = batch.open(), batch.open()
    found = []
    for t in range(CLIP.shape[2]):
        ys = batch.step({first: CLIP[0, :, t]} | ({other: CLIP[1, :, t]} if t % 3 else {}))
        if ys.get(first) is not None:
            found.append(ys[first])
    torch.testing.assert_close(torch.stack([f.reshape(2, -1)[:, -1] for f in found]), torch.stack([e[0] for e in expected]))


@pytest.mark.parametrize("format, name", by_turns(product(["onnx", "pt2"], ["gated", "strided"]), 4))
def test_as_files(name: str, format: str, tmp_path: Path):
    net = network(name)
    runner = co.load(co.export(net, CLIP[:1, :, 0], tmp_path / f"net.{format}"))
    with torch.no_grad():
        for t in range(CLIP.shape[2]):
            expected, got = net.forward_step(CLIP[:1, :, t]), runner.forward_step(CLIP[:1, :, t])
            assert (expected is None) == (got is None)
            if expected is not None:
                torch.testing.assert_close(torch.as_tensor(got), expected, atol=1e-5, rtol=1e-4)


@LAYERS
def test_reports(name: str):
    net = network(name)
    layer = type(net[1]).__name__
    assert layer in str(co.summary(net, CLIP[:, :, 0]))
    assert layer in str(co.explain(net, CLIP))
    assert co.operations(net, CLIP[:, :, 0]).params == sum(p.numel() for p in net.parameters())


def test_products_are_counted():
    assert co.operations(Gated(4, 5), CLIP[:, :, 0]).mean.macs == 4 * 5
    part = co.operations(network("gated"), CLIP[:, :, 0]).parts
    assert {p.path: int(p.count.macs) for p in part if p.count.macs} == {"0": 48, "1": 20, "3": 20}


def test_snapshots_and_moves():
    net = Gated(4, 5).eval()
    with torch.no_grad():
        net.forward_steps(CLIP[:, :, :6])
        state = net.get_state()
        rest = net.forward_steps(CLIP[:, :, 6:])
        net.set_state(state)
        torch.testing.assert_close(net.forward_steps(CLIP[:, :, 6:]), rest, atol=0, rtol=0)
        assert state is not None
        assert {k: v.dtype for k, v in state.tensors.items()} == {"h": torch.float32, "n": torch.int64}
        net.double()
        assert net.forward_step(CLIP[:, :, 0].double()).dtype == torch.float64


def test_gradients_reach_a_learned_start():
    net = Gated(4, 5)
    net(CLIP).sum().backward()
    expected = net.start.grad
    net.zero_grad()
    sum(y.sum() for t in range(CLIP.shape[2]) if (y := net.forward_step(CLIP[:, :, t])) is not None).backward()
    torch.testing.assert_close(net.start.grad, expected)


def test_a_module_of_a_registered_class_becomes_the_layer():
    module = nn.Sequential(nn.Conv1d(4, 4, 3), TheirLeaky(4), nn.ReLU())
    net = co.continual(module)
    assert isinstance(net[1], Leaky)
    assert net[1].a is module[1].a
    torch.testing.assert_close(net(CLIP), module(CLIP))
    assert co.verify(net, CLIP, reference=module)


def test_a_clip_asks_for_the_initial_state_once():
    asked = []

    class Counted(Leaky):
        def initial_state(self, x: Tensor) -> Any:
            asked.append(tuple(x.shape))
            return super().initial_state(x)

    Counted(4)(CLIP)
    assert asked == [(3, 4)]


# ---- what is refused ------------------------------------------------------------------------------------------------


class Bad(co.Recurrence):
    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def initial_state(self, x: Tensor) -> Any:
        return {
            "list": {"h": [0.0]},
            "scalar": {"h": torch.zeros(())},
            "rows": {"h": torch.zeros(1, 4)},
            "values": {"h": x},
            "chance": {"h": torch.randn_like(x)},
        }.get(self.what, {"h": torch.zeros_like(x)})

    def recur(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        h = state["h"] + x
        made = {
            "key": {"g": h},
            "more": {"h": h, "g": h},
            "shape": {"h": h.sum(1, keepdim=True)},
            "dtype": {"h": h.double()},
            "no dict": (h,),
        }
        return (h.sum() if self.what == "output" else None if self.what == "none" else h), made.get(self.what, {"h": h})


@pytest.mark.parametrize(
    "what, error, message",
    [
        ("list", co.StateMismatch, "initial_state returns a dict of tensors: 'h' is list"),
        ("scalar", co.StateMismatch, "'h' has the batch of 3 in dim 0, got"),
        ("rows", co.StateMismatch, r"'h' has the batch of 3 in dim 0, got \(1, 4\)"),
        ("values", co.NotStreamable, "depends on the values of the step, or on chance"),
        ("chance", co.NotStreamable, "depends on the values of the step, or on chance"),
        ("key", co.StateMismatch, r"recur returns the state \['h'\] as initial_state does, got \['g'\]"),
        ("more", co.StateMismatch, r"got \['g', 'h'\]"),
        ("shape", co.StateMismatch, r"recur returns 'h' as \(3, 1\) torch.float32; initial_state says \(3, 4\)"),
        ("dtype", co.StateMismatch, "torch.float64; initial_state says"),
        ("no dict", co.StateMismatch, "got tuple"),
        ("output", co.ShapeMismatch, r"the output of recur has the shape \(3, …\), got \(\)"),
        ("none", co.ShapeMismatch, "the output of recur is a tensor .*, not NoneType"),
    ],
)
def test_refusals_come_at_the_first_call_and_name_the_layer(what: str, error: type[Exception], message: str):
    net = co.Sequential({"first": nn.ReLU(), "bad": Bad(what)})
    with pytest.raises(error, match=message) as raised:
        net.forward_step(CLIP[:, :, 0])
    assert "bad (Bad)" in str(raised.value)
    assert net.get_state() is None


def test_a_state_that_is_the_output_or_another_state_is_not_overwritten():
    class Swaps(co.Recurrence):
        def initial_state(self, x):
            return {"a": torch.zeros_like(x), "b": torch.ones_like(x)}

        def recur(self, x, state):
            return state["a"], {"a": state["b"], "b": state["a"] + x}

    net = Swaps()
    with torch.no_grad():
        steps = [net.forward_step(CLIP[:, :, t]) for t in range(9)]
    torch.testing.assert_close(torch.stack(steps, 2), net(CLIP[:, :, :9]), atol=0, rtol=0)


def test_a_window_that_the_layer_can_not_take():
    class Narrow(co.SlidingWindow):
        def __init__(self):
            super().__init__()
            self.set_window(3)
            self.map = nn.Linear(3, 2)

        def over_time(self, frames, start, ended):
            return self.map(frames.unfold(2, 3, 1).flatten(1, 1)).transpose(1, 2) if frames.shape[1] == 1 else frames @ frames

    with pytest.raises(co.ShapeMismatch, match="Narrow: can't take steps"):
        Narrow().forward_step(CLIP[:, :, 0])


class Mixed(co.CoModule):
    """Written with the kernel itself, and no word on what it costs."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(4, 4, bias=False)

    @property
    def timing(self) -> Any:
        return co.Conv1d(1, 1, 1).timing

    def forward(self, input: Tensor) -> Tensor:
        return self.map(input.transpose(1, 2)).transpose(1, 2)

    def open(self, frame: Any, init: Any) -> Any:
        return StateNode(init, self.kind, frame, kept_spec=frame)

    def advance(self, x: Any, node: Any, n_if_ended: int, updates: Any) -> Any:
        _, _, ended = self.count(x, node, n_if_ended, updates)
        return (None if x is None else self.forward(x)), ended


def test_what_a_class_does_not_say_is_counted_as_it_runs():
    step = CLIP[:, :, 0]
    assert co.operations(Mixed(), step).mean.macs == 16
    weight = torch.randn(4, 4)
    assert co.operations(co.Sequential(co.Lambda(lambda x: x @ weight)), step).mean.macs == 16
    assert "16" in str(co.summary(Mixed(), step))


def test_a_class_without_a_program_form_is_refused_with_remedies_that_work():
    with pytest.raises(
        co.NotStreamable, match=r"no kernel for the class Mixed.*co\.Recurrence or a co\.SlidingWindow.*Mixed\.program"
    ):
        co.compile(Mixed().eval(), CLIP[:, :, 0], backend="eager").init_state()
