"""When outputs come that are weighted sums of the inputs around them, at another rate: resampling by a filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from .closed_form import whole
from .constant_rate import ConstantRate
from .delivery import widest
from .timing import Counts, Timing


@dataclass(frozen=True)
class Polyphase(Timing):
    """Output ``j`` lies at input ``j·down/up``, and sees the inputs that lie less than ``reach`` away. Beyond the ends there are zeros.

    Args:
        down: inputs for ``up`` outputs; without a common divisor.
        up: see there.
        reach: in inputs.

    Example:
        >>> thirds = Polyphase(3, 2, Fraction(7, 2))
        >>> thirds.stride, thirds.ended(10), [thirds.delivered(n) for n in range(3, 9)]
        (Fraction(3, 2), 7, [0, 1, 2, 2, 3, 4])
    """

    down: int
    up: int
    reach: Fraction

    def sees(self, j: int) -> tuple[int, int]:
        """The first and the last input that output ``j`` sees; indices may be out of range."""
        place = Fraction(j * self.down, self.up)
        return math.floor(place - self.reach) + 1, math.ceil(place + self.reach) - 1

    def counts(self, n: int, n_if_ended: int) -> Counts:
        ended = -(-n_if_ended * self.up // self.down)
        return (math.floor((n - self.reach) * self.up / self.down) + 1 if n >= self.reach else 0), ended

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        return ConstantRate(self.sees(0)[1], self.down, None) if self.up == 1 else None

    causal_counts = True  # an output sees at least one input at its place or behind it
    phase_dependent = True

    @property
    def transient(self) -> int:
        return self.period + 2 * math.ceil(self.reach) + 2

    def span(self, first: int, last: int) -> tuple[int, int]:
        return self.sees(first)[0], self.sees(last)[1]

    @property
    def stride(self) -> int | Fraction:  # type: ignore[override]
        return whole(Fraction(self.down, self.up))

    @cached_property
    def receptive_field(self) -> int:  # type: ignore[override]
        return widest(self.span, self.period, self.stride)

    @cached_property
    def start(self) -> int | Fraction:  # type: ignore[override]
        return whole(max(j * Fraction(self.down, self.up) - self.sees(j)[0] for j in range(self.up)))

    @property
    def end(self) -> int | Fraction:  # type: ignore[override]
        return whole(self.receptive_field - self.stride - self.start + Fraction(self.down - 1, self.up))

    @cached_property
    def kept(self) -> int:
        """How many of the inputs that have come are still needed, at most."""
        first = 2 * math.ceil(self.reach)  # from here on no output sees what precedes the stream
        return max(n - max(0, self.sees(self.counts(n, n)[0])[0]) for n in range(1, first + 2 * self.down + 1))
