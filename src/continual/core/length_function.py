"""The number of frames of a wire as a function of that of another wire: a sum of steps.

``F.pad(x, (0, -T % 4))`` gives ``4·⌈T/4⌉`` frames, a crop ``y[..., :T]`` as many as the clip has. Such functions become periodic: each
step that they make recurs. So a few integers define them for every clip, and the same sums map tensors of lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
        times: so often within ``every``, evenly spread: a rate of 160 to 441 is one step.
        phase: where in their cycle they begin, from 0 to ``times - 1``.
    """

    at: int
    jump: int
    every: int = 0
    times: int = 1
    phase: int = 0


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
    def of(fn: Callable[[int], int | None], period: int, known: Mapping[int, int] | None = None) -> LengthFunction | None:
        """A function as a sum of steps; ``None`` where it takes too many.

        Args:
            fn: gives the length for lengths of at least 1; ``None`` where it has none, so that shorter ones count as too short, too.
            period: lengths after which its steps recur, or a multiple.
            known: what it gives for some lengths, which may be long: steps that begin late are not overlooked.
        """
        count = 4 * period + 64
        while period <= LONGEST and count <= 4 * LONGEST + 64:
            values = [0, *(fn(n) for n in range(1, count))]
            short = max((n for n, value in enumerate(values) if value is None), default=0)
            steps = _steps([0 if n <= short or value is None else max(0, value) for n, value in enumerate(values)], period)
            found = None if steps is None else LengthFunction(steps)
            if found is not None and all(found(n) == value for n, value in (known or {}).items()):
                return found if len(found.steps) <= 2 * MOST_STEPS else None
            count *= 2
        return None

    def __call__(self, n: int) -> int:
        found = 0
        for s in self.steps:
            if n >= s.at:
                found += s.jump * (((n - s.at) * s.times + s.phase) // s.every + 1 if s.every else 1)
        return found

    def on(self, n: Tensor) -> Tensor:
        """The function on a tensor of lengths."""
        found = n * 0
        for s in self.steps:
            if s.every == 1 and s.at == 1:
                found = found + n * s.jump
                continue
            if s.every:
                reached = n * s.times + (s.every + s.phase - s.at * s.times)
                times = reached.clamp(min=0).div(s.every, rounding_mode="trunc")
            else:
                times = (n >= s.at).to(n.dtype)
            found = found + times * s.jump
        return found

    @cached_property
    def monotone(self) -> bool:
        """Whether a longer clip never has fewer frames."""
        lengths = range(self.transient + self.period + 1) if any(s.jump < 0 for s in self.steps) else ()
        return all(self(n) <= self(n + 1) for n in lengths)

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
        return sum(s.jump * s.times * (self.period // s.every) for s in self.steps if s.every), self.period

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
    once = _once(jumps[:settled])
    places: dict[int, list[int]] = {}
    for n in range(settled, settled + period):
        if jumps[n]:
            places.setdefault(jumps[n], []).append(n)
    return (*once, *(step for jump, at in places.items() for step in _again(jump, at, period)))


def _once(jumps: list[int]) -> Iterator[Step]:
    """The steps before a period: those of a function that grows evenly for a while begin, and end."""
    at = 1
    while at < len(jumps):
        end = next((n for n in range(at, len(jumps)) if jumps[n] != jumps[at]), len(jumps))
        if jumps[at] and end - at > 2:
            yield from (Step(at, jumps[at], 1), Step(end, -jumps[at], 1))
        elif jumps[at]:
            yield from (Step(n, jumps[n]) for n in range(at, end))
        at = end


def _again(jump: int, places: list[int], period: int) -> list[Step]:
    """The steps of equal jumps that recur at some places of a period: one step, where they are evenly spread."""
    times, first = len(places), places[0]
    least = [i * period - (n - first) * times for i, n in enumerate((*places, first + period))]
    phase = max(0, *least)
    if phase < min(least) + times:  # the frame before each place has not reached it
        return [Step(first, jump, period, times, phase)]
    return [Step(n, jump, period) for n in places]


def _recurs(jumps: list[int], start: int, period: int) -> bool:
    return all(jumps[n] == jumps[n + period] for n in range(start, len(jumps) - period))
