"""What depends on the clip's length alone: positions and tables. It is made beside the frames of the streams that it meets."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node as Fx

from .axes import BATCH, TIME
from .emitter import Emission
from .instructions import Op, Ref, Shape, resolve
from .op_call import CAUSAL, Call, Misfit, Refused, leaves
from .queues import Positions
from .values import ITEM, STILL, Clocked, Const, Size, Stream, Value, Varying

if TYPE_CHECKING:
    from .functionalise import Mutations

HANDED = ("aten.add.Scalar", "aten.unsqueeze.default", "aten.expand.default", "aten.reshape.default", "aten.squeeze.dims")
ARANGE = ("aten.arange.default", "aten.arange.start", "aten.arange.start_step")
CREATION = ("aten.zeros.default", "aten.ones.default", "aten.full.default", "aten.empty.memory_format")


class Clockwork(Emission):
    """Makes what depends on the clip's length alone."""

    mutations: Mutations

    def apply_named(self, node: Fx, name: str, args: dict[str, Value], positional: tuple[str, ...]) -> Value:
        """An operation on values."""
        raise Refused(f"`{name}` is no operation", "")

    def _materialised(self, value: Value, stream: Stream) -> Value:
        """Positions and what is computed of them, for the frames of the streams that they meet."""
        if isinstance(value, (list, tuple)):
            return [self._materialised(v, stream) for v in value]
        return self.clocked_stream(value, stream) if isinstance(value, Clocked) else value

    def clocked_stream(self, value: Clocked, stream: Stream) -> Value:
        """What depends on the clip's length alone, beside the frames of a stream."""
        key = value, stream.slot, True
        if key not in self._made:
            try:
                self._made[key] = self._make_clocked(value, stream)
            except Refused as refused:
                refused.at = refused.at or value.node
                raise
        return self._made[key]

    def _make_clocked(self, value: Clocked, stream: Stream) -> Value:
        node, name, args, positional = value.node, value.name, value.args, value.positional
        length = self.length(stream.wire)
        if name in ARANGE:
            return self._arange(node, args, stream, length)
        if name in CREATION:
            return self._created(node, name, args, positional, stream)
        source = args.get("self")
        if name in ("aten.expand.default", "aten.repeat.default") and isinstance(source, Const):
            return self._for_rows(node, name, source, args, stream)
        if name in ("aten.slice.Tensor", "aten.narrow.default") and isinstance(source, Const):
            return self._rows(node, source, args, stream, length)
        given = {n: self._materialised(v, stream) for n, v in args.items()}
        if name == ITEM:
            return given["values"][given["index"]]
        found = self.apply_named(node, name, given, positional)
        if isinstance(found, Clocked):
            raise Misfit("what depends on the length of the clip is used here", "make it a fixed number: a stream has no length")
        return found

    def revived(self, call: Call, stream: Stream) -> Call:
        """A call in which constants that the export has made for one length are there for the frames of a stream.

        Where what a module does fixes the length in the export, ``torch.arange(x.shape[time])`` is a constant of so many values.
        """
        if not self.clip_is_fixed or stream.wire == STILL:
            return call
        length = self.length(stream.wire)
        return replace(call, args={n: self._materialised(self._revived(v, length), stream) for n, v in call.args.items()})

    def _revived(self, value: Value, length: Size) -> Value:
        if isinstance(value, (list, tuple)):
            return [self._revived(v, length) for v in value]
        made = self.origins.get(value.slot) if isinstance(value, Const) else None
        if made is None:
            return value
        new = {n: self._revived(v, length) for n, v in made.args.items()}
        if made.name in CREATION:
            new["size"] = [length if s == length.now > 1 else s for s in made.args["size"]]
        for name in ("end", "length"):
            whole = not made.args.get("start") and made.args.get("step", 1) == 1
            if whole and new.get(name) == length.now and (made.name in ARANGE or isinstance(made.args.get("self"), Const)):
                new[name] = length
        changed = any(a is not b for a, b in zip(leaves([*new.values()]), leaves([*made.args.values()]), strict=True))
        return replace(made, args=new) if changed else value

    def _call(self, node: Fx, name: str, args: dict[str, Value]) -> Call:
        return Call(node, name, args, ())

    def positions(self, node: Fx, stream: Stream, limit: int | None = None) -> Stream:
        """0, 1, 2, … for the frames of a stream."""
        key = node, stream.slot, False
        if limit is None and key in self._made:
            return self._made[key]
        path, _, source = self.place(self._call(node, "aten.positions.default", {}))
        made = Stream(self.slot(), ((TIME,),), stream.wire, torch.long)
        self.instructions.append(Positions(path, "positions", source, (stream.slot,), made.slot, stream.wire, self.kid(), limit))
        return made

    def limit(self, stream: Stream, rows: int) -> None:
        """Note that a table has so many rows for positions: there the stream ends. Other indices are left alone."""
        makers, offset = {slot: i for i in self.instructions for slot in i.outs}, 0
        maker = makers.get(stream.slot)
        while isinstance(maker, Op) and maker.target in HANDED and maker.inputs:
            offset += maker.args[1] if maker.target == "aten.add.Scalar" else 0
            maker = makers.get(maker.inputs[0])
        if isinstance(maker, Positions):
            maker.limit = min(rows - offset, rows - offset if maker.limit is None else maker.limit)
            self.notes.append(f"{maker.path}: positions for {maker.limit} frames; the stream ends there")

    def _arange(self, node: Fx, args: dict[str, Value], stream: Stream, length: Size) -> Stream:
        start, step = args.get("start") or 0, args.get("step") or 1
        end = Size.of(args["end"], len(self.lengths))
        count = end.combine(lambda e, s, d: -(-(e - s) // d), start, step)
        if not isinstance(count, Size) or count.values[:3] != length.values[:3] or isinstance(step, Size):
            number = int(count.values[0] if isinstance(count, (Size, Varying)) else count)
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
        first = self.number(start, "the first position")
        made = self.positions(node, stream)
        if step != 1:
            made = self._op(node, "aten.mul.Scalar", made, [Ref(made.slot), step])
        if first:
            made = self._op(node, "aten.add.Scalar", made, [Ref(made.slot), first])
        dtype = node.meta["val"].dtype
        return made if dtype == torch.long else self._op(node, "aten.to.dtype", made, [Ref(made.slot), dtype], dtype)

    def _op(self, node: Fx, target: str, stream: Stream, args: list[Any], dtype: torch.dtype | None = None) -> Stream:
        """A small operation beside a stream of positions, which has no batch."""
        made = Stream(self.slot(), stream.dims, stream.wire, dtype or stream.dtype)
        path, label, source = self.place(self._call(node, target, {}))
        self.instructions.append(Op(path, label, source, target, tuple(args), {}, (stream.slot,), made.slot, stream.wire))
        return made

    def _created(self, node: Fx, name: str, args: dict[str, Value], positional: tuple[str, ...], stream: Stream) -> Stream:
        """zeros, ones, full … with a dimension of time."""
        dims = self.layout(args["size"], stream.wire)
        given = {n: self.template(v) for n, v in args.items() if n != "size"} | {"size": Shape(dims)}
        value = {"zeros": 0.0, "ones": 1.0}.get(name.split(".")[1], args.get("fill_value"))
        wire = stream.wire if any(TIME in d for d in dims) else STILL
        made = Stream(self.slot(), dims, wire, node.meta["val"].dtype, fill=value)
        path, label, source = self.place(self._call(node, name, {}))
        call_args = tuple(given[n] for n in positional)
        kwargs = {n: v for n, v in given.items() if n not in positional}
        slots = () if wire == STILL else (stream.slot,)
        self.instructions.append(Op(path, label, source, name, call_args, kwargs, slots, made.slot, max(wire, 0)))
        return made

    def _for_rows(self, node: Fx, name: str, source: Const, args: dict[str, Value], stream: Stream) -> Stream:
        """A constant for every row of the batch; over time it stays one frame, which others repeat, unless frames are rows."""
        sizes = [Size.of(v, len(self.lengths)) for v in args.get("size") or args["repeats"]]
        new = len(sizes) - len(source.dims)
        dims: list[Any] = []
        for i, size in enumerate(sizes):
            own = source.dims[i - new] if i >= new else ()
            if size.varies and not own and self.layout([size], stream.wire) == ((BATCH, TIME),):
                dims.append((BATCH, TIME))
            elif size.varies and (own or size.values != self.batches):
                if own or name == "aten.repeat.default":
                    raise Misfit("a constant is repeated as often as the clip is long", "expand, or leave it to broadcasting")
                dims.append(())
            elif size.varies:
                dims.append((BATCH,))
            elif name == "aten.repeat.default" and size.now != 1 and own:
                raise Misfit("a constant with rows of its own is repeated for the batch", "repeat it first, and expand it then")
            else:
                dims.append(own if own or size.now in (-1, 1) else (size.now,))
        call = Call(node, "aten.expand.default", {}, ())
        given = Ref(source.slot), Shape(tuple(dims))
        if any(TIME in d for d in dims):
            made = self.local(
                call, tuple(dims), stream, args=given, kwargs={}, inputs=[stream], dtype=source.value.dtype, windows=False
            )
        else:
            made = self.still(call, tuple(dims), given, {}, source.value.dtype)
        return replace(made, fill=source.fill)

    def _rows(self, node: Fx, table: Const, args: dict[str, Value], stream: Stream, length: Size) -> Stream:
        """Rows of a table for the frames of a stream: ``table[:, :x.shape[time]]``."""
        dim = args.get("dim", 0) % len(table.dims)
        start = args.get("start") or 0
        stop = args["end"] if "end" in args else Size.of(start, len(self.lengths)).combine(operator.add, args["length"])
        size = Size.of(stop, len(self.lengths)).combine(lambda e, s: e - s, start)
        if self.number(args.get("step", 1)) != 1 or not isinstance(size, Size) or size.values[:3] != length.values[:3]:
            raise Misfit("a slice of a table whose length is not that of the stream that it meets", "table[:, :x.shape[time]]")
        first = self.number(start, "the first row")
        total = table.value.shape[dim]
        where_ = self.positions(node, stream, limit=total - first)
        if first:
            where_ = self._op(node, "aten.add.Scalar", where_, [Ref(where_.slot), first])
        dims = (*table.dims[:dim], (TIME,), *table.dims[dim + 1 :])
        made = Stream(self.slot(), dims, stream.wire, table.value.dtype)
        path, label, source = self.place(self._call(node, "aten.index_select.default", {}))
        self.notes.append(f"{path}: positions for {total - first} frames; the stream ends there")
        self.instructions.append(
            Op(path, label, source, "aten.index_select.default", (Ref(table.slot), dim, Ref(where_.slot)), {}, (where_.slot,),
               made.slot, stream.wire)
        )  # fmt: skip
        return made

    def concrete(self, value: Value, sample: int = 0, shape: bool = False) -> Any:
        """What a value that depends on no stream is for an example length.

        Args:
            value: such a value.
            sample: which of the example lengths.
            shape: only the shape is wanted: a tensor on the device "meta", which costs nothing at any length.
        """
        if isinstance(value, (list, tuple)):
            return [self.concrete(v, sample, shape) for v in value]
        if isinstance(value, Const):
            return value.value.to("meta") if shape else value.value
        if isinstance(value, (Size, Varying)):
            return value.values[sample]
        if isinstance(value, Stream) and shape:
            return torch.empty(self.shape(value), dtype=value.dtype, device="meta")
        _needs_no_input(value)
        if not isinstance(value, Clocked):
            return value
        target: Any = resolve(value.name)
        given = {n: self.concrete(v, sample, shape) for n, v in value.args.items()}
        if shape and value.name != ITEM and any(a.name == "device" for a in target._schema.arguments):
            given["device"] = torch.device("meta")
        kwargs = {n: v for n, v in given.items() if n not in value.positional and (n in value.given or n == "device")}
        with torch.no_grad():
            return target(*(given[n] for n in value.positional), **kwargs)

    def for_example(self, value: Value, sample: int = 0) -> Any:
        """What depends on the clip's length, as a constant for an example length: computed anew when parameters change."""
        if isinstance(value, (list, tuple)):
            return [self.for_example(v, sample) for v in value]
        if isinstance(value, (Size, Varying)):
            return value.values[sample]
        _needs_no_input(value)
        if not isinstance(value, Clocked):
            return value
        key = value, sample, False
        if key not in self._made:
            given = {n: self.for_example(v, sample) for n, v in value.args.items()}
            kwargs = {n: v for n, v in given.items() if n not in value.positional and n in value.given}
            self._made[key] = self.const(value.name, [given[n] for n in value.positional], kwargs)
        return self._made[key]

    def size_of_clocked(self, of: Clocked, dim: int) -> Size:
        """The size of a dimension of what depends on the clip's length alone."""
        return Size(tuple(int(self.concrete(of, i, shape=True).shape[dim]) for i in range(len(self.lengths))))

    def size_of(self, value: Value, dim: int) -> Size:
        """The size of a dimension, for all examples."""
        return self.size_of_clocked(value, dim) if isinstance(value, Clocked) else self.size(value, dim)


def _needs_no_input(value: Value) -> None:
    if isinstance(value, Stream):
        raise Refused(
            "a mask (or another value for pairs of frames) depends on an input that is no stream",
            "a mask that is the same for all clips",
        )
