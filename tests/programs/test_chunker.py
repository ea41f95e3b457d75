"""`Chunker`: the outputs of a stream do not depend on how its steps are given, for any chunk and start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import continual as co
from continual.core.program.frame_schedule import FrameSchedule
from continual.programs.chunker import Chunker
from continual.programs.schedule import CallSchedule, OutputCount

SCALE = torch.tensor([[2.0], [-3.0]])


def identity(chunk: int, start: int) -> CallSchedule:
    """The schedule of a program whose output is its input."""
    return CallSchedule(chunk, start, FrameSchedule(chunk, start), OutputCount((0, 1), 1, 1))


def scaled(x: list[Tensor]) -> list[Tensor]:
    """A program of a stream ``(B, n, C)`` and of an input that is not a stream ``(B, C)``."""
    return [x[0] * x[1].unsqueeze(1)]


def opened(chunk: int, start: int) -> Chunker[Any]:
    """A chunker whose buffer holds NaN, as after another stream."""
    chunker = Chunker[Any](identity(chunk, start), [1, None], [1])
    chunker.open(lambda: [torch.full((2, chunk, 1), torch.nan), torch.full((2, 1), torch.nan)])
    return chunker


starts = st.integers(1, 5).flatmap(lambda chunk: st.tuples(st.just(chunk), st.integers(1 - chunk, 0)))


@given(schedule=starts, sizes=st.lists(st.integers(0, 7), max_size=6))
def test_pieces_of_any_size_give_the_same_outputs(schedule: tuple[int, int], sizes: list[int]):
    """All complete chunks come with their last step, and a flush brings the rest, each time that it is asked."""
    chunk, start = schedule
    clip = torch.randn(2, sum(sizes), 1)
    chunker, found, seen = opened(chunk, start), [], 0
    for size in sizes:
        found += chunker.feed([clip[:, seen : seen + size], SCALE], size, seen, scaled)
        seen += size
        given = 0 if not found else chunker.joined(found)[0].shape[1]
        assert given == max(0, (seen - start) // chunk * chunk + start) == chunker.schedule.delivered(seen)
        rest = chunker.flush(seen, scaled)
        whole = chunker.joined([*found, *rest])
        assert (whole is None) == (seen == 0)
        if seen:
            torch.testing.assert_close(whole[0], clip[:, :seen] * SCALE.unsqueeze(1), rtol=0, atol=0)


@given(schedule=starts, steps=st.integers(1, 9))
def test_a_step_has_no_time_where_a_call_has_one_output(schedule: tuple[int, int], steps: int):
    chunk, start = schedule
    chunker = opened(chunk, start)
    for t in range(steps):
        found = chunker.feed([torch.full((2, 1, 1), float(t)), SCALE], 1, t, scaled)
        assert len(found) == ((t + 1 - start) % chunk == 0)
        for y in found:
            count = min(chunk, t + 1)  # the first call has fewer, after steps that precede the stream
            assert chunker.single(y)[0].shape == ((2, 1) if chunk == 1 else (2, count, 1))


class Both(nn.Module):
    """Hands its input on beside what it computes of it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1], 2 * x


@pytest.mark.parametrize(
    "net", [co.Sequential(co.Skip(0)), nn.Sequential(nn.Identity()), Both()], ids=["skip", "identity", "both"]
)
def test_outputs_that_were_inputs_are_kept(net: nn.Module):
    """Found by `make fuzz`: the buffer of a chunk was an output of the call, and later steps were written over it."""
    clip = torch.randn(2, 3, 9)
    program = co.compile(co.continual(net.eval(), clip), clip[:, :, 0], chunk=2, backend="eager")
    found = [program.step(clip[:, :, t]) for t in range(9)]
    last = program.flush()
    program.clean_state()
    for _ in range(3):
        program.step(torch.full((2, 3), torch.nan))
    got = [tree_leaves(y) for y in (*found, last) if y is not None]
    for parts, want in zip(zip(*got, strict=True), tree_leaves(net(clip)), strict=True):
        torch.testing.assert_close(torch.cat(parts, 2), want, rtol=0, atol=0)
