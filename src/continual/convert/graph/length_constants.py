"""Tensors that depend on the clip's length alone: positions and tables. They are built for the streams that they are combined with."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch.fx import Node as Fx

from .axes import BATCH, TIME, Dim, Dims, shape_of
from .emitter import Emitter
from .exec_context import Arg, Ref, Shape
from .instructions import Op, resolve
from .op_call import CAUSAL, Apply, Misfit, OpCall, Refused
from .op_names import OpNames
from .over_frames import over_frames, parts_of
from .program_draft import ProgramDraft
from .queues import Positions
from .shape_queries import ShapeQueries
from .values import (
    ITEM,
    STATIC,
    Const,
    LengthDependent,
    Size,
    Stream,
    SymScalar,
    TensorValue,
    Value,
    as_int,
    as_sequence,
    computed,
    leaves,
)

T = TypeVar("T")
REPEATS = ("aten.expand.default", "aten.broadcast_to.default", "aten.repeat.default")
ADDITIONS = ("aten.add.Scalar", "aten.add.Tensor")
OFFSETS_ONLY = (*ADDITIONS, "aten.unsqueeze.default", "aten.expand.default", "aten.reshape.default", "aten.squeeze.dims")
ARANGE = ("aten.arange.default", "aten.arange.start", "aten.arange.start_step")
CREATION = ("aten.zeros.default", "aten.ones.default", "aten.full.default", "aten.empty.memory_format")


class LengthConstants:
    """Builds what depends on the clip's length alone.

    Args:
        draft: the program.
        shapes: answers questions on lengths.
        emit: adds instructions.
        names: gives operations their paths.
        apply: evaluates an operation.
    """

    def __init__(self, draft: ProgramDraft, shapes: ShapeQueries, emit: Emitter, names: OpNames, apply: Apply):
        self._draft, self._shapes, self._emit, self._names, self._apply = draft, shapes, emit, names, apply
        self._streams: dict[tuple[LengthDependent, int, bool], Value] = {}
        self._framed: set[LengthDependent] = set()  # values of which an operation takes several frames
        self._positions: dict[tuple[Fx, int], Stream] = {}
        self._constants: dict[tuple[LengthDependent, int], Value] = {}

    # ---- beside a stream --------------------------------------------------------------------------------------------

    def materialise(self, call: OpCall) -> OpCall:
        """A call whose length-dependent arguments have the frames of its streams."""
        if not any(isinstance(v, LengthDependent) for v in call.leaves):
            return call
        stream = next((s for s in call.streams if s.wire != STATIC), call.streams[0])
        return call.with_args(**{n: self._materialised(v, stream) for n, v in call.args.items()})

    def _materialised(self, value: Value, stream: Stream) -> Value:
        if isinstance(value, (list, tuple)):
            return [self._materialised(v, stream) for v in value]
        return self.beside(value, stream) if isinstance(value, LengthDependent) else value

    def beside(self, value: LengthDependent, stream: Stream) -> Value:
        """A length-dependent tensor with the frames of a stream."""
        if over_frames(value):
            self._framed.update(parts_of(value))
        key = value, stream.slot, value in self._framed
        if key not in self._streams:
            try:
                self._streams[key] = self._built(value, stream)
            except Refused as refused:
                refused.at = refused.at or value.node
                raise
        return self._streams[key]

    def _built(self, value: LengthDependent, stream: Stream) -> Value:
        call = OpCall(value.node, value.name, value.args, value.positional)
        source, framed = call.get("self"), value in self._framed
        if call.name in ARANGE:
            return self._arange(call, self._as_long(call, stream, framed))
        if call.name in CREATION:
            return self._created(call, self._as_long(call, stream, framed))
        if call.name in REPEATS and isinstance(source, Const):
            return self._expanded(call, source, self._as_long(call, stream, framed) if framed else stream, framed)
        if call.name in ("aten.slice.Tensor", "aten.narrow.default") and isinstance(source, Const):
            return self._rows(call, source, stream)
        call = call.with_args(**{n: self._materialised(v, stream) for n, v in call.args.items()})
        if call.name == ITEM:
            return call.sequence("values")[call.integer("index")]
        found = self._apply(call)
        if isinstance(found, LengthDependent):
            raise Misfit(f"`{call.op}` depends on the length of the clip", "make it a fixed number: a stream has no length")
        return found

    def _as_long(self, call: OpCall, stream: Stream, framed: bool) -> Stream:
        """A stream with as many frames as an operation makes: that which they meet, or the first, from which layers lead to it."""
        wanted = {v.values for v in call.leaves if isinstance(v, Size) and v.varies} - {self._shapes.batches}
        own = self._shapes.length(stream.wire).values
        if not wanted or (not framed and any(v[:3] == tuple(v[1] // max(1, own[1]) * n for n in own[:3]) for v in wanted)):
            return stream
        known = (v for v in self._draft.values.values() if isinstance(v, Stream) and v.wire != STATIC and not v.windows)
        return next((v for v in known if self._shapes.length(v.wire).values in wanted), stream)

    def _arange(self, call: OpCall, stream: Stream) -> Stream:
        start, step, length = call.get("start") or 0, call.get("step") or 1, self._shapes.length(stream.wire)
        end = self._shapes.sized(call["end"])
        count = computed(lambda e, s, d: -(-(e - s) // d), end, start, step)
        times = count.values[1] // max(1, length.values[1]) if isinstance(count, Size) else 0
        fits = (
            times > 0
            and length.varies
            and isinstance(count, Size)
            and count.values[:3] == tuple(times * n for n in length.values[:3])
        )
        if not fits or isinstance(step, Size):
            number = as_int(count.values[0] if isinstance(count, (Size, SymScalar)) else count)
            if number == 2 * length.now - 1:
                raise Misfit(
                    f"`arange` gives 2 · {length.now} - 1 positions, one for each distance between two of {length.now} frames: attention "
                    "with relative positions to all frames of the clip (bidirectional)",
                    CAUSAL,
                )
            raise Misfit(
                f"`arange` gives {number} positions beside {length.now} frames of a stream",
                "torch.arange(x.shape[time]) for the positions of x's frames",
            )
        first, every = self._shapes.number(start, "the first position"), self._shapes.number(step)
        made = self._within_groups(call.node, self.positions(call.node, stream), times)
        if every != 1:
            made = self._op(call.node, "aten.mul.Scalar", made, every)
        if first:
            made = self._op(call.node, "aten.add.Scalar", made, first)
        dtype = call.node.meta["val"].dtype
        return made if dtype == torch.long else self._op(call.node, "aten.to.dtype", made, dtype, dtype=dtype)

    def _within_groups(self, node: Fx, frames: Stream, size: int) -> Stream:
        """The positions of the parts of frames, ``size`` of each."""
        if size == 1:
            return frames
        call, emit = OpCall(node, "aten.arange.default", {}), self._emit
        within = emit.const("aten.arange.default", [size], {"device": node.meta["val"].device})
        first = self._op(node, "aten.mul.Scalar", frames, size)
        each = emit.op(call, "aten.unsqueeze.default", first, ((TIME,), ()), 1, dtype=torch.long)
        each = emit.op(call, "aten.add.Tensor", each, ((TIME,), (size,)), Ref(within.slot), dtype=torch.long)
        return emit.reshape(call, each, ((TIME, size),))

    def positions(self, node: Fx, stream: Stream, limit: int | None = None) -> Stream:
        """0, 1, 2, … for the frames of a stream."""
        key = node, stream.slot
        if limit is None and key in self._positions:
            return self._positions[key]
        path, _, source = self._names.label(OpCall(node, "aten.positions.default", {}))
        made = Stream(self._draft.new_slot(), ((TIME,),), stream.wire, torch.long)
        state = self._draft.new_state_node()
        self._draft.instructions.append(
            Positions(path, "positions", source, (stream.slot,), made.slot, stream.wire, state, limit)
        )
        return made

    def limit(self, stream: Stream, rows: int) -> None:
        """Record that positions index a table with this number of rows, where the stream ends. Other indices are ignored."""
        makers, offset = {slot: i for i in self._draft.instructions for slot in i.outs}, 0
        maker = makers.get(stream.slot)
        while isinstance(maker, Op) and maker.target in OFFSETS_ONLY and maker.inputs:
            if maker.target in ADDITIONS:
                if not isinstance(added := maker.args[1], int):
                    return
                offset += added
            maker = makers.get(maker.inputs[0])
        if isinstance(maker, Positions):
            maker.limit = min(rows - offset, rows - offset if maker.limit is None else maker.limit)
            self._draft.notes.append(f"{maker.path}: positions for {maker.limit} frames; the stream ends there")

    def _op(self, node: Fx, target: str, stream: Stream, argument: Arg, dtype: torch.dtype | None = None) -> Stream:
        """An operation on positions, which have no batch."""
        made = Stream(self._draft.new_slot(), stream.dims, stream.wire, dtype or stream.dtype)
        path, label, source = self._names.label(OpCall(node, target, {}))
        args = Ref(stream.slot), argument
        self._draft.instructions.append(
            Op(path, label, source, target, args, {}, (stream.slot,), made.slot, stream.wire, dims=made.dims)
        )
        return made

    def _created(self, call: OpCall, stream: Stream) -> Stream:
        """zeros, ones, full … with a dimension of time."""
        dims = self._shapes.layout(call.sequence("size"), stream.wire)
        arguments = {n: Shape(dims) if n == "size" else self._emit.template(v) for n, v in call.args.items()}
        value = {"zeros": 0.0, "ones": 1.0}.get(call.op, call.get("fill_value"))
        fill = value if isinstance(value, (int, float)) else None
        args = tuple(arguments[n] for n in call.positional)
        kwargs = {n: v for n, v in arguments.items() if n not in call.positional}
        return self._alike(call, dims, args, kwargs, stream, call.node.meta["val"].dtype, fill)

    def _alike(
        self, call: OpCall, dims: Dims, args: Sequence[Arg], kwargs: dict[str, Arg], stream: Stream, dtype: torch.dtype, fill: float | None
    ) -> Stream:  # fmt: skip
        """An operation on constants alone, which gives as many frames as a stream has, where its layout has time."""
        wire = stream.wire if any(TIME in d for d in dims) else STATIC
        made = Stream(self._draft.new_slot(), dims, wire, dtype, fill=fill)
        path, label, source = self._names.label(call)
        slots = () if wire == STATIC else (stream.slot,)
        self._draft.instructions.append(
            Op(path, label, source, call.name, tuple(args), kwargs, slots, made.slot, max(wire, 0), dims=dims)
        )
        return made

    def _expanded(self, call: OpCall, source: Const, stream: Stream, framed: bool) -> Stream:
        """A constant repeated for every row of the batch. Over time one frame stays, which broadcasts, unless frames are rows or
        an operation takes several of them."""
        sizes = [self._shapes.sized(v) for v in as_sequence(call.get("size") or call["repeats"])]
        dims = self._expanded_dims(source, sizes, stream, call.name == "aten.repeat.default", framed)
        expand = OpCall(call.node, "aten.expand.default", {})
        args = Ref(source.slot), Shape(dims)
        return self._alike(expand, dims, args, {}, stream, source.dtype, source.fill)

    def _expanded_dims(self, source: Const, sizes: Sequence[Size], stream: Stream, repeats: bool, framed: bool) -> Dims:
        new, dims = len(sizes) - len(source.dims), list[Dim]()
        for i, size in enumerate(sizes):
            own = source.dims[i - new] if i >= new else ()
            if size.varies and not own and self._shapes.layout([size], stream.wire) == ((BATCH, TIME),):
                dims.append((BATCH, TIME))
            elif size.varies and (own or size.values != self._shapes.batches):
                if own or repeats:
                    rows = any(BATCH in d for d in self._shapes.layout([size], stream.wire))
                    raise Misfit(
                        f"a constant is repeated {size.now} times, as often as there are {'rows' if rows else 'frames'} in the clip",
                        "expand it over a dimension of size 1, or leave it to broadcasting; keep the batch a dimension of its own",
                    )
                dims.append(self._shapes.layout([size], stream.wire)[0] if framed else ())
            elif size.varies:
                dims.append((BATCH,))
            elif repeats and size.now != 1 and own:
                raise Misfit("a constant with rows of its own is repeated for the batch", "repeat it first, and expand it then")
            else:
                dims.append(own if own or size.now in (-1, 1) else (size.now,))
        return tuple(dims)

    def _rows(self, call: OpCall, table: Const, stream: Stream) -> Stream:
        """Rows of a table for the frames of a stream: ``table[:, :x.shape[time]]``."""
        dim, length, sized = call.dim(len(table.dims)), self._shapes.length(stream.wire), self._shapes.sized
        start = sized(call.get("start") or 0)
        stop = sized(call["end"]) if "end" in call.args else start.combine(operator.add, sized(call["length"]))
        size = stop.combine(operator.sub, start)
        if self._shapes.number(call.get("step", 1)) != 1 or size.values[:3] != length.values[:3]:
            raise Misfit("a slice of a table whose length is not that of the stream that it meets", "table[:, :x.shape[time]]")
        first, total = self._shapes.integer(start, "the first row"), table.value.shape[dim]
        index = self.positions(call.node, stream, limit=total - first)
        if first:
            index = self._op(call.node, "aten.add.Scalar", index, first)
        made = Stream(self._draft.new_slot(), (*table.dims[:dim], (TIME,), *table.dims[dim + 1 :]), stream.wire, table.dtype)
        path, label, source = self._names.label(OpCall(call.node, "aten.index_select.default", {}))
        self._draft.notes.append(f"{path}: positions for {total - first} frames; the stream ends there")
        args = Ref(table.slot), dim, Ref(index.slot)
        self._draft.instructions.append(
            Op(path, label, source, "aten.index_select.default", args, {}, (index.slot,), made.slot, stream.wire)
        )
        return made

    # ---- constants that the export has made for one length ----------------------------------------------------------

    def restored(self, call: OpCall, stream: Stream) -> OpCall:
        """A call in which constants that the export has made for one length have the frames of a stream.

        Where an operation of the module fixes the length in the export, ``torch.arange(x.shape[time])`` is a constant with that
        many values.
        """
        if not self._shapes.clip_is_fixed or stream.wire == STATIC:
            return call
        length = self._shapes.length(stream.wire)
        return call.with_args(**{n: self._materialised(self._restored(v, length), stream) for n, v in call.args.items()})

    def _restored(self, value: Value, length: Size) -> Value:
        if isinstance(value, (list, tuple)):
            return [self._restored(v, length) for v in value]
        made = self._draft.origins.get(value.slot) if isinstance(value, Const) else None
        if made is None:
            return value
        new = {n: self._restored(v, length) for n, v in made.args.items()}
        if made.name in CREATION:
            new["size"] = [length if s == length.now > 1 else s for s in as_sequence(made.args["size"])]
        for name in ("end", "length"):
            whole = not made.args.get("start") and made.args.get("step", 1) == 1
            if whole and new.get(name) == length.now and (made.name in ARANGE or isinstance(made.args.get("self"), Const)):
                new[name] = length
        changed = any(a is not b for a, b in zip(leaves([*new.values()]), leaves([*made.args.values()]), strict=True))
        return replace(made, args=new) if changed else value

    # ---- for one length ---------------------------------------------------------------------------------------------

    def concrete(self, value: Value, sample: int = 0, shape: bool = False) -> Any:
        """A value that depends on no stream, for a sample length.

        Args:
            value: such a value.
            sample: the index of the sample length.
            shape: only the shape is needed: a tensor on the device "meta", which costs nothing at any length.
        """
        if isinstance(value, (list, tuple)):
            return [self.concrete(v, sample, shape) for v in value]
        if isinstance(value, Const):
            return value.value.to("meta") if shape else value.value
        if isinstance(value, (Size, SymScalar)):
            return value.values[sample]
        if isinstance(value, Stream) and shape:
            frames = self._shapes.length(value.wire).values[sample]
            return torch.empty(shape_of(value.dims, self._shapes.batches[sample], frames), dtype=value.dtype, device="meta")
        _refuse_input(value)
        if not isinstance(value, LengthDependent):
            return value
        target: Any = resolve(value.name)
        arguments = {n: self.concrete(v, sample, shape) for n, v in value.args.items()}
        if shape and value.name != ITEM and any(a.name == "device" for a in target._schema.arguments):
            arguments["device"] = torch.device("meta")
        kwargs = _keywords(value, arguments, "device")
        with torch.no_grad():
            return target(*(arguments[n] for n in value.positional), **kwargs)

    def constant(self, value: TensorValue | LengthDependent, sample: int = 0) -> Const:
        """A tensor as a constant for a sample length. It is computed again when parameters change."""
        found = self._as_constant(value, sample)
        if not isinstance(found, Const):
            raise TypeError(f"expected a constant, got {type(found).__name__}")
        return found

    def _as_constant(self, value: Value, sample: int) -> Value:
        if isinstance(value, (list, tuple)):
            return [self._as_constant(v, sample) for v in value]
        if isinstance(value, (Size, SymScalar)):
            return value.values[sample]
        _refuse_input(value)
        if not isinstance(value, LengthDependent):
            return value
        key = value, sample
        if key not in self._constants:
            arguments = {n: self._as_constant(v, sample) for n, v in value.args.items()}
            kwargs = _keywords(value, arguments)
            self._constants[key] = self._emit.const(value.name, [arguments[n] for n in value.positional], kwargs)
        return self._constants[key]

    def size(self, value: TensorValue | LengthDependent, dim: int) -> Size:
        """The size of a dimension, for all sample lengths."""
        if not isinstance(value, LengthDependent):
            return self._shapes.size(value, dim)
        return Size(tuple(int(self.concrete(value, i, shape=True).shape[dim]) for i in range(len(self._shapes.lengths))))


def _keywords(value: LengthDependent, arguments: dict[str, T], *more: str) -> dict[str, T]:
    """The arguments that the call passes by name."""
    return {n: v for n, v in arguments.items() if n not in value.positional and (n in value.keywords or n in more)}


def _refuse_input(value: Value) -> None:
    if isinstance(value, Stream) and value.wire != STATIC:
        raise Refused("what is computed for pairs of frames depends on the stream", CAUSAL)
    if isinstance(value, Stream):
        raise Refused(
            "a mask (or another value for pairs of frames) depends on an input that is not a stream",
            "a mask that is the same for all clips",
        )
