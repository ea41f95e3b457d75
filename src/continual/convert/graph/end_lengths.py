"""Streams whose number of frames at the end is a formula of the clip's length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from ...core.count_table import CountTable
from ...core.fitted import Fitted
from ...core.length_function import LengthFunction
from ...core.timing import Wiring
from ...core.timing_graph import Wires
from .fitted_ends import FitEnd
from .formulas import Formula, Lengths
from .left_out import where_done
from .op_call import Misfit, OpCall
from .rule_context import RuleContext
from .values import Size, Stream

FIXED = "make it a fixed number of frames, or let the number of frames grow with that of the clip"


@dataclass(frozen=True)
class Found:
    """The number of frames as a function of the length of wire ``to``."""

    to: int
    function: LengthFunction


def fitted(
    ctx: RuleContext, call: OpCall, x: Stream, length: Size, what: str, mode: str = "constant", value: float = 0.0, least: int = 1
) -> Stream | None:
    """A stream that is cut or padded to ``length`` frames when it ends. ``None`` where this would hold back ever more frames.

    Args:
        ctx: what rules work with.
        call: the operation.
        x: the stream.
        length: how many frames the result has.
        what: the operation in words, for errors.
        mode, value: of the padding.
        least: a clip with fewer frames of the stream is refused.

    Raises:
        Misfit: the length follows no rule of a few steps.
    """
    if length.formula is None:
        return None
    timing = ctx.draft.wires.timing(x.wire)
    found = _found(ctx, timing, length, length.formula, x.wire)
    own, function = found is not None and found.to == x.wire, None
    if found is not None:
        function = where_done(found.function, timing, own, call, ctx.draft)
    if found is None or function is None or not function.monotone or not function.steps:
        raise Misfit(
            f"{what} by a number that follows no simple rule: {length.values[0]}, {length.values[3]}, {length.values[4]} frames are left "
            f"of clips of {ctx.shapes.lengths[0]}, {ctx.shapes.lengths[3]}, {ctx.shapes.lengths[4]} steps",
            "a number of frames that grows with the clip, such as the next multiple of a stride",
        )
    if Fraction(*function.growth) * (1 if own else Fraction(timing.stride)) != 1:
        return None
    counts = list(_counted(ctx.draft.wires, timing, function, own, least))
    short = [n for n, _, e in counts if e < least or not function(n) or (mode == "reflect" and function(n) - e >= e)]
    if short != [n for n, _, _ in counts][: len(short)]:
        raise Misfit(f"{what} by more frames than some of the longer clips have", FIXED)
    most = max(0, 0, *(function(n) - e for n, _, e in counts[len(short) :]))
    waiting = max(0, *(come - function(n) for n, come, _ in counts))
    cuts = waiting > 0 or not (own or timing.causal_counts)
    module = FitEnd(Fitted(function, cuts, len(short) + 1), not own, most, waiting, mode, value)
    return ctx.emit.fitted_end(call, x, module, found.to)


def _found(ctx: RuleContext, timing: Wiring, length: Size, formula: Formula, wire: int) -> Found | None:
    """The length as a function of the wire's own length, or else of the clip's. It gives the length of each sample, too."""
    rows = ctx.shapes.batches[0]
    of_own, of_clips = (
        {n: value for n, value in zip(lengths, length.values, strict=True) if n}
        for lengths in (ctx.shapes.length(wire).values, ctx.shapes.lengths)
    )
    if formula.wires <= {wire}:
        function = LengthFunction.of(
            lambda n: _value(formula, Lengths(rows, lambda w: n)), formula.period // timing.period, of_own
        )
        return None if function is None else Found(wire, function)
    clips = _Clips(ctx.draft.wires.clips, timing, formula, rows)
    own = LengthFunction.of(clips.of_own, clips.own_period, of_own)
    if own is not None and clips.agree:
        return Found(wire, own)
    whole = LengthFunction.of(lambda n: clips(n)[1], formula.period, of_clips)
    return None if whole is None else Found(0, whole)


def _value(formula: Formula, clip: Lengths) -> int | None:
    """The value of a formula; ``None`` for a clip so short that the module divides by zero."""
    try:
        return max(0, int(formula(clip)))
    except ZeroDivisionError:
        return None


class _Clips:
    """The length of a wire, and what a formula gives, for clips of every length.

    Attributes:
        agree: whether clips for which the wire has one length have had one value each so far.
    """

    def __init__(self, table: CountTable, timing: Wiring, formula: Formula, rows: int):
        self._table = table
        self._wire, self._formula, self._rows = timing.out, formula, rows
        period = Fraction(formula.period) / Fraction(timing.stride)
        self.own_period, self.agree = period.numerator, True
        self._seen: list[tuple[int, int | None]] = [(0, 0)]
        self._by_own: dict[int, int | None] = {}

    def __call__(self, steps: int) -> tuple[int, int | None]:
        """The wire's length and the value; both 0 where the clip is too short for the wire."""
        while len(self._seen) <= steps:
            n = len(self._seen)
            own = self._table.ended(self._wire, n)
            value = _value(self._formula, Lengths(self._rows, partial(self._table.ended, steps=n))) if own else 0
            self._seen.append((own, value))
            self.agree = self.agree and self._by_own.setdefault(own, value) == value
        return self._seen[steps]

    def of_own(self, length: int) -> int | None:
        """The value for a length of the wire. Lengths that no clip gives are shorter than all others, and have the value 0."""
        while self.agree and self._seen[-1][0] < length:
            self(len(self._seen))
        if self.agree and length not in self._by_own:
            self.agree = not any(0 < n < length for n in self._by_own)
        return self._by_own.get(length, 0)


def _counted(wires: Wires, timing: Wiring, length: LengthFunction, own: bool, least: int) -> Iterator[tuple[int, int, int]]:
    """The length that decides, the frames that have come on a wire at most, and its length, for all clips that differ."""
    if own:
        longest = max(length.transient, least, length.more[1]) + length.period  # mirrored frames are more than a short clip has
        yield from ((n, n, n) for n in range(1, longest + 1))
        return
    wire, table = timing.out, wires.clips if timing.causal_counts else wires.streams
    settled = max(wires.clips.settled(wire), length.transient, least * int(timing.stride))
    for n in range(1, settled + 2 * max(timing.period, length.period) + 1):
        yield n, max(wires.clips.come(wire, n), table.come(wire, n)), wires.clips.ended(wire, n)
