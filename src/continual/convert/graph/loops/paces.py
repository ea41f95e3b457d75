"""The number of frames that an iteration takes, and the clips that reveal the loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

Total = Callable[[int], int | None]  # calls of torch on a clip of so many frames; None: the module refuses it
UNITS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 100, 128, 256, 512)  # steps between the clip lengths that a module takes
SHORTEST = 32  # the first length on which a pace is looked for
ITERATIONS = (7, 11, 16, 24, 33)  # of clips that are exported; wide windows are fewer than their strides


class Pace(NamedTuple):
    """The pace of a loop.

    Attributes:
        frames: that an iteration takes.
        begins: the length of a clip that has an iteration more than shorter ones.
        unit: the module takes clip lengths that differ by multiples of it.
    """

    frames: int
    begins: int
    unit: int

    def clips(self, full: bool = False) -> Iterator[tuple[int, int]]:
        """Lengths of two clips that differ by an iteration, and end within one if the module takes such clips.

        Args:
            full: lengths of clips that end just before another iteration.
        """
        beyond = self.frames - self.unit if full else self.unit % self.frames
        for count in ITERATIONS:
            longer = self.begins % self.frames + beyond + self.frames * count
            yield longer, longer - self.frames


def pace_of(total: Total, frames: int) -> Pace | None:
    """The pace of a loop; ``None`` if no loop is found.

    The number of calls grows with each iteration. So the distance between two lengths at which it grows is the number of frames of
    an iteration.

    Args:
        total: the number of calls on a clip of some length, from the first frame on.
        frames: of the example.
    """
    shorter = itertools.takewhile(lambda n: n < frames, (SHORTEST << i for i in itertools.count()))
    longer = [n for n in (SHORTEST, 2 * SHORTEST) if n > frames]  # an example may have one window, or two
    for longest in [*shorter, frames, *longer]:
        most = total(longest)
        if most is None:
            continue
        unit = next((u for u in UNITS if 2 * u <= longest and total(longest - u) is not None), None)
        if unit is None:
            continue
        higher = _below(total, longest, most, unit)
        lower = None if higher is None else _below(total, higher, total(higher), unit)
        if higher is not None and lower is not None:
            return Pace(higher - lower, higher + unit, unit)
    return None


def _below(total: Total, frames: int, most: int | None, unit: int) -> int | None:
    """The longest clip with fewer calls, in steps of the unit."""
    few, many = (frames - 1) // unit, 0  # units to drop: known to make fewer calls, and known to make as many
    found = None
    for step in range(1, few.bit_length() + 1):  # first the lengths nearby: iterations take few frames
        units = min(few, 1 << (step - 1))
        if (other := total(frames - units * unit)) is None:
            break
        if other != most:
            few = found = units
            break
        many = units
    while found is not None and few - many > 1:
        middle = (few + many) // 2
        other = total(frames - middle * unit)
        if other is not None and other == most:
            many = middle
        else:
            few = found = middle
    return None if found is None else frames - found * unit
