"""When outputs come: exact counts, and the closed form (receptive field, stride, padding) that reports them.

A *wire* between two modules carries a pair ``(n, n_if_ended)``: the frames delivered so far, and those that there would be if the stream
ended now. A module maps the pair of its input wire to the pair of its output wire; a network composes these maps. All of it is Python
integers, so it costs no tensor work and never overflows.

The closed form says: output ``j`` depends on the inputs ``s*j - start … s*j - start + R - 1``. It composes too, but it is a report: where
the two differ (padding larger than the window, transposed convolution, reflection) the counts decide.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

from .closed_form import ClosedForm, whole
from .constant_rate import ConstantRate
from .delivery import inputs_before_the_first, widest

T = TypeVar("T")
Counts = tuple[int, int]
_Rate = tuple[ConstantRate | None, ClosedForm]  # of a wire, while rates are composed


class Timing(ABC):
    """The timing of a module. Immutable, hashable; compose with :meth:`then` and :func:`~continual.core.timing_graph.aligned`.

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
    least: int = 1  # a clip shorter than this is refused

    @abstractmethod
    def counts(self, n: int, n_if_ended: int) -> Counts:
        """Map the input wire's ``(delivered, if ended now)`` to the output wire's."""

    def of_wires(self, *pairs: Counts) -> Counts:
        """The same in a graph, where another wire may say how many frames there are."""
        return self.counts(*pairs[0])

    @abstractmethod
    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        """The counts as a delay and a stride, if they are that simple on an input wire with this lookahead, apart from a first burst."""

    def constant_rate(self, lookahead: int | None = 0) -> ConstantRate | None:
        """As :meth:`eventually_constant`, if the counts are that simple from the start.

        This includes padding whose burst the windows behind it absorb (a causal convolution).
        """
        found = self.eventually_constant(lookahead)
        return None if found is None or found.bursts else found._replace(first=1)

    @property
    @abstractmethod
    def transient(self) -> int:
        """Inputs after which the counts have become periodic (an upper bound)."""

    @property
    def period(self) -> int:
        """Inputs after which the pattern of outputs repeats."""
        return self.stride.numerator

    @property
    def pulse(self) -> int:
        """The fewest inputs that always bring a fixed number of outputs, once the counts have become periodic."""
        return self.stride.numerator

    @property
    def fits(self) -> Hashable:
        """The function that gives the number of frames; ``None`` where the closed form gives it."""
        return None

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
        """How many outputs a clip of so many steps has; 0 where the clip computation refuses it as too short."""
        return self.counts(n_if_ended, n_if_ended)[1]

    def delivered(self, n: int) -> int:
        """How many outputs have been returned after ``n`` inputs of a stream that goes on."""
        return self.counts(n, n)[0]

    @cached_property
    def delay(self) -> int:
        """Inputs to observe before the one that brings the first output."""
        return inputs_before_the_first(self.delivered, max(1, self.receptive_field), self)

    @cached_property
    def bursts(self) -> bool:
        """Whether one input can bring several outputs (upsampling, start padding beyond the window, reflection)."""
        rate = self.constant_rate()
        if rate is not None and rate.delay >= 0:
            return False
        counts = [self.delivered(n) for n in range(self.transient + 2 * self.period + 1)]
        return any(b - a > 1 for a, b in pairwise(counts))

    @cached_property
    def closed_form(self) -> ClosedForm:
        """Stride, receptive field, padding, period and transient, as they compose."""
        periodic = self.period, self.pulse, self.transient
        return ClosedForm(self.stride, self.receptive_field, self.start, self.end, *periodic, self.least, self.fits)

    @property
    def graph(self) -> Wiring:
        """This timing as a graph."""
        return self if isinstance(self, Wiring) else Wiring(((None, ()), (self, (0,))), 1)

    def then(self, other: Timing) -> Timing:
        """This timing followed by another."""
        if self == IDENTITY or other == IDENTITY:
            return other if self == IDENTITY else self
        a, b = self.graph, other.graph
        behind = ((timing, tuple(a.out + wire for wire in inputs)) for timing, inputs in b.entries[1 : b.out + 1])
        return Wiring((*a.entries[: a.out + 1], *behind), a.out + b.out)

    @staticmethod
    def sequence(*timings: Timing) -> Timing:
        """Timings one after another; none at all is the identity."""
        before: Timing = IDENTITY
        for timing in timings:
            before = before.then(timing)
        return before


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
        short: a clip shorter than the window has one output too, of what there is.

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
    short: bool = field(default=False, repr=False)  # not in what states say of their network

    def counts(self, n: int, n_if_ended: int) -> Counts:
        ended = (
            max(int(self.short), (n_if_ended + self.start + self.end - self.receptive_field) // self.stride + 1)
            if n_if_ended >= self.least
            else 0
        )
        if n < self.wait:
            return 0, ended
        return min(ended, max(0, (n - self.receptive_field + self.start) // self.stride + 1)), ended

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

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        if lookahead is None:
            return ConstantRate(self.first, 1, None) if self.last == 0 else None
        return ConstantRate(self.first + max(0, self.last - lookahead), 1, max(0, lookahead - self.last))

    @property
    def transient(self) -> int:
        return self.first + self.last + 1


# What happens to which wires. Without a timing they wait for each other. With one, a second wire decides how many frames there are.
Entry = tuple[Timing | None, tuple[int, ...]]


@dataclass(frozen=True)
class Wiring(Timing):
    """The timing of a wire in a graph of timings: modules one after another and side by side, however they are nested.

    A wire may be used any number of times, and is looked at once: in nested timings, each residual connection would double the work.

    Args:
        entries: entry 0 is the network's input, ``(None, ())``; entry ``i`` makes wire ``i`` of earlier wires.
        out: the wire that this is the timing of.

    Example:
        >>> conv = Window(3, start=1, end=1)
        >>> residual = Wiring(((None, ()), (conv, (0,)), (None, (0, 1))), 2)
        >>> residual.delay, residual.receptive_field, residual.counts(5, 5)
        (1, 3, (4, 5))
    """

    entries: tuple[Entry, ...]
    out: int

    def at(self, wire: int) -> Wiring:
        """The timing of another wire of the same graph."""
        return replace(self, out=wire)

    @cached_property
    def _hash(self) -> int:
        return hash((self.entries, self.out))

    def __hash__(self) -> int:  # once: programs look timings up in every call
        return self._hash

    def __reduce__(self) -> Any:  # hashes of strings are of one process
        return Wiring, (self.entries, self.out)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The wires on which this one depends, and itself, in order."""
        needed = {self.out}
        for i in range(self.out, 0, -1):
            if i in needed:
                needed.update(self.entries[i][1])
        return tuple(sorted(needed))

    @cached_property
    def timings(self) -> tuple[Timing, ...]:
        """The timings on the way from the network's input."""
        return tuple(timing for i in self.order if (timing := self.entries[i][0]) is not None)

    def fold(self, start: T, then: Callable[..., T], meet: Callable[[list[T]], T]) -> dict[int, T]:
        """What holds for each wire on which this one depends: every property of a composition is computed by this one pass.

        Args:
            start: what holds for the network's input.
            then: what holds behind a timing, from the timing, what holds before it, and what holds for the wire that says its length.
            meet: what holds where wires wait for each other.
        """
        found = {0: start}
        for i in self.order:
            timing, inputs = self.entries[i]
            if timing is not None:
                found[i] = then(timing, *(found[j] for j in inputs))
            elif inputs:
                found[i] = meet([found[j] for j in inputs])
        return found

    def counts(self, n: int, n_if_ended: int) -> Counts:
        return self.all_counts(n, n_if_ended)[self.out]

    def all_counts(self, n: int, n_if_ended: int) -> dict[int, Counts]:
        """The counts of all wires on which this one depends."""
        return self.fold(
            (n, n_if_ended), lambda t, *c: t.of_wires(*c), lambda parts: (min(n for n, _ in parts), min(e for _, e in parts))
        )

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        start: _Rate = ConstantRate(0, 1, lookahead), ClosedForm()
        return self.fold(start, _rate_then, _rate_meet)[self.out][0]

    @cached_property
    def closed_form(self) -> ClosedForm:
        return self.fold(ClosedForm(), lambda t, *forms: forms[0].then(t.closed_form, forms[-1]), ClosedForm.meet)[self.out]

    @property
    def stride(self) -> int | Fraction:  # type: ignore[override]
        return whole(self.closed_form.stride)

    @property
    def start(self) -> int | Fraction:  # type: ignore[override]
        return whole(self.closed_form.start)

    @property
    def end(self) -> int | Fraction:  # type: ignore[override]
        return whole(self.closed_form.end)

    @cached_property
    def receptive_field(self) -> int:  # type: ignore[override]
        return widest(self.span, self.period, self.stride) if self.phase_dependent else math.ceil(self.closed_form.field)

    @cached_property
    def phase_dependent(self) -> bool:
        return any(t.phase_dependent for t in self.timings)

    @cached_property
    def causal_counts(self) -> bool:
        return all(t.causal_counts for t in self.timings)

    def span(self, first: int, last: int) -> tuple[int, int]:
        seen: dict[int, tuple[int, int]] = {self.out: (first, last)}
        for i in reversed(self.order):
            timing, inputs = self.entries[i]
            wanted = seen[i] if timing is None else timing.span(*seen[i])
            for j in inputs:
                known = seen.get(j, wanted)
                seen[j] = min(known[0], wanted[0]), max(known[1], wanted[1])
        return seen[0]

    @property
    def period(self) -> int:
        return self.closed_form.period

    @property
    def pulse(self) -> int:
        return self.closed_form.pulse

    @property
    def transient(self) -> int:
        return self.closed_form.transient

    def __str__(self) -> str:
        return f"R={self.receptive_field} stride={self.stride} start={self.start} end={self.end}"


def _rate_then(timing: Timing, before: _Rate, to: _Rate | None = None) -> _Rate:
    rate, form = before
    own = rate and timing.eventually_constant(rate.lookahead)
    return rate and own and rate.then(own), form.then(timing.closed_form, (to or before)[1])


def _rate_meet(parts: list[_Rate]) -> _Rate:
    forms = [form for _, form in parts]
    same_length = len({form.balance for form in forms}) == 1
    return ConstantRate.meet([rate for rate, _ in parts], same_length), ClosedForm.meet(forms)


IDENTITY: Timing = Window()
