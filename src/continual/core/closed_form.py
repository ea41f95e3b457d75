"""The closed form of a timing: the inputs that an output sees, and when the pattern of outputs repeats."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
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
        pulse: the fewest inputs that always bring a fixed number of outputs.
        transient: inputs after which the pattern has become periodic (an upper bound).
        least: a clip shorter than this is refused, or has no frames on a wire in between.
        fits: what says how many frames there are, if that is a function of a length and not the padding alone.
    """

    stride: int | Fraction = 1
    field: int | Fraction = 1
    start: int | Fraction = 0
    end: int | Fraction = 0
    period: int = 1
    pulse: int = 1
    transient: int = 0
    least: int = 1
    fits: Hashable = None

    @property
    def padded(self) -> int | Fraction:
        """What padding adds to the number of outputs, less what windows take."""
        return self.start + self.end - self.field

    @property
    def balance(self) -> tuple[Hashable, int | Fraction]:
        """What decides the number of outputs: wires of equal balances have equal lengths for every clip."""
        return self.fits, self.padded

    def then(self, other: ClosedForm, to: ClosedForm) -> ClosedForm:
        """The closed form of a wire behind this one: strides multiply, ``R = R1 + s1*(R2 - 1)``, ``start = start1 + s1*start2``.

        Args:
            other: the form of what is between them.
            to: the form of the wire whose length it looks at, which is mostly this one.
        """
        s, by = self.stride, to.stride
        return ClosedForm(
            s * other.stride,
            math.ceil(self.field + s * (other.field - 1)),
            self.start + s * other.start,
            self.end + s * other.end,
            math.lcm(self.period, to.period, (by * other.period).numerator),
            math.lcm(self.pulse, to.pulse, (by * other.pulse).numerator),
            max(self.transient, to.transient) + math.ceil(by * other.transient) + math.ceil(by),
            max(self.least, math.ceil(s * (other.least - 1) - self.padded)),
            self.fits if other.fits is None else (other.fits, by, to.balance, self.padded),
        )

    @staticmethod
    def meet(parts: Sequence[ClosedForm]) -> ClosedForm:
        """The closed form of wires that wait for each other: an output sees what any of them sees, the shortest one ends it."""
        start = max(p.start for p in parts)
        field = math.ceil(start + max(p.field - p.start for p in parts))
        end = min(p.padded for p in parts) + field - start
        period, pulse = math.lcm(*(p.period for p in parts)), math.lcm(*(p.pulse for p in parts))
        transient, least = max(p.transient for p in parts), max(p.least for p in parts)
        one = len({p.fits for p in parts}) == 1
        fits = parts[0].fits if one else frozenset(p.balance for p in parts)
        return ClosedForm(parts[0].stride, field, start, end, period, pulse, transient, least, fits)

    def covers(self, other: ClosedForm) -> bool:
        """Whether outputs see all inputs that those of another wire see, and both have equal lengths for every clip."""
        as_long = self.balance == other.balance and other.least <= max(self.least, math.ceil(-self.padded))
        return as_long and self.start >= other.start and self.field - self.start >= other.field - other.start


def whole(value: int | Fraction) -> int | Fraction:
    """Fractions that are whole numbers as ints."""
    return value.numerator if value.denominator == 1 else value
