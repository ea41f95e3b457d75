"""When outputs come whose number is not that of the inputs: transposed convolution, interpolation.

Positions are rational numbers, so that they are the same at any clock: what an output sees depends on its place within a period.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from .closed_form import whole
from .constant_rate import ConstantRate
from .delivery import widest
from .timing import Counts, Timing

CUBIC = Fraction(-3, 4)  # the sharpness of torch's cubic convolution


@dataclass(frozen=True)
class Upsampling(Timing):
    """Transposed convolution over time: ``rate`` outputs per input, kernel ``extent``, ``padding`` cut at both ends.

    Nearest-neighbour upsampling is ``Upsampling(rate, extent=rate)``.

    Example:
        >>> up = Upsampling(2, extent=4, padding=1)
        >>> up.stride, up.ended(5), [up.delivered(n) for n in range(4)]
        (Fraction(1, 2), 10, [0, 1, 3, 5])
    """

    rate: int
    extent: int
    padding: int = 0
    output_padding: int = 0

    def counts(self, n: int, n_if_ended: int) -> Counts:
        if n_if_ended == 0:
            return 0, 0
        ended = max(0, (n_if_ended - 1) * self.rate - 2 * self.padding + self.extent + self.output_padding)
        return min(max(0, n * self.rate - self.padding), ended), ended

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        if self.rate > 1:
            return None
        more = self.extent - 1 - self.padding + self.output_padding  # outputs that the end brings, or cuts off if below 0
        if lookahead is None:
            return ConstantRate(self.padding, 1, None) if more >= 0 else None
        return ConstantRate(self.padding + max(0, -lookahead - more), 1, max(0, lookahead + more))

    @property
    def causal_counts(self) -> bool:
        return self.extent + self.output_padding >= self.rate + self.padding

    @property
    def phase_dependent(self) -> bool:
        return self.rate > 1

    def span(self, first: int, last: int) -> tuple[int, int]:
        return -((self.extent - 1 - first - self.padding) // self.rate), (last + self.padding) // self.rate

    @property
    def receptive_field(self) -> int:  # type: ignore[override]
        return (self.extent - 1) // self.rate + 1

    @property
    def stride(self) -> int | Fraction:  # type: ignore[override]
        return whole(Fraction(1, self.rate))

    @property
    def start(self) -> int:  # type: ignore[override]
        return (self.extent - 1 - self.padding) // self.rate

    @property
    def end(self) -> Fraction:  # type: ignore[override]
        length = Fraction(self.extent + self.output_padding - 2 * self.padding - 1, self.rate)
        return length - 1 + self.receptive_field - self.start

    @property
    def transient(self) -> int:
        return 2 + (self.padding + self.extent + self.output_padding) // self.rate


@dataclass(frozen=True)
class Interpolation(Timing):
    """Resampling by a rational factor, positions as ``torch.nn.functional.interpolate`` has them without ``align_corners``.

    Output ``j`` lies at input ``j/factor`` (``"nearest"``, rounded down), ``(j + ½)/factor`` (``"nearest-exact"``, rounded down)
    or ``(j + ½)/factor - ½`` (``"linear"``, between two inputs, and ``"cubic"``, among four). Beyond the ends the first and the last
    frame are repeated.

    Args:
        factor: outputs per input.
        kind: one of these four.

    Example:
        >>> up = Interpolation(Fraction(2), "linear")
        >>> up.ended(3), [up.delivered(n) for n in range(4)]  # an output between two inputs waits for the second one
        (6, [0, 1, 3, 5])
    """

    factor: Fraction
    kind: str = "nearest"

    # ---- positions --------------------------------------------------------------------------------------------------

    def position(self, j: int) -> Fraction:
        """Where output ``j`` lies between the inputs, before it is rounded or clamped."""
        if self.kind == "nearest":
            return j / self.factor
        middle = (j + Fraction(1, 2)) / self.factor
        return middle if self.kind == "nearest-exact" else middle - Fraction(1, 2)

    def taps(self, j: int) -> list[tuple[int, Fraction]]:
        """The inputs that output ``j`` sees, with their weights; indices may be out of range.

        At the place of an input all others have weight 0, and are not seen. Except where a cubic interpolation gives more than one
        output for an input: there the two neighbours are seen. They lie within the kernel, and the output just before waits for the
        second one. So no output is known before an earlier one, and none is held back where a crop or a stride drops the earlier one.
        """
        position = self.position(j)
        floor = position.numerator // position.denominator
        t = position - floor
        if self.kind == "cubic" and (t or self.factor > 1):
            return [(floor - 1 + k, _cubic(abs(t + 1 - k))) for k in range(4 if t else 3)]
        if t == 0 or self.kind.startswith("nearest"):
            return [(floor, Fraction(1))]
        return [(floor, 1 - t), (floor + 1, t)]

    # ---- counts -----------------------------------------------------------------------------------------------------

    def counts(self, n: int, n_if_ended: int) -> Counts:
        ended = n_if_ended * self.factor.numerator // self.factor.denominator
        return (min(self._reached(n), ended) if n else 0), ended

    def _reached(self, n: int) -> int:
        """How many leading outputs see the first ``n`` inputs alone (or frames before them)."""
        p, q = self.factor.numerator, self.factor.denominator
        if self.kind == "nearest":
            return -(-n * p // q)
        if self.kind == "nearest-exact":
            return -((q - 2 * p * n) // (2 * q))
        if self.kind == "linear":
            return max(0, (p * (2 * n - 1) - q) // (2 * q) + 1)
        between = max(0, (p * (2 * n - 3) - q) // (2 * q) + 1)  # the first output beyond input n - 2
        return between + (self.factor < 1 and self.position(between) == n - 1)

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        if lookahead is None or self.factor.numerator > 1:
            return None
        stride = self.factor.denominator
        delay = max(max(i for i, _ in self.taps(0)), stride - 1 - lookahead)
        ahead, rest = divmod(lookahead + 1 + delay - stride, stride)
        return ConstantRate(delay, stride, None if rest else ahead)

    @cached_property
    def causal_counts(self) -> bool:
        return all(self._reached(n) <= self.ended(n) for n in range(1, self.transient + self.period + 1))

    @property
    def transient(self) -> int:
        return 4 + self.period

    # ---- closed form ------------------------------------------------------------------------------------------------

    phase_dependent = True

    def span(self, first: int, last: int) -> tuple[int, int]:
        seen = [i for j in {first, min(first + 1, last), max(last - 1, first), last} for i, _ in self.taps(j)]
        return min(seen), max(seen)

    @property
    def stride(self) -> int | Fraction:  # type: ignore[override]
        return whole(1 / self.factor)

    @cached_property
    def receptive_field(self) -> int:  # type: ignore[override]
        return widest(self.span, self.period, self.stride)

    @cached_property
    def start(self) -> int:  # type: ignore[override]
        return int(max(j * self.stride - min(i for i, _ in self.taps(j)) for j in range(self.factor.numerator)))

    @property
    def end(self) -> int | Fraction:  # type: ignore[override]
        return whole(self.receptive_field - self.stride - self.start)

    @cached_property
    def kept(self) -> int:
        """How many of the inputs that have come are still needed, at most."""
        most = 0
        for n in range(1, self.transient + 2 * self.period + 1):
            n_out, ended = self.counts(n, n)
            oldest = min(i for j in (n_out, n_out + 1) for i, _ in self.taps(j))
            if n_out < ended:
                oldest = min(oldest, n - 1)  # the end of the stream repeats the last frame
            most = max(most, n - max(0, oldest))
        return most


def _cubic(x: Fraction) -> Fraction:
    """The weight of an input that lies ``x`` away."""
    if x <= 1:
        return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    return ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
