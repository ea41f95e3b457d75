"""The closed form of a timing: the inputs that an output sees, and when the pattern of outputs repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class ClosedForm:
    """Output ``j`` of a wire sees the inputs ``stride*j - start … stride*j - start + field - 1`` of another wire.

    Attributes:
        stride: inputs from one output to the next.
        field: the number of inputs that an output sees.
        start, end: padding at both ends, in inputs.
        period: inputs after which the pattern of outputs repeats.
        transient: inputs after which it has become periodic (an upper bound).
        least: a clip shorter than this is refused, or has no frames on a wire in between.
    """

    stride: int | Fraction = 1
    field: int | Fraction = 1
    start: int | Fraction = 0
    end: int | Fraction = 0
    period: int = 1
    transient: int = 0
    least: int = 1

    @property
    def balance(self) -> int | Fraction:
        """What decides the number of outputs: wires of equal balances have equal lengths for every clip."""
        return self.start + self.end - self.field

    def then(self, other: ClosedForm) -> ClosedForm:
        """The closed form of a wire behind this one: strides multiply, ``R = R1 + s1*(R2 - 1)``, ``start = start1 + s1*start2``."""
        s = self.stride
        return ClosedForm(
            s * other.stride,
            math.ceil(self.field + s * (other.field - 1)),
            self.start + s * other.start,
            self.end + s * other.end,
            math.lcm(self.period, (s * other.period).numerator),
            self.transient + math.ceil(s * other.transient) + math.ceil(s),
            max(self.least, math.ceil(s * (other.least - 1) - self.balance)),
        )

    @staticmethod
    def meet(parts: Sequence[ClosedForm]) -> ClosedForm:
        """The closed form of wires that wait for each other: an output sees what any of them sees, the shortest one ends it."""
        start = max(p.start for p in parts)
        field = math.ceil(start + max(p.field - p.start for p in parts))
        end = min(p.balance for p in parts) + field - start
        period, transient = math.lcm(*(p.period for p in parts)), max(p.transient for p in parts)
        return ClosedForm(parts[0].stride, field, start, end, period, transient, max(p.least for p in parts))

    def covers(self, other: ClosedForm) -> bool:
        """Whether outputs see all inputs that those of another wire see, and both have equal lengths for every clip."""
        as_long = self.balance == other.balance and other.least <= max(self.least, math.ceil(-self.balance))
        return as_long and self.start >= other.start and self.field - self.start >= other.field - other.start


def whole(value: int | Fraction) -> int | Fraction:
    """Fractions that are whole numbers as ints."""
    return value.numerator if value.denominator == 1 else value


def widest(span: Callable[[int, int], tuple[int, int]], period: int, stride: int | Fraction) -> int:
    """The largest number of inputs from the first to the last that an output sees, over a period of outputs."""
    spans = (span(j, j) for j in range(int(period / Fraction(stride))))
    return max(1, max(last - first + 1 for first, last in spans))
