"""The number of frames of a wire as a function of that of another wire: a sum of steps.

``F.pad(x, (0, -T % 4))`` gives ``4·⌈T/4⌉`` frames, a crop ``y[..., :T]`` as many as the clip has. Such functions become periodic: each
step that they make recurs. So a few integers define them for every clip, and the same sums map tensors of lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from torch import Tensor

LONGEST = 1 << 13  # the longest period that is looked for
MOST_STEPS = 64  # in a period, and before it


@dataclass(frozen=True)
class Step:
    """More frames from a length on.

    Attributes:
        at: the first length that has them.
        jump: how many.
        every: after so many more they come again; 0: once.
    """

    at: int
    jump: int
    every: int = 0


@dataclass(frozen=True)
class LengthFunction:
    """A function from lengths to lengths, 0 for 0.

    Args:
        steps: what it is the sum of.

    Example:
        >>> fours = LengthFunction((Step(1, 4, 4),))  # the next multiple of 4
        >>> [fours(n) for n in range(10)]
        [0, 4, 4, 4, 4, 8, 8, 8, 8, 12]
        >>> LengthFunction.of(lambda n: -(-n // 4) * 4, 4) == fours
        True
    """

    steps: tuple[Step, ...]

    @staticmethod
    def of(fn: Callable[[int], int], period: int) -> LengthFunction | None:
        """A function as a sum of steps; ``None`` where it takes too many.

        Args:
            fn: gives the length for lengths of at least 1.
            period: lengths after which its steps recur, or a multiple.
        """
        count = 4 * period + 64
        while period <= LONGEST and count <= 4 * LONGEST + 64:
            found = _steps([0, *(max(0, fn(n)) for n in range(1, count))], period)
            if found is not None:
                return LengthFunction(found) if len(found) <= 2 * MOST_STEPS else None
            count *= 2
        return None

    def __call__(self, n: int) -> int:
        found = 0
        for s in self.steps:
            if n >= s.at:
                found += s.jump * ((n - s.at) // s.every + 1 if s.every else 1)
        return found

    def on(self, n: Tensor) -> Tensor:
        """The function on a tensor of lengths."""
        found = n * 0
        for s in self.steps:
            if s.every == 1 and s.at == 1:
                found = found + n * s.jump
                continue
            if s.every:
                times = (n - (s.at - s.every)).clamp(min=0).div(s.every, rounding_mode="trunc")
            else:
                times = (n >= s.at).to(n.dtype)
            found = found + times * s.jump
        return found

    @property
    def monotone(self) -> bool:
        """Whether a longer clip never has fewer frames."""
        return all(s.jump > 0 for s in self.steps)

    @cached_property
    def period(self) -> int:
        """Lengths after which its steps recur."""
        return max((s.every for s in self.steps), default=0) or 1

    @cached_property
    def transient(self) -> int:
        """From this length on its steps recur."""
        return max((s.at for s in self.steps), default=0)

    @cached_property
    def growth(self) -> tuple[int, int]:
        """How many frames more there are after how many more of the other wire, in the long run."""
        return sum(s.jump * (self.period // s.every) for s in self.steps if s.every), self.period

    @cached_property
    def more(self) -> tuple[int, int]:
        """The least and the largest number of frames that it adds to those of the other wire; for lengths of at least 1."""
        found = [self(n) - n for n in range(1, self.transient + self.period + 1)]
        return min(found), max(found)


def _steps(values: list[int], period: int) -> tuple[Step, ...] | None:
    """The steps of a table of values from 0 on, if they recur in its last periods."""
    jumps = [0, *(b - a for a, b in pairwise(values))]
    count = len(jumps)
    settled = count - period
    while settled > 1 and jumps[settled - 1] == jumps[settled - 1 + period]:
        settled -= 1
    if settled > min(count - 2 * period, count // 2):  # what recurs for a while alone shows nothing
        return None
    period = next(p for p in range(1, period + 1) if period % p == 0 and _recurs(jumps, settled, p))
    while settled > 1 and jumps[settled - 1] == jumps[settled - 1 + period]:
        settled -= 1
    once = [Step(n, jumps[n]) for n in range(1, settled) if jumps[n]]
    again = [Step(n, jumps[n], period) for n in range(settled, settled + period) if jumps[n]]
    return (*once, *again)


def _recurs(jumps: list[int], start: int, period: int) -> bool:
    return all(jumps[n] == jumps[n + period] for n in range(start, len(jumps) - period))
