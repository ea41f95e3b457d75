"""When outputs come: exact counts, and the closed form (receptive field, stride, padding) that reports them.

A *wire* between two modules carries a pair ``(n, e)``: ``n`` frames delivered so far, and ``e``, how many there would be
if the stream ended now. A module maps the pair of its input wire to the pair of its output wire; a network composes
these maps. All of it is Python integers, so it costs no tensor work and never overflows.

The closed form says: output ``j`` depends on the inputs ``s*j - start … s*j - start + R - 1``. It composes too, but it
is a report: where the two differ (padding larger than the window, transposed convolution, reflection) the counts decide.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

from ..errors import ShapeMismatch
from .constant_rate import ConstantRate, burst_absorbed, in_a_row, whole

Counts = tuple[int, int]


class Timing(ABC):
    """The timing of a module. Immutable, hashable; compose with :meth:`then` and :meth:`parallel`.

    Example:
        >>> block = Window(3, start=1, end=1).then(Window(3, stride=2))
        >>> block.receptive_field, block.stride, block.start, block.delay
        (5, 2, 1, 3)
        >>> [block.counts(n, n)[0] for n in range(8)]  # outputs delivered after n inputs
        [0, 0, 0, 0, 1, 1, 2, 2]
        >>> block.ended(7)  # outputs of a clip of 7
        3
    """

    receptive_field: int
    start: int | Fraction
    end: int | Fraction
    stride: int | Fraction

    @abstractmethod
    def counts(self, n: int, n_if_ended: int) -> Counts:
        """Map the input wire's ``(delivered, if ended now)`` to the output wire's."""

    def of_wires(self, *pairs: Counts) -> Counts:
        """The same in a graph, where another wire may say how many frames there are."""
        return self.counts(*pairs[0])

    @abstractmethod
    def constant_rate(self, lookahead: int | None = 0) -> ConstantRate | None:
        """The counts as a delay and a stride, if they are that simple on an input wire with this lead."""

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        """As :meth:`constant_rate`, also where the first outputs come in a burst, after which the counts are that simple."""
        return self.constant_rate(lookahead)

    @property
    @abstractmethod
    def transient(self) -> int:
        """Inputs after which the counts have become periodic (an upper bound)."""

    @property
    def period(self) -> int:
        """Inputs after which the pattern of outputs repeats."""
        return Fraction(self.stride).numerator

    @property
    def pulse(self) -> int:
        """The fewest inputs that always bring a fixed number of outputs, once the counts have become periodic."""
        return Fraction(self.stride).numerator

    @property
    def phase_dependent(self) -> bool:
        """Whether outputs see more or fewer inputs in turns, so that the closed form can't say how many (upsampling)."""
        return False

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last input that outputs ``first … last`` see, padding included."""
        return int(self.stride * first - self.start), int(self.stride * last - self.start) + self.receptive_field - 1

    @property
    def causal_counts(self) -> bool:
        """Whether what has been delivered follows from ``n`` alone, whatever is known of the end: no input, no output."""
        return self.constant_rate(None) is not None

    def ended(self, n_if_ended: int) -> int:
        """How many outputs a clip of ``e`` steps has; 0 where the clip computation refuses it as too short."""
        return self.counts(n_if_ended, n_if_ended)[1]

    def delivered(self, n: int) -> int:
        """How many outputs have been returned after ``n`` inputs of a stream that goes on."""
        return self.counts(n, n)[0]

    @cached_property
    def delay(self) -> int:
        """Inputs to observe before the one that brings the first output."""
        high = max(1, self.receptive_field)
        while self.delivered(high) == 0:
            high *= 2
            if high > 1 << 48:
                raise ShapeMismatch(f"{self} never gives an output: its crops remove every frame")
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.delivered(middle) else (middle, high)
        return high - 1

    @cached_property
    def bursts(self) -> bool:
        """Whether one input can bring several outputs (upsampling, start padding beyond the window, reflection)."""
        plain = self.constant_rate()
        if plain is not None and plain.delay >= 0:
            return False
        counts = [self.delivered(n) for n in range(self.transient + 2 * self.period + 1)]
        return any(b - a > 1 for a, b in pairwise(counts))

    def then(self, other: Timing) -> Timing:
        """This timing followed by another."""
        parts = [p for t in (self, other) for p in (t.parts if isinstance(t, Sequence) else (t,)) if p != IDENTITY]
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts)) if parts else IDENTITY

    @staticmethod
    def sequence(*timings: Timing) -> Timing:
        """Timings one after another; none at all is the identity."""
        return functools.reduce(Timing.then, timings, IDENTITY)

    @staticmethod
    def parallel(*timings: Timing) -> Timing:
        """Branches that are fed together and wait for each other.

        Raises:
            ShapeMismatch: if their strides differ, since their outputs then belong to different moments.
        """
        if not timings:
            return IDENTITY
        return timings[0] if all(t == timings[0] for t in timings) else Parallel(tuple(timings))


@dataclass(frozen=True)
class Window(Timing):
    """A sliding window: convolution, pooling, a delay (``R = d + 1``, ``end = d``), anything pointwise (``R = 1``).

    Args:
        receptive_field: extent of the window in inputs, ``R``.
        stride: inputs from one output to the next.
        start: padded frames before the first input.
        end: padded frames after the last input (with ``ceil_mode``, the extra ones included).
        wait: no output before so many inputs have come: padding that repeats or mirrors frames needs them first.
        least: a clip shorter than this is refused.

    Example:
        >>> Window(3, start=1, end=1).delay
        1
        >>> Window(3, start=4, end=4).counts(1, 1)  # padding beyond the window: three outputs at once
        (3, 7)
    """

    receptive_field: int = 1
    stride: int = 1
    start: int = 0
    end: int = 0
    wait: int = 0
    least: int = 1

    def counts(self, n: int, n_if_ended: int) -> Counts:
        ended = (
            max(0, (n_if_ended + self.start + self.end - self.receptive_field) // self.stride + 1)
            if n_if_ended >= self.least
            else 0
        )
        if n < self.wait:
            return 0, ended
        return min(ended, max(0, (n - self.receptive_field + self.start) // self.stride + 1)), ended

    def constant_rate(self, lookahead: int | None = 0) -> ConstantRate | None:
        found = self.eventually_constant(lookahead)
        return None if found is None or found.after else found

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        if self.end < 0:
            return None
        lookahead = None if lookahead is None else lookahead + self.end
        lookahead = lookahead if self.stride == 1 or lookahead == 0 else None
        delay, first = self.receptive_field - 1 - self.start, max(self.wait, self.least, 1)
        return ConstantRate(delay, self.stride, lookahead, first, after=first if delay + 1 < first else 0)

    @property
    def transient(self) -> int:
        return self.receptive_field + abs(self.start) + abs(self.end) + self.wait + self.least


@dataclass(frozen=True)
class Crop(Timing):
    """Cut ``first`` frames at the start and ``last`` at the end.

    An output exists only once its position can no longer be cut off. So a causal convolution written as padding on both
    sides and a cut of the end has no delay:

    Example:
        >>> Window(3, start=2, end=2).then(Crop(0, 2)).delay
        0
        >>> Crop(1, 2).delay
        3
    """

    first: int = 0
    last: int = 0

    receptive_field = 1
    stride = 1

    @property
    def start(self) -> int:  # type: ignore[override]
        return -self.first

    @property
    def end(self) -> int:  # type: ignore[override]
        return -self.last

    def counts(self, n: int, n_if_ended: int) -> Counts:
        return max(0, min(n, n_if_ended - self.last) - self.first), max(0, n_if_ended - self.first - self.last)

    def constant_rate(self, lookahead: int | None = 0) -> ConstantRate | None:
        if lookahead is None:
            return ConstantRate(self.first, 1, None) if self.last == 0 else None
        return ConstantRate(self.first + max(0, self.last - lookahead), 1, max(0, lookahead - self.last))

    @property
    def transient(self) -> int:
        return self.first + self.last + 1


@dataclass(frozen=True)
class Sequence(Timing):
    """Timings in a row: strides multiply, ``R = R1 + s1*(R2 - 1)``, ``start = start1 + s1*start2``."""

    parts: tuple[Timing, ...]

    def counts(self, n: int, n_if_ended: int) -> Counts:
        for part in self.parts:
            n, n_if_ended = part.counts(n, n_if_ended)
        return n, n_if_ended

    def constant_rate(self, lookahead: int | None = 0) -> ConstantRate | None:
        """Also where the burst that padding brings at the start is swallowed by the windows behind it (a causal convolution)."""
        parts = self._eventual(lookahead)
        return in_a_row(parts) if parts and burst_absorbed(parts) else None

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        parts = self._eventual(lookahead)
        return in_a_row(parts) if parts else None

    def _eventual(self, lookahead: int | None) -> list[ConstantRate]:
        """What the parts become; empty if one of them never becomes plain."""
        found: list[ConstantRate] = []
        for part in self.parts:
            plain = part.eventually_constant(lookahead)
            if plain is None:
                return []
            found.append(plain)
            lookahead = plain.lookahead
        return found

    @cached_property
    def causal_counts(self) -> bool:
        return all(p.causal_counts for p in self.parts)

    def _with_strides(self) -> Iterator[tuple[Timing, int | Fraction]]:
        stride: int | Fraction = 1
        for part in self.parts:
            yield part, stride
            stride = stride * part.stride

    @cached_property
    def stride(self) -> int | Fraction:  # type: ignore[override]
        return whole(math.prod((p.stride for p in self.parts), start=Fraction(1)))

    @cached_property
    def pulse(self) -> int:
        return math.lcm(*((stride * p.pulse).numerator for p, stride in self._with_strides()))

    @cached_property
    def phase_dependent(self) -> bool:
        return any(p.phase_dependent for p in self.parts)

    def span(self, first: int, last: int) -> tuple[int, int]:
        for part in reversed(self.parts):
            first, last = part.span(first, last)
        return first, last

    @cached_property
    def receptive_field(self) -> int:  # type: ignore[override]
        if self.phase_dependent:
            return widest(self)
        return 1 + math.ceil(sum(s * (p.receptive_field - 1) for p, s in self._with_strides()))

    @cached_property
    def start(self) -> int | Fraction:  # type: ignore[override]
        return whole(sum((s * p.start for p, s in self._with_strides()), start=Fraction(0)))

    @cached_property
    def end(self) -> int | Fraction:  # type: ignore[override]
        return whole(sum((s * p.end for p, s in self._with_strides()), start=Fraction(0)))

    @cached_property
    def period(self) -> int:
        period, stride = 1, Fraction(1)
        for part in self.parts:
            period = math.lcm(period, (stride * part.period).numerator)
            stride *= part.stride
        return period

    @cached_property
    def transient(self) -> int:
        return sum(math.ceil(s * p.transient) + math.ceil(s) for p, s in self._with_strides())


@dataclass(frozen=True)
class Parallel(Timing):
    """Branches fed together: output ``j`` leaves when the slowest branch has it, and exists when all have it."""

    branches: tuple[Timing, ...]

    def __post_init__(self) -> None:
        if len(strides := {b.stride for b in self.branches}) > 1:
            raise ShapeMismatch(
                f"parallel branches have temporal strides {sorted(strides)}: their outputs belong to different moments. "
                "Give every branch the same stride (for instance a strided 1×1 convolution in the shortcut)"
            )

    def counts(self, n: int, n_if_ended: int) -> Counts:
        pairs = [b.counts(n, n_if_ended) for b in self.branches]
        return min(p[0] for p in pairs), min(p[1] for p in pairs)

    def constant_rate(self, lookahead: int | None = 0) -> ConstantRate | None:
        plains = [b.constant_rate(lookahead) for b in self.branches]
        if any(p is None for p in plains):
            return None
        found = [p for p in plains if p is not None]
        leads = [p.lookahead for p in found if p.lookahead is not None]
        known = len(leads) == len(found) and self.lengths_agree
        after = max(p.after for p in found)
        return ConstantRate(max(p.delay for p in found), found[0].stride, max(leads) if known else None, after=after)

    @cached_property
    def causal_counts(self) -> bool:
        return all(b.causal_counts for b in self.branches)

    @cached_property
    def lengths_agree(self) -> bool:
        """Whether all branches have the same number of outputs for every clip."""
        return len({b.start + b.end - b.receptive_field for b in self.branches}) == 1

    @property
    def stride(self) -> int | Fraction:  # type: ignore[override]
        return self.branches[0].stride

    @cached_property
    def start(self) -> int | Fraction:  # type: ignore[override]
        return max(b.start for b in self.branches)

    @cached_property
    def phase_dependent(self) -> bool:
        return any(b.phase_dependent for b in self.branches)

    def span(self, first: int, last: int) -> tuple[int, int]:
        spans = [b.span(first, last) for b in self.branches]
        return min(s[0] for s in spans), max(s[1] for s in spans)

    @cached_property
    def receptive_field(self) -> int:  # type: ignore[override]
        if self.phase_dependent:
            return widest(self)
        return math.ceil(self.start + max(b.receptive_field - b.start for b in self.branches))

    @cached_property
    def end(self) -> int | Fraction:  # type: ignore[override]
        return min(b.start + b.end - b.receptive_field for b in self.branches) + self.receptive_field - self.start

    @cached_property
    def period(self) -> int:
        return math.lcm(*(b.period for b in self.branches))

    @cached_property
    def transient(self) -> int:
        return max(b.transient for b in self.branches)


def widest(timing: Timing) -> int:
    """The largest number of inputs from the first to the last that an output sees, over a period of outputs."""
    spans = (timing.span(j, j) for j in range(int(timing.period / Fraction(timing.stride))))
    return max(1, max(last - first + 1 for first, last in spans))


IDENTITY: Timing = Window()
