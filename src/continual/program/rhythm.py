"""When the calls of a step program bring which outputs: arithmetic on whole numbers, without the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..timing import Timing
from .pace import OPEN, Pace, ended


@dataclass(frozen=True)
class Totals:
    """How many outputs a stream of ``n`` steps has in the end: a table, then periodic.

    Attributes:
        table: for 0, 1, 2, … steps.
        period: after the table, so many steps more …
        more: … bring so many outputs more.
    """

    table: tuple[int, ...]
    period: int
    more: int

    def __call__(self, steps: int) -> int:
        beyond = max(0, -(-(steps - len(self.table) + 1) // self.period))
        return self.table[steps - beyond * self.period] + beyond * self.more

    @staticmethod
    def of(timing: Timing) -> Totals:
        """Of a network with this timing."""
        settled, period = timing.receptive_field + timing.settled, timing.period
        counts = ended(timing, torch.arange(settled + 3 * period)).tolist()
        more = counts[-1] - counts[-1 - period]
        last = next(
            n for n in range(len(counts) - period - 1, -1, -1) if n == 0 or counts[n - 1 + period] - counts[n - 1] != more
        )
        return Totals(tuple(counts[: last + period]), period, more)


@dataclass(frozen=True)
class Rhythm:
    """How calls of ``chunk`` steps follow each other.

    Attributes:
        chunk: steps that each call takes.
        start: the index of the first step of call 0, 0 or below: so many steps of that call are from before the stream.
        leaves: the pace of the output.
        totals: how many outputs a stream has in the end.
    """

    chunk: int
    start: int
    leaves: Pace
    totals: Totals

    def calls(self, seen: int) -> int:
        """How many calls so many steps have made."""
        return (seen - self.start) // self.chunk

    def fills(self, seen: int) -> bool:
        """Whether the step after so many makes a call."""
        return seen + 1 >= self.start + self.chunk * (self.calls(seen) + 1)

    def before(self, seen: int) -> int:
        """How many steps of the call that comes after so many steps are from before the stream."""
        return -self.start if self.calls(seen) == 0 else 0

    def calls_to_end(self, calls: int, steps: int) -> int:
        """How many calls more a stream needs after ``calls`` of them, to give all outputs of ``steps`` steps."""
        return max(0, math.ceil((self.totals(steps) - self.leaves.first) / self.leaves.frames) - calls)

    def valid_in(self, call: int, steps: int = OPEN) -> range:
        """Which of a call's outputs exist, after ``call`` calls before, in a stream of ``steps`` steps in all."""
        first, outputs = self.leaves.first + self.leaves.frames * call, self.leaves.frames
        total = OPEN if steps == OPEN else self.totals(steps)
        return range(min(max(0, -first), outputs), max(0, min(outputs, total - first)))
