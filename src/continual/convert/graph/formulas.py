"""Numbers as formulas of the clip's length: what a module computes from ``x.shape[time]``, for any length."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

DIVISIONS = {operator.floordiv, operator.mod, operator.truediv}
LONG = 1 << 40  # frames


class Lengths:
    """A clip: its rows, and the number of frames on every wire.

    Args:
        batch: rows.
        frames: gives the number of frames of a wire.
    """

    def __init__(self, batch: int, frames: Callable[[int], int]):
        self.batch, self.frames = batch, frames


class Formula:
    """A function of formulas and numbers.

    Args:
        fn: the function.
        args: its arguments.
        period: lengths after which the values of a leaf recur, but for their growth; by default that of the arguments.
        wires: the wires whose lengths are in it.
    """

    def __init__(self, fn: Callable[..., Any], args: Sequence[Any], period: int = 0, wires: frozenset[int] = frozenset()):
        self.fn, self.args = fn, tuple(args)
        inside = [a for a in self.args if isinstance(a, Formula)]
        self.wires: frozenset[int] = wires.union(*(a.wires for a in inside))
        self.period: int = period or math.lcm(*(a.period for a in inside)) * self._divisor
        self._last: tuple[Lengths, Any] | None = None

    @property
    def _divisor(self) -> int:
        """The number by which the function divides, for long clips: a block is at most as long as the clip."""
        by = self.args[1] if self.fn in DIVISIONS and len(self.args) == 2 else 1
        if isinstance(by, Formula):
            far, farther = (by(Lengths(1, lambda wire, n=n: n)) for n in (LONG, LONG + 1))  # type: ignore[misc]
            by = far if far == farther else 1
        return abs(int(by)) if isinstance(by, (int, float)) and by == int(by) and by else 1

    def __call__(self, clip: Lengths) -> Any:
        """The value for a clip."""
        if self._last is None or self._last[0] is not clip:
            self._last = clip, self.fn(*(a(clip) if isinstance(a, Formula) else a for a in self.args))
        return self._last[1]


class SizeOf(Formula):
    """The size of a dimension of a stream."""

    def __init__(self, wire: int, period: int, size: Callable[[int, int], int]):
        super().__init__(size, (), period, frozenset((wire,)))
        self._wire = wire

    def __call__(self, clip: Lengths) -> int:
        return int(self.fn(clip.batch, clip.frames(self._wire)))
