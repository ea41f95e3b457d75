"""When a stream's steps make calls of a step program, and which outputs these give: whole numbers, without the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core.program.frame_schedule import OPEN, FrameSchedule
from ..core.program.stream_ends import ended, meets
from ..core.timing import Timing
from ..errors import ShapeMismatch


@dataclass(frozen=True)
class OutputCount:
    """The number of outputs of a stream that ends after ``n`` steps: a table, then periodic.

    Attributes:
        table: for 0, 1, 2, … steps. ``~n``: branches differ in length, and the shortest has ``n`` outputs; ``forward`` refuses the clip.
        period: after the table, ``period`` more steps …
        more: … give ``more`` more outputs.
    """

    table: tuple[int, ...]
    period: int
    more: int

    def __call__(self, steps: int) -> int:
        """The number of outputs after ``steps`` steps.

        Raises:
            ShapeMismatch: branches differ in length there.
        """
        total, met = self.count(steps)
        if not met:
            better = next((n for n in range(steps, steps + len(self.table) + self.period) if self.count(n)[1]), 0)
            raise ShapeMismatch(
                f"the stream ends after {steps} steps, where branches of the network differ in length, and forward refuses the clip: "
                f"end it after {better} steps, or after any other number that the strides divide"
            )
        return total

    def count(self, steps: int) -> tuple[int, bool]:
        """The number of outputs of the shortest branch, and whether all branches have the same."""
        beyond = max(0, -(-(steps - len(self.table) + 1) // self.period))
        total = self.table[steps - beyond * self.period]
        return (total if total >= 0 else ~total) + beyond * self.more, total >= 0

    @staticmethod
    def of(timing: Timing) -> OutputCount:
        """The counts of a network with this timing."""
        transient, period = timing.receptive_field + timing.transient, timing.period
        lengths = torch.arange(transient + 3 * period)
        counts, met = ended(timing, lengths), meets(timing, lengths)
        more = int(counts[-1] - counts[-1 - period])
        regular = (counts[period:] - counts[:-period] == more) & (met[period:] == met[:-period])
        irregular = (~regular).nonzero()
        last = int(irregular[-1]) + 1 if len(irregular) else 0
        return OutputCount(tuple(torch.where(met, counts, ~counts)[: last + period].tolist()), period, more)


@dataclass(frozen=True)
class CallSchedule:
    """The calls that the steps of one stream make, and the outputs that each call gives.

    Attributes:
        chunk: steps per call.
        start: the index of the first step of call 0, at most 0: ``-start`` steps of that call precede the stream.
        outputs: the schedule of the output wire.
        totals: the number of outputs of a stream that ends.
    """

    chunk: int
    start: int
    outputs: FrameSchedule
    totals: OutputCount

    @property
    def per_call(self) -> int:
        """Outputs per call."""
        return self.outputs.frames

    def calls(self, steps: int) -> int:
        """The number of calls that ``steps`` steps complete."""
        return (steps - self.start) // self.chunk

    def slot(self, steps: int) -> int:
        """The place in a chunk of the step that follows ``steps`` steps, which is also the number of steps that wait there."""
        return (steps - self.start) % self.chunk

    def delivered(self, steps: int) -> int:
        """The number of outputs that have come after ``steps`` steps of a stream that goes on."""
        return max(0, self.outputs.first + self.per_call * self.calls(steps))

    def ended(self, steps: int) -> int:
        """The number of outputs of a stream of ``steps`` steps; where branches differ in length, of the shortest."""
        return self.totals.count(steps)[0]

    def calls_to_end(self, calls: int, steps: int) -> int:
        """The number of calls after ``calls`` calls until a stream of ``steps`` steps has all its outputs."""
        return max(0, math.ceil((self.totals(steps) - self.outputs.first) / self.per_call) - calls)

    def valid_in(self, call: int, steps: int = OPEN) -> range:
        """The outputs of call ``call`` that exist, in a stream of ``steps`` steps."""
        first, outputs = self.outputs.first + self.per_call * call, self.per_call
        total = OPEN if steps == OPEN else self.totals(steps)
        return range(min(max(0, -first), outputs), max(0, min(outputs, total - first)))
