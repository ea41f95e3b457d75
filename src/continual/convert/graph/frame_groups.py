"""Grouping and splitting of frames: one tensor as streams of several rates.

A dimension of ``T`` frames has the same elements, in the same order, as one of ``T / s`` groups of ``s`` frames. A reshape that
splits time makes groups: its stream has one frame for every ``s`` before. For an operation that can't work on groups in the
dimension of time, the groups are split into frames again.
"""

from __future__ import annotations

from dataclasses import replace

from ...layers.signals.overlap import OverlapAdd
from .axes import BATCH, TIME, Dim, Dims, View, dim_of, grouped, size_of, where, with_dim
from .emitter import Emitter
from .op_call import OpCall
from .time_layers import UnfoldTime
from .values import STATIC, Stream, exchanged


class FrameGroups:
    """Groups and splits frames.

    Args:
        emit: adds instructions.
    """

    def __init__(self, emit: Emitter):
        self._emit = emit
        self._apart: dict[int, Stream] = {}  # by the slots of the streams that were taken apart

    def together(self, call: OpCall, x: Stream, size: int) -> Stream:
        """A stream of ``size`` frames at a time, which lie behind time in its dimension."""
        emit = self._emit
        y = emit.unsqueeze_dummy(call, emit.reshape(call, x, View(x.dims).pieces))
        rank, time = len(y.dims), y.dims.index((TIME,))
        made = emit.layer(call, y, UnfoldTime(size, size), (*y.dims, (size,)), label=f"{size} frames together")
        made = emit.permute(call, replace(made, dtype=x.dtype), [*range(time + 1), rank, *range(time + 1, rank)])
        return replace(emit.reshape(call, made, grouped(x.dims, size)), fill=x.fill)

    def apart(self, call: OpCall, x: Stream) -> Stream | None:
        """A stream whose groups are split: factors after time in its dimension become frames. ``None`` if there are none."""
        parts = _behind_time(x.dims)
        if x.windows or x.wire == STATIC or not parts:
            return None
        if x.slot not in self._apart:
            self._apart[x.slot] = self._taken_apart(call, x, size_of(parts, 1, 1))
        return self._apart[x.slot]

    def _taken_apart(self, call: OpCall, x: Stream, size: int) -> Stream:
        emit = self._emit
        at = next(i for i, dim in enumerate(x.dims) if TIME in dim)
        major = x.dims[at][: x.dims[at].index(TIME)]
        pieces = (*x.dims[:at], *((major,) if major else ()), (TIME,), dim_of(size), *x.dims[at + 1 :])
        y, time = emit.reshape(call, x, pieces), pieces.index((TIME,))
        y = emit.permute(call, y, [i for i in range(len(pieces)) if i != time + 1] + [time + 1])
        made = self.added(call, y, size, size, f"{size} frames from each")
        return replace(emit.reshape(call, made, with_dim(x.dims, at, (*major, TIME))), fill=x.fill)

    def added(self, call: OpCall, x: Stream, size: int, hop: int, label: str) -> Stream:
        """Patches of ``size`` frames in the last dimension, ``hop`` frames apart, added where they overlap."""
        emit, y, new = self._emit, x, list[int]()
        if len(x.dims) < 4:  # channels before time, and rows in front
            new = [1] if where(x.dims, BATCH) is not None else [*range(x.dims.index((TIME,)), 2)]
        for dim in new:
            y = emit.unsqueeze(call, y, dim)
        made = emit.layer(call, y, OverlapAdd(size, hop), y.dims[:-1], label=label)
        return emit.squeeze(call, replace(made, dtype=x.dtype), new)

    def finer(self, call: OpCall) -> OpCall | None:
        """The call on streams whose groups are split; ``None`` if no stream has groups."""
        found = {s.slot: self.apart(call, s) for s in call.streams}
        new = {slot: s for slot, s in found.items() if s is not None}
        return call.with_args(**{n: exchanged(v, new) for n, v in call.args.items()}) if new else None


def _behind_time(dims: Dims) -> Dim:
    """The factors after time in its dimension, if they are plain numbers."""
    dim = next((d for d in dims if TIME in d), ())
    behind = dim[dim.index(TIME) + 1 :] if dim else ()
    return behind if all(isinstance(f, int) for f in behind) else ()
