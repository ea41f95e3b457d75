"""The timing of a whole graph: counts for every wire, from one pass in the order of the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from ..errors import ShapeMismatch
from .constant_rate import ConstantRate, whole
from .fitted import Fitted
from .timing import IDENTITY, Counts, Sequence, Timing, widest

# What happens to which wires. Without a timing they wait for each other. With one, a second wire decides how many frames there are.
Entry = tuple[Timing | None, tuple[int, ...]]


@dataclass(frozen=True)
class Closed:
    """The closed form of one wire.

    Attributes:
        fitted: the last wire before it whose number of frames a function says; 0 if there is none.
    """

    stride: Fraction = Fraction(1)
    field: Fraction = Fraction(1)
    start: Fraction = Fraction(0)
    end: Fraction = Fraction(0)
    fitted: int = 0

    @property
    def padded(self) -> Fraction:
        """What padding adds to the number of outputs, less what windows take."""
        return self.start + self.end - self.field

    @property
    def balance(self) -> tuple[int, Fraction]:
        """What decides the number of outputs: wires whose balances agree have equal lengths for every clip."""
        return self.fitted, self.padded


@dataclass(frozen=True)
class Wiring(Timing):
    """The timing of a wire in a graph of timings, where a wire may be used any number of times.

    Containers nest timings; in a graph each residual connection would then double the work. Here every wire is looked at once.

    Args:
        entries: entry 0 is the network's input, ``(None, ())``; entry ``i`` makes wire ``i`` of earlier wires.
        out: the wire that this is the timing of.

    Example:
        >>> from continual.core.timing import Window
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
    def _order(self) -> tuple[int, ...]:
        """The wires on which this one depends, and itself, in order."""
        needed = {self.out}
        for i in range(self.out, 0, -1):
            if i in needed:
                needed.update(self.entries[i][1])
        return tuple(sorted(needed))

    def counts(self, n: int, n_if_ended: int) -> Counts:
        return self.all_counts(n, n_if_ended)[self.out]

    def all_counts(self, n: int, n_if_ended: int) -> dict[int, Counts]:
        """The counts of all wires on which this one depends."""
        found: dict[int, Counts] = {0: (n, n_if_ended)}
        for i in self._order:
            timing, inputs = self.entries[i]
            if timing is not None:
                found[i] = timing.of_wires(*(found[j] for j in inputs))
            elif inputs:
                found[i] = min(found[j][0] for j in inputs), min(found[j][1] for j in inputs)
        return found

    def constant_rate(self, lookahead: int | None = 0) -> ConstantRate | None:
        found = self._eventual(lookahead)
        if found is None:
            return None
        plains, firsts = found
        delay = plains[self.out].delay
        for wire, first in firsts.items():  # a burst is swallowed if it has come when the first output is due
            if (delay - plains[wire].delay) // plains[wire].stride + 1 < first:
                return None
        return plains[self.out]._replace(after=0 if not firsts else plains[self.out].after)

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        found = self._eventual(lookahead)
        return None if found is None else found[0][self.out]

    def _eventual(self, lookahead: int | None) -> tuple[dict[int, ConstantRate], dict[int, int]] | None:
        """What each wire becomes, and how many frames have to come on some wires before what they feed gives any."""
        plains, firsts = {0: ConstantRate(0, 1, lookahead)}, dict[int, int]()
        for i in self._order:
            timing, inputs = self.entries[i]
            if timing is not None:
                given = plains[inputs[0]]
                own = timing.eventually_constant(given.lookahead)
                if own is None:
                    return None
                after = given.after
                if own.after:
                    after = max(after, given.delay + given.stride * (own.after - 1) + 1)
                plains[i] = ConstantRate(
                    given.delay + given.stride * own.delay, given.stride * own.stride, own.lookahead, after=after
                )
                firsts[inputs[0]] = max(own.first, firsts.get(inputs[0], 1))
            elif inputs:
                given_all = [plains[j] for j in inputs]
                leads = [p.lookahead for p in given_all if p.lookahead is not None]
                known = len(leads) == len(given_all) and len({self._closed[j].balance for j in inputs}) == 1
                plains[i] = ConstantRate(
                    max(p.delay for p in given_all),
                    given_all[0].stride,
                    max(leads) if known else None,
                    after=max(p.after for p in given_all),
                )
        return plains, firsts

    @cached_property
    def _closed(self) -> dict[int, Closed]:
        found = {0: Closed()}
        for i in self._order:
            timing, inputs = self.entries[i]
            if timing is not None:
                found[i] = _then(found[inputs[0]], timing, i)
            elif inputs:
                found[i] = _meet([found[j] for j in inputs], i)
        return found

    @cached_property
    def stride(self) -> int | Fraction:  # type: ignore[override]
        return whole(self._closed[self.out].stride)

    @cached_property
    def start(self) -> int | Fraction:  # type: ignore[override]
        return whole(self._closed[self.out].start)

    @cached_property
    def end(self) -> int | Fraction:  # type: ignore[override]
        return whole(self._closed[self.out].end)

    @cached_property
    def receptive_field(self) -> int:  # type: ignore[override]
        return widest(self) if self.phase_dependent else math.ceil(self._closed[self.out].field)

    @cached_property
    def phase_dependent(self) -> bool:
        return any(timing.phase_dependent for i in self._order if (timing := self.entries[i][0]) is not None)

    @cached_property
    def causal_counts(self) -> bool:
        return all(timing.causal_counts for i in self._order if (timing := self.entries[i][0]) is not None)

    def span(self, first: int, last: int) -> tuple[int, int]:
        seen: dict[int, tuple[int, int]] = {self.out: (first, last)}
        for i in reversed(self._order):
            timing, inputs = self.entries[i]
            wanted = seen[i] if timing is None else timing.span(*seen[i])
            for j in inputs:
                known = seen.get(j, wanted)
                seen[j] = min(known[0], wanted[0]), max(known[1], wanted[1])
        return seen[0]

    @cached_property
    def period(self) -> int:
        period = 1
        for i in self._order:
            timing, inputs = self.entries[i]
            if timing is not None:
                period = math.lcm(period, (self._closed[inputs[-1]].stride * timing.period).numerator)
        return period

    @cached_property
    def pulse(self) -> int:
        pulse = 1
        for i in self._order:
            timing, inputs = self.entries[i]
            if timing is not None:
                pulse = math.lcm(pulse, (self._closed[inputs[-1]].stride * timing.pulse).numerator)
        return pulse

    @cached_property
    def transient(self) -> int:
        found = {0: 1}
        for i in self._order:
            timing, inputs = self.entries[i]
            if timing is not None:
                stride = self._closed[inputs[-1]].stride
                found[i] = max(found[j] for j in inputs) + math.ceil(stride * timing.transient) + math.ceil(stride)
            elif inputs:
                found[i] = max(found[j] for j in inputs)
        return found[self.out]

    def __str__(self) -> str:
        return f"R={self.receptive_field} stride={self.stride} start={self.start} end={self.end}"


def _then(before: Closed, timing: Timing, wire: int) -> Closed:
    if isinstance(timing, Fitted):
        return replace(before, fitted=wire)
    s = before.stride
    return Closed(
        s * Fraction(timing.stride),
        Fraction(math.ceil(before.field + s * (timing.receptive_field - 1))),
        before.start + s * Fraction(timing.start),
        before.end + s * Fraction(timing.end),
        before.fitted,
    )


def _meet(parts: list[Closed], wire: int) -> Closed:
    start = max(p.start for p in parts)
    field = Fraction(math.ceil(start + max(p.field - p.start for p in parts)))
    fitted = parts[0].fitted if len({p.fitted for p in parts}) == 1 else wire
    return Closed(parts[0].stride, field, start, min(p.padded for p in parts) + field - start, fitted)


class Wires:
    """The timings of a graph while it is built. Equal timings are one wire here, so that what agrees needs no queue."""

    def __init__(self) -> None:
        self.entries: list[Entry] = [(None, ())]
        self._known: dict[Entry, int] = {}

    def timing(self, wire: int) -> Wiring:
        """The timing of a wire, from the network's input on."""
        return Wiring(tuple(self.entries[: wire + 1]), wire)

    def then(self, wire: int, timing: Timing) -> int:
        """The wire behind a module; what is several timings in a row is as many wires."""
        for part in timing.parts if isinstance(timing, Sequence) else (timing,):
            wire = wire if part == IDENTITY else self._add((part, (wire,)))
        return wire

    def fit(self, wire: int, to: int, timing: Fitted) -> int:
        """The wire with as many frames as a function of the length of wire ``to`` says."""
        return self._add((timing, (wire,) if to == wire else (wire, to)))

    def meet(self, wires: list[int]) -> int:
        """The wire on which several have waited for each other.

        Raises:
            ShapeMismatch: their strides differ.
        """
        different = sorted(set(wires))
        if len(different) == 1:
            return different[0]
        timings = {w: self.timing(w) for w in different}
        if len({t.stride for t in timings.values()}) > 1:
            raise ShapeMismatch(f"strides {sorted({t.stride for t in timings.values()})}")
        for wire in different:  # one that is never ahead of the others and sees all that they see
            if all(_covers(timings[wire], other) for w, other in timings.items() if w != wire):
                return wire
        return self._add((None, tuple(different)))

    def _add(self, entry: Entry) -> int:
        if entry not in self._known:
            self._known[entry] = len(self.entries)
            self.entries.append(entry)
        return self._known[entry]


def _covers(slow: Wiring, fast: Wiring) -> bool:
    """Whether waiting for ``fast`` changes nothing about ``slow``."""
    p, q = slow.eventually_constant(), fast.eventually_constant()
    if p is None or q is None or p.lookahead is None or q.lookahead is None or q.delay > p.delay:
        return False
    if p.after or q.after:  # a burst of padding may come before the other wire has anything
        return False
    a, b = slow._closed[slow.out], fast._closed[fast.out]
    same_length = a.balance == b.balance and not slow.phase_dependent and not fast.phase_dependent
    return same_length and a.start >= b.start and a.field - a.start >= b.field - b.start
