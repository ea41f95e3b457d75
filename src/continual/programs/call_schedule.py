"""When the calls of a step program bring which outputs: arithmetic on whole numbers, without the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core.program.frame_schedule import OPEN, Pace
from ..core.program.stream_ends import ended, meets
from ..core.timing import Timing
from ..errors import ShapeMismatch


@dataclass(frozen=True)
class Totals:
    """How many outputs a stream of ``n`` steps has in the end: a table, then periodic.

    Attributes:
        table: for 0, 1, 2, … steps; ``~n`` for ``n`` outputs of branches that differ in length, so that ``forward`` refuses the clip.
        period: after the table, so many steps more …
        more: … bring so many outputs more.
    """

    table: tuple[int, ...]
    period: int
    more: int

    def __call__(self, steps: int) -> int:
        """For so many steps.

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
        """How many outputs the shortest branch has, and whether all have as many."""
        beyond = max(0, -(-(steps - len(self.table) + 1) // self.period))
        total = self.table[steps - beyond * self.period]
        return (total if total >= 0 else ~total) + beyond * self.more, total >= 0

    @staticmethod
    def of(timing: Timing) -> Totals:
        """Of a network with this timing."""
        settled, period = timing.receptive_field + timing.settled, timing.period
        lengths = torch.arange(settled + 3 * period)
        counts, met = ended(timing, lengths), meets(timing, lengths)
        more = int(counts[-1] - counts[-1 - period])
        regular = (counts[period:] - counts[:-period] == more) & (met[period:] == met[:-period])
        others = (~regular).nonzero()
        last = int(others[-1]) + 1 if len(others) else 0
        return Totals(tuple(torch.where(met, counts, ~counts)[: last + period].tolist()), period, more)


@dataclass(frozen=True)
class Rhythm:
    """How calls of ``chunk`` steps follow each other.

    Attributes:
        chunk: steps that each call takes.
        begin: the index of the first step of call 0, 0 or below: so many steps of that call are from before the stream.
        leaves: the pace of the output.
        totals: how many outputs a stream has in the end.
    """

    chunk: int
    begin: int
    leaves: Pace
    totals: Totals

    def calls(self, seen: int) -> int:
        """How many calls so many steps have made."""
        return (seen - self.begin) // self.chunk

    def delivered(self, steps: int) -> int:
        """How many outputs have come after so many steps of a stream that goes on."""
        return max(0, self.leaves.first + self.leaves.frames * self.calls(steps))

    def ended(self, steps: int) -> int:
        """How many outputs a stream of so many steps has in the end; of branches that differ in length, the shortest."""
        return self.totals.count(steps)[0]

    def fills(self, seen: int) -> bool:
        """Whether the step after so many makes a call."""
        return seen + 1 >= self.begin + self.chunk * (self.calls(seen) + 1)

    def before(self, seen: int) -> int:
        """How many steps of the call that comes after so many steps are from before the stream."""
        return -self.begin if self.calls(seen) == 0 else 0

    def calls_to_end(self, calls: int, steps: int) -> int:
        """How many calls more a stream needs after ``calls`` of them, to give all outputs of ``steps`` steps."""
        return max(0, math.ceil((self.totals(steps) - self.leaves.first) / self.leaves.frames) - calls)

    def valid_in(self, call: int, steps: int = OPEN) -> range:
        """Which of a call's outputs exist, after ``call`` calls before, in a stream of ``steps`` steps in all."""
        first, outputs = self.leaves.first + self.leaves.frames * call, self.leaves.frames
        total = OPEN if steps == OPEN else self.totals(steps)
        return range(min(max(0, -first), outputs), max(0, min(outputs, total - first)))
