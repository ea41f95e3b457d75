"""Loops over the frames of a clip become recurrent layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph import frame_loops
from continual.convert.graph.loops import rolled
from continual.convert.graph.loops.instruction import LoopCall
from tests.convert.loops.cases import CASES
from tests.convert.loops.networks import Score, Smoothing
from tests.long import by_turns, one_in
from tests.programs.rows import check_rows


def made(name: str) -> tuple[Any, nn.Module, Tensor]:
    """The converted network, the module, and a clip longer than its example."""
    cls, shape, time, _ = CASES[name]
    module = cls().eval()
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    net = co.continual(module, torch.randn(shape), time_dim=time)
    longer = list(shape)
    longer[time] = 2 * shape[time] + 7
    return net, module, torch.randn(longer)


@pytest.mark.parametrize("name", by_turns(CASES, 4))
def test_a_loop_streams(name: str) -> None:
    net, module, clip = made(name)
    assert {p.data_ptr() for p in net.parameters()} <= {p.data_ptr() for p in module.parameters()}
    assert net.delay == 0
    co.verify(net, clip, reference=module)


@pytest.mark.parametrize(
    "name", by_turns(["conv gru", "gru by hand", "smoothing", "biquad", "residuals", "each frame", "nodes", "running mean"], 2)
)
def test_a_loop_in_a_program(name: str) -> None:
    net, _, clip = made(name)
    check_rows(net, clip)


@pytest.mark.parametrize(("name", "numbers"), [("conv lstm", 14 * 15), ("gru by hand", 4), ("two memories", 5 * 3 * 20)])
def test_the_state_is_what_the_module_carries(name: str, numbers: int) -> None:
    """Products with recurrent weights are computed again rather than carried."""
    net, _, clip = made(name)
    state = net.init_state(clip.select(CASES[name].time, 0))
    assert sum(t.numel() for n in state.node.walk() for t in n.tensors) == 2 * numbers  # of two rows


@pytest.mark.parametrize(("name", "ops"), [("from rest", ["loop"]), ("conv gru", ["loop", "Conv3d k1"])])
def test_zeros_like_a_frame_are_none_of_its_values(name: str, ops: list[str]) -> None:
    """What states begin with is computed when a stream begins, and the first iteration is one like the others."""
    net, _, _ = made(name)
    assert [row.op for row in net.operation_graph().rows] == ops
    assert not next(m for m in net._program.instructions if isinstance(m, LoopCall)).module.loop.prologue


@pytest.mark.parametrize("frames", [5, 400])
def test_exports_are_short_whatever_the_example(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    whole = rolled.capture_rows

    def capture(module: nn.Module, clip: Any, time_dim: Any) -> Any:
        found = whole(module, clip, time_dim)
        steps.append(found.steps)
        return found

    monkeypatch.setattr(rolled, "capture_rows", capture)
    module = CASES["gru cells"].cls().eval()
    net = co.continual(module, torch.randn(2, 3, frames))
    assert steps == [7, 6]
    assert [row.op for row in net.operation_graph().rows].count("loop") == 1


def test_many_calls_in_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stops after so many calls of a line had as many calls on clips of each length, and no loop was seen."""
    monkeypatch.setattr(frame_loops, "ENOUGH", 2)
    assert "loop" in [row.op for row in made("kept rows")[0].operation_graph().rows]


@one_in(4)
def test_another_type_on_the_same_weights() -> None:
    net, module, clip = made("biquad")
    torch.testing.assert_close(net.double()(clip.double()), module.double()(clip.double()))


def test_the_last_state_of_a_loop_gives_exact_windows() -> None:
    module, clip = Score().eval(), torch.randn(2, 8, 2, 5, 4)
    net = co.continual(module, clip, time_dim=1)
    longer = torch.randn(2, 13, 2, 5, 4)
    with torch.no_grad():
        found = net.forward_steps(longer)
        windows = torch.stack([module(longer[:, i : i + 8]) for i in range(6)], 2)
    torch.testing.assert_close(found, windows)
    co.verify(net, longer)


def test_what_needs_no_state_runs_for_all_frames_at_once() -> None:
    """A loop without a state is a batch of frames; the products before and behind a state are operations of the network."""
    ops = [row.op for row in made("each frame")[0].operation_graph().rows]
    assert "loop" not in ops
    assert "conv2d" in ops
    assert "movedim" not in ops
    ops = [row.op for row in made("two memories")[0].operation_graph().rows]
    assert ops.count("loop") == 1
    assert ops.index("conv2d") < ops.index("loop") < len(ops) - 1 - ops[::-1].index("conv2d")


def test_windows_share_what_is_computed_of_each_frame() -> None:
    net = co.continual(Score().eval(), torch.randn(2, 8, 2, 5, 4), time_dim=1)
    assert net.windows.reuse > 0.8


class Builtins(nn.Module):
    """Its arguments and parameters have names of Python's own, as those of nn.Sequential do."""

    def __init__(self) -> None:
        super().__init__()
        self.max, self.id = nn.Parameter(torch.tensor([0.9, -0.4])), nn.Parameter(torch.tensor(0.3))

    def forward(self, input: Tensor, filter: Tensor) -> Tensor:
        state, outputs = torch.zeros_like(input[..., 0]), []
        for t in range(input.shape[-1]):
            state = self.max * state + self.id * input[..., t] - filter[..., t]
            outputs.append(state * torch.tensor([1.0, 2.0]))
        return torch.stack(outputs, -1)


def test_arguments_called_like_builtins() -> None:
    module, clips = Builtins().eval(), [torch.randn(3, 2, 30), torch.randn(3, 2, 30)]
    co.verify(co.continual(module, clips), [torch.randn(3, 2, 41), torch.randn(3, 2, 41)], reference=module)


def test_a_loop_in_a_sequential() -> None:
    """Whose forward calls its argument `input`."""
    module = nn.Sequential(Smoothing(), nn.Linear(3, 2)).eval()
    net = co.continual(module, torch.randn(2, 30, 3), time_dim=1)
    co.verify(net, torch.randn(2, 41, 3), reference=module)
