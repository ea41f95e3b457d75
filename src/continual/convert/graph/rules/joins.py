"""Tensors joined along a dimension."""

from __future__ import annotations

from collections.abc import Sequence

from ....layers.delay import Trim
from ..axes import BATCH, TIME, Dims, View, dim_of, fixed, joined_dims, with_dim, with_size
from ..op_call import Misfit, OpCall, Refused, as_tensor
from ..rule_context import RuleContext, rule
from ..time_layers import ConstantPadTime
from ..values import STATIC, Const, Stream, TensorValue
from .elementwise import explicit, joined, lead
from .padding import pad_time
from .parts import refuse_merged


def _tensors(ctx: RuleContext, call: OpCall) -> list[TensorValue]:
    """The tensors to join, all of them with time in the same dimension. Tensors without elements join nothing."""
    given = call.sequence("tensors")
    if call.op != "stack":
        given = [v for v in given if not (isinstance(v, Const) and not v.value.numel())]
    values = [v for v in map(as_tensor, given) if call.op == "stack" or v.dims != fixed((0,))]
    new = explicit(ctx, call, [v for v in values if isinstance(v, Stream)])
    return [new.get(v.slot, v) if isinstance(v, Stream) else v for v in values]


@rule("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(ctx: RuleContext, call: OpCall) -> Stream:
    """Tensors one after another. Over time: constants before the first and after the last frame."""
    values = _tensors(ctx, call)
    if len(values) == 1 and isinstance(values[0], Stream):
        return values[0]
    dim = call.dim(max(len(v.dims) for v in values))
    if any(TIME in v.dims[dim] for v in values if isinstance(v, Stream)):
        return _around(ctx, call, values, dim)
    rest = joined_dims([with_dim(v.dims, dim, ()) for v in values])
    if rest is None and (restored := ctx.lengths.restored(call, lead(call.streams))) is not call:
        values = [as_tensor(v) for v in restored.sequence("tensors")]
        rest = joined_dims([with_dim(v.dims, dim, ()) for v in values])
    if rest is None or any(BATCH in v.dims[dim] for v in values):
        raise Misfit("`cat` joins tensors whose dimensions do not fit, or the rows of batches", "reshape one of them")
    parts = [_expanded(ctx, call, v, with_dim(rest, dim, v.dims[dim])) for v in values]
    streams = [p for p in parts if isinstance(p, Stream)]
    dims = with_size(rest, dim, sum(ctx.shapes.shape(v)[dim] for v in values))
    return ctx.emit.local(call, dims, lead(streams), args=(ctx.emit.template(parts), dim), inputs=streams)


def _expanded(ctx: RuleContext, call: OpCall, value: TensorValue, dims: Dims) -> TensorValue:
    """A tensor repeated over the rows and frames that others have."""
    if value.dims == dims:
        return value
    beside = lead(call.streams)
    inputs = [value] if isinstance(value, Stream) and value.wire != STATIC else [beside]
    return ctx.emit.expand(call, value, dims, inputs, beside)


@rule("aten.stack.default")
def stack(ctx: RuleContext, call: OpCall) -> Stream:
    """Tensors side by side in a new dimension."""
    values = _tensors(ctx, call)
    rest = joined(call, [v.dims for v in values], "`stack` joins tensors whose dimensions do not fit")
    dim = call.dim(len(rest) + 1)
    parts = [_expanded(ctx, call, v, rest) for v in values]
    streams = [p for p in parts if isinstance(p, Stream)]
    dims = (*rest[:dim], dim_of(len(parts)), *rest[dim:])
    return ctx.emit.local(call, dims, lead(streams), args=(ctx.emit.template(parts), dim), inputs=streams)


def _around(ctx: RuleContext, call: OpCall, values: Sequence[TensorValue], dim: int) -> Stream:
    """Constant frames around a stream."""
    moving = [(i, v) for i, v in enumerate(values) if isinstance(v, Stream) and TIME in v.dims[dim]]
    if len(moving) != 1:
        raise Refused(
            "`cat` puts one stream behind the other in time: the second would begin when the first has ended",
            "join them over channels",
        )
    at, x = moving[0]
    if x.dims[dim] != (TIME,):
        refuse_merged(ctx, call, x, dim, "puts constants before or behind")
    before, after = values[:at], values[at + 1 :]
    first, last = (sum(ctx.shapes.shape(v)[dim] for v in part) for part in (before, after))
    if all(v.fill == 0 for v in (*before, *after)):
        return pad_time(ctx, call, x, (first, last), "constant", 0.0)
    producer, cut = ctx.draft.sole_producer(call, x), None
    if producer is not None and isinstance(producer.module, Trim):
        trim = producer.module
        if not (first and trim.first) and not (last and trim.last):
            x, cut = ctx.emit.undo(producer, x), trim  # the cut comes after the constants: clips may be as short as in the module
    weights = {n: _frames(ctx, call, part, x, dim) for n, part in (("before", before), ("after", after)) if part}
    y = ctx.emit.layer(call, x, ConstantPadTime(first, last), x.dims, weights=weights, label=f"cat {first} + {last} frames")
    if cut is None:
        return y
    return ctx.emit.layer(call, y, Trim(cut.first, cut.last), y.dims, label=f"cut {cut.first}, {cut.last}")


def _frames(ctx: RuleContext, call: OpCall, parts: Sequence[TensorValue], x: Stream, dim: int) -> TensorValue:
    """Constants as frames ``(B or 1, C, n, *S)``."""
    rest = with_dim(x.dims, dim, ())
    if joined_dims([with_dim(v.dims, dim, ()) for v in parts] + [rest]) != rest:
        raise Misfit("`cat` over time joins constants whose dimensions are not those of the stream", "reshape them")
    order, emit = View(x.dims).order, ctx.emit
    if all(isinstance(v, Const) for v in parts):
        constant = parts[0] if len(parts) == 1 else emit.const("aten.cat.default", [parts, dim])
        permuted = emit.const("aten.permute.default", [constant, order])
        return emit.const("aten.unsqueeze.default", [permuted, 1]) if len(order) == 2 else permuted
    like, static = [v for v in parts if isinstance(v, Stream)], next(s for s in call.streams if s.wire == STATIC)
    full = [_expanded_static(ctx, call, v, with_dim(rest, dim, v.dims[dim]), static) for v in parts]
    dims = with_size(rest, dim, sum(ctx.shapes.shape(v)[dim] for v in parts))
    args = emit.template(full), dim
    y = emit.permute(call, emit.local(call, dims, like[0], target="aten.cat.default", args=args, inputs=like), order)
    return y if len(order) > 2 else emit.unsqueeze(call, y, 1)


def _expanded_static(ctx: RuleContext, call: OpCall, value: TensorValue, dims: Dims, static: Stream) -> TensorValue:
    return value if value.dims == dims else ctx.emit.expand(call, value, dims, [static], static)
