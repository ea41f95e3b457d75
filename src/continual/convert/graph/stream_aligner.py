"""Aligns the input streams of an operation to the same frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from ...core.timing import Wiring
from ...errors import ShapeMismatch
from .axes import BATCH, View, where
from .capture import source_line
from .emitter import Emitter
from .op_call import Misfit, OpCall, Refused, operation
from .op_names import OpNames
from .placeholders import SUMS
from .program_draft import ProgramDraft
from .provenance import Provenance, Reduced
from .queues import AlignDelays
from .refusals import RefusalCollector
from .shape_queries import ShapeQueries
from .time_layers import Subsample
from .values import STATIC, Stream, exchanged
from .without_rows import with_rows

POOLING = (
    'co.continual(…, time_pooling="window") for a sliding window of the example\'s length, or time_pooling="frame" for each frame alone; '
    "the converted network then computes another function than the module"
)
WINDOWS = (
    "the same over the last n frames, F.pad(x, (n - 1, 0)).unfold(time, n, 1) and then over its last dimension; this changes what the "
    "module computes on clips too"
)


class StreamAligner:
    """Inserts queues where streams of different delays meet.

    Args:
        draft: the program.
        shapes: answers questions on lengths.
        emit: adds instructions.
        names: gives operations their paths.
        origin: tells what streams are computed from.
        refusals: collects refusals.
    """

    def __init__(
        self,
        draft: ProgramDraft,
        shapes: ShapeQueries,
        emit: Emitter,
        names: OpNames,
        origin: Provenance,
        refusals: RefusalCollector,
    ):
        self._draft, self._shapes, self._emit, self._names, self._origin, self._refusals = (
            draft,
            shapes,
            emit,
            names,
            origin,
            refusals,
        )

    def align(self, call: OpCall) -> OpCall:
        """A call whose streams are aligned.

        Raises:
            Refused: they can't be.
        """
        moving = _moving(call.streams)
        if 0 < sum(s.fill is None for s in moving.values()) < len(moving):
            call = self._refilled(call, moving)
            moving = _moving(call.streams)
        clip_level = [s for s in moving.values() if s.windows]
        if clip_level and len(clip_level) < len(moving):
            frames = next(s for s in moving.values() if not s.windows)
            for s in clip_level:
                if self._shapes.length(s.wire).values != self._shapes.length(frames.wire).values:
                    self._refuse_clip_level(call, self._origin.reductions(s))
        if len({s.wire for s in moving.values()}) <= 1:
            return call
        aligned = dict(zip(moving, self.aligned(call, list(moving.values())), strict=True))
        return replace(call, args={n: exchanged(v, aligned) for n, v in call.args.items()})

    def aligned(self, call: OpCall, streams: Sequence[Stream]) -> list[Stream]:
        """Streams after they have waited for each other.

        Raises:
            Misfit: their rates or lengths differ.
        """
        if len({s.wire for s in streams if s.wire != STATIC}) <= 1:
            return list(streams)
        streams = self._at_one_rate(call, streams)
        moving = [s for s in streams if s.wire != STATIC]
        wires, timing = [s.wire for s in moving], self._draft.wires.timing
        if len(set(wires)) <= 1:
            return list(streams)
        try:
            wire = self._draft.wires.meet(wires)
        except ShapeMismatch:
            rates = ", ".join(dict.fromkeys(f"1 frame in {timing(w).stride}" for w in wires))
            raise Misfit(
                f"`{call.op}` joins streams of different rates ({rates} steps)",
                "a network for each rate, of a module that gives outputs of that rate alone"
                if call.op == "output"
                else "bring them to one rate by a stride or by upsampling",
            ) from None
        lengths = {self._shapes.length(w).now for w in wires}
        if len(lengths) > 1 and call.op == "output" and 0 < sum(s.windows for s in moving) < len(moving):
            self._draft.mixed = True
            raise Misfit(
                "frames leave together with a value of the whole clip that is not its last frame, or not of as many frames",
                "a module that gives the frames alone, and the value by one of its own",
            )
        if len(lengths) > 1:
            raise Misfit(f"`{call.op}` joins streams of different lengths, {sorted(lengths)}", "pad or cut one of them")
        rates_and_delays = {_delay_and_stride(timing(w)) for w in wires}
        if wire in wires and len(rates_and_delays) == 1 and None not in rates_and_delays:
            return [s if s.wire == STATIC else replace(s, wire=wire) for s in streams]
        return self._queued(call, streams, list({s.slot: s for s in moving}.values()), wire)

    def _at_one_rate(self, call: OpCall, streams: Sequence[Stream]) -> list[Stream]:
        """Values of windows at several rates, reduced to the lowest rate: those of the same windows."""
        strides = {s.slot: Fraction(self._draft.wires.timing(s.wire).stride) for s in streams if s.wire != STATIC}
        most = max(strides.values())
        if not all(s.windows for s in streams if s.wire != STATIC) or any(most % stride for stride in strides.values()):
            return list(streams)
        found: dict[int, Stream] = {}
        for s in streams:
            if strides.get(s.slot, most) != most and s.slot not in found:
                every = int(most / strides[s.slot])
                made = self._emit.layer(call, s, Subsample(every), s.dims, label=f"every {every}th window", fill=s.fill)
                found[s.slot] = replace(made, dtype=s.dtype)
                self._draft.divided = True
        return [found.get(s.slot, s) for s in streams]

    def _queued(self, call: OpCall, streams: Sequence[Stream], moving: Sequence[Stream], wire: int) -> list[Stream]:
        bare = {s.slot: s for s in moving if where(s.dims, BATCH) is None}
        rows = {slot: self._emit.in_rows(call, s, with_rows(s.dims, s.dims)[0]) for slot, s in bare.items()}
        moving = [rows.get(s.slot, s) for s in moving]
        outs = {s.slot: Stream(self._draft.new_slot(), s.dims, wire, s.dtype, s.windows) for s in moving}
        self._draft.instructions.append(
            AlignDelays(
                self._names.unique(f"{self._names.path(call)}.wait"),
                "wait",
                source_line(call.node),
                tuple(s.slot for s in moving),
                tuple(o.slot for o in outs.values()),
                tuple(s.wire for s in moving),
                wire,
                tuple(View(s.dims) for s in moving),
                tuple(self._draft.wires.timing(s.wire) for s in moving),
                self._draft.new_state_node(len(moving)),
                counts=self._draft.wires.clips,
            )
        )
        found = outs | {slot: self._emit.one_row(call, outs[row.slot], bare[slot].dims) for slot, row in rows.items()}
        return [found.get(s.slot, s) for s in streams]

    def _refuse_clip_level(self, call: OpCall, makers: list[Reduced]) -> None:
        """Refuse reductions over the whole clip whose results meet the clip's frames. Each is reported at its own operation."""
        again = f"meets the clip's frames again, in `{call.op}`: a stream has not seen all of them"
        makers = [r for r in makers if not (operation(r.node) in SUMS and self._refusals.is_guess(r.node))]
        self._draft.middle_found.update(r.node.name for r in makers if r.poolable)
        found = [Refused(f"{r.what} of the whole clip {again}", POOLING if r.poolable else WINDOWS, r.node) for r in makers]
        for refused in found[1:]:
            self._refusals.note(call.node, refused)
        raise found[0] if found else Misfit(f"a value of the whole clip {again}", WINDOWS)

    def _refilled(self, call: OpCall, moving: dict[int, Stream]) -> OpCall:
        """Streams of one value are created again for the streams that they are combined with, so that nothing waits for them."""
        beside, length = next(s for s in moving.values() if s.fill is None), self._shapes.length
        new: dict[int, Stream] = {}
        for s in moving.values():
            if s.fill is not None and s.wire != beside.wire and length(s.wire).values == length(beside.wire).values:
                new[s.slot] = self._emit.filled(call, s.dims, beside, s.fill, s.dtype)
        return replace(call, args={n: exchanged(v, new) for n, v in call.args.items()})


def _moving(streams: Sequence[Stream]) -> dict[int, Stream]:
    return {s.slot: s for s in streams if s.wire != STATIC}


def _delay_and_stride(timing: Wiring) -> tuple[int, int] | None:
    """Delay and stride of a wire that has a constant rate from the start. Wires with equal delay, stride and length never wait."""
    constant = timing.constant_rate()
    return None if constant is None or constant.lookahead is None else (constant.delay, constant.stride)
