"""What is found by search in the counts of a wire: its delay, and the widest span of inputs that an output sees."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from ..errors import ShapeMismatch

NEVER = 1 << 48  # inputs


def inputs_before_the_first(delivered: Callable[[int], int], high: int, name: object) -> int:
    """Inputs to observe before the one that brings the first output.

    Args:
        delivered: the number of outputs after so many inputs.
        high: where the search begins.
        name: of the timing, for the error.

    Raises:
        ShapeMismatch: there is none.
    """
    while delivered(high) == 0:
        high *= 2
        if high > NEVER:
            raise ShapeMismatch(f"{name} never gives an output: its crops remove every frame")
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if delivered(middle) else (middle, high)
    return high - 1


def widest(span: Callable[[int, int], tuple[int, int]], period: int, stride: int | Fraction) -> int:
    """The largest number of inputs from the first to the last that an output sees, over a period of outputs."""
    spans = (span(j, j) for j in range(int(period / Fraction(stride))))
    return max(1, max(last - first + 1 for first, last in spans))
