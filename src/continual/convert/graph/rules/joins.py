"""Tensors put together."""

from __future__ import annotations

from ....layers.delay import Trim
from ..axes import BATCH, TIME, Dims, View, joined_dims
from ..instructions import Ref, Shape
from ..op_call import Call, Misfit, Refused, rule
from ..time_layers import Surround
from ..values import Const, Stream, Value
from ..walker import Builder
from .elementwise import explicit, lead
from .padding import pad_time
from .parts import merged, whole, with_dim


@rule("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(b: Builder, call: Call) -> Stream:
    """Tensors one after another. Over time: constants before the first and after the last frame."""
    values = [v for v in call["tensors"] if not (isinstance(v, Const) and v.value.numel() == 0)]
    new = explicit(b, call, [v for v in values if isinstance(v, Stream)])
    values = [new.get(v.slot, v) if isinstance(v, Stream) else v for v in values]
    rank = max(len(v.dims) for v in values)
    dim = int(call["dim"]) % rank
    if any(TIME in v.dims[dim] for v in values if isinstance(v, Stream)):
        return _around(b, call, values, dim)
    rest = joined_dims([with_dim(v.dims, dim, ()) for v in values])
    if rest is None and (again := b.revived(call, lead(call.streams))) is not call:
        values = again["tensors"]
        rest = joined_dims([with_dim(v.dims, dim, ()) for v in values])
    if rest is None or any(BATCH in v.dims[dim] for v in values):
        raise Misfit("`cat` joins tensors whose dimensions do not fit, or the rows of batches", "reshape one of them")
    total = sum(b.shape(v)[dim] for v in values)
    parts = [_expanded(b, call, v, with_dim(rest, dim, v.dims[dim])) for v in values]
    streams = [p for p in parts if isinstance(p, Stream)]
    return b.local(
        call,
        with_dim(rest, dim, whole(total)),
        lead(streams),
        args=([b.template(p) for p in parts], dim),
        kwargs={},
        inputs=streams,
    )


def _expanded(b: Builder, call: Call, value: Value, dims: Dims) -> Value:
    """A value that is repeated where others have rows and frames."""
    if value.dims == dims:
        return value
    beside = lead(call.streams)
    inputs = [value] if isinstance(value, Stream) and value.wire >= 0 else [beside]
    dtype = value.dtype if isinstance(value, Stream) else value.value.dtype
    return b.local(
        call,
        dims,
        beside,
        target="aten.expand.default",
        args=(Ref(value.slot), Shape(dims)),
        kwargs={},
        inputs=inputs,
        dtype=dtype,
    )


@rule("aten.stack.default")
def stack(b: Builder, call: Call) -> Stream:
    """Tensors side by side in a new dimension."""
    values = call["tensors"]
    new = explicit(b, call, [v for v in values if isinstance(v, Stream)])
    values = [new.get(v.slot, v) if isinstance(v, Stream) else v for v in values]
    rest = joined_dims([v.dims for v in values])
    if rest is None:
        raise Misfit("`stack` joins tensors whose dimensions do not fit", "reshape one of them")
    dim = int(call["dim"]) % (len(rest) + 1)
    parts = [_expanded(b, call, v, rest) for v in values]
    streams = [p for p in parts if isinstance(p, Stream)]
    dims = (*rest[:dim], whole(len(parts)), *rest[dim:])
    return b.local(call, dims, lead(streams), args=([b.template(p) for p in parts], dim), kwargs={}, inputs=streams)


def _around(b: Builder, call: Call, values: list[Value], dim: int) -> Stream:
    """Constant frames around a stream."""
    moving = [i for i, v in enumerate(values) if isinstance(v, Stream) and TIME in v.dims[dim]]
    if len(moving) != 1:
        raise Refused("`cat` puts one stream behind the other in time: the second would begin when the first has ended",
                      "join them over channels")  # fmt: skip
    x: Stream = values[moving[0]]
    if x.dims[dim] != (TIME,):
        merged(b, call, x, dim, "puts constants before or behind")
    before, after = values[: moving[0]], values[moving[0] + 1 :]
    first, last = (sum(b.shape(v)[dim] for v in part) for part in (before, after))
    if all(v.fill == 0 for v in (*before, *after)):
        return pad_time(b, call, x, (first, last), "constant", 0.0)
    maker = b.maker(call, x)
    cut = maker.module if maker is not None and isinstance(maker.module, Trim) else None
    if maker is not None and cut is not None and not (first and cut.first) and not (last and cut.last):
        x = b.undo(maker, x)  # cut after the constants are there: a clip may then be as short as the module takes it
    else:
        cut = None
    given = {n: _frames(b, call, part, x, dim) for n, part in (("before", before), ("after", after)) if part}
    y = b.layer(call, x, Surround(first, last), x.dims, weights=given, label=f"cat {first} + {last} frames")
    return y if cut is None else b.layer(call, y, b.trim(cut.first, cut.last), y.dims, label=f"cut {cut.first}, {cut.last}")


def _frames(b: Builder, call: Call, parts: list[Value], x: Stream, dim: int) -> Value:
    """Constants as frames ``(B or 1, C, n, *S)``."""
    rest = joined_dims([with_dim(v.dims, dim, ()) for v in parts] + [with_dim(x.dims, dim, ())])
    if rest != with_dim(x.dims, dim, ()):
        raise Misfit("`cat` over time joins constants whose dimensions are not those of the stream", "reshape them")
    total = sum(b.shape(v)[dim] for v in parts)
    order = list(View(x.dims).order)
    if all(isinstance(v, Const) for v in parts):
        joined = parts[0] if len(parts) == 1 else b.const("aten.cat.default", [parts, dim])
        fixed_part = b.const("aten.permute.default", [joined, order])
        return b.const("aten.unsqueeze.default", [fixed_part, 1]) if len(order) == 2 else fixed_part
    like = [v for v in parts if isinstance(v, Stream)]
    dims = with_dim(rest, dim, whole(total))
    full = [_still(b, call, v, with_dim(rest, dim, v.dims[dim])) for v in parts]
    refs = [b.template(v) for v in full]
    whole_part = b.local(call, dims, like[0], target="aten.cat.default", args=(refs, dim), kwargs={}, inputs=like)
    turned = b.local(call, tuple(dims[i] for i in order), like[0], target="aten.permute.default", args=(Ref(whole_part.slot), order),
                     kwargs={}, inputs=[whole_part])  # fmt: skip
    if len(order) > 2:
        return turned
    return b.local(call, (turned.dims[0], (), *turned.dims[1:]), like[0], target="aten.unsqueeze.default", args=(Ref(turned.slot), 1),
                   kwargs={}, inputs=[turned])  # fmt: skip


def _still(b: Builder, call: Call, value: Value, dims: Dims) -> Value:
    if value.dims == dims:
        return value
    still = next(s for s in call.streams if s.wire < 0)
    return b.local(
        call, dims, still, target="aten.expand.default", args=(Ref(value.slot), Shape(dims)), kwargs={}, inputs=[still]
    )
