"""Sums, means and maxima. Over time they see the whole clip, and become windows of its length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....core.module import CoModule
from ....layers import pooling
from ....layers.delay import Trim
from ..axes import BATCH, TIME, Dims, View, where
from ..exec_context import Arg, Ref, Shape
from ..op_call import Misfit, OpCall, Refused, RowsMixed
from ..rule_context import RuleContext, rule
from ..time_layers import Reduction
from ..values import Size, Stream, Value, as_int, as_sequence
from .elementwise import items

AVG = (pooling.AvgPool1d, pooling.AvgPool2d, pooling.AvgPool3d)
MAX = (pooling.MaxPool1d, pooling.MaxPool2d, pooling.MaxPool3d)
POOLS = {"mean": AVG, "sum": AVG, "amax": MAX}
POOLED = ("mean", "amax")  # reductions that `time_pooling` covers
KINDS = {
    "aten.mean.dim": "mean", "aten.sum.dim_IntList": "sum", "aten.amax.default": "amax", "aten.amin.default": "amin",
    "aten.std.correction": "std", "aten.std.dim": "std", "aten.var.correction": "var", "aten.var.dim": "var",
    "aten.logsumexp.default": "logsumexp", "aten.linalg_vector_norm.default": "norm", "aten.norm.ScalarOpt_dim": "norm",
    "aten.prod.dim_int": "prod", "aten.any.dim": "any", "aten.all.dim": "all", "aten.any.dims": "any", "aten.all.dims": "all",
    "aten.argmax.default": "argmax", "aten.argmin.default": "argmin", "aten.nansum.default": "nansum", "aten.nanmean.default": "nanmean",
    "aten.count_nonzero.dim_IntList": "count", "aten.quantile.scalar": "quantile", "aten.nanquantile.scalar": "quantile",
    "aten.count_nonzero.default": "count",
}  # fmt: skip
LIMITS = ("amax", "amin", "max", "min")
SEPARABLE = ("mean", "sum", "amax", "amin")  # one dimension after the other gives the same as all at once


@dataclass(frozen=True)
class Reducer:
    """A reduction.

    Attributes:
        what: its kind.
        options: arguments besides the dimensions.
        pick: which of its results is used, if it gives several.
        others: dimensions over which it goes besides time; they stay with a size of 1.
    """

    what: str
    options: Mapping[str, Arg]
    pick: int | None = None
    others: Sequence[int] = ()


# ---- windows of the clip's length ---------------------------------------------------------------------------------------


def in_rows(dims: Dims, time: int) -> Dims:
    """A layout without its time dimension: windows become rows of the batch."""
    return tuple((*d, TIME) if BATCH in d else d for i, d in enumerate(dims) if i != time)


def rows_first(ctx: RuleContext, call: OpCall, y: Stream) -> Stream:
    """Windows that lie behind other factors in the batch dimension, ``(B·M·n, …)``, moved behind the batch: ``(B·n·M, …)``."""
    batch = where(y.dims, BATCH)
    if batch is None or y.dims[batch][:2] == (BATCH, TIME):
        return y
    rest = tuple(f for f in y.dims[batch] if f not in (BATCH, TIME))
    if y.dims[batch] != (BATCH, *rest, TIME):
        raise Misfit(
            "the rows of the batch are not the first in the dimension that they are merged in",
            "(batch, others), not (others, batch)",
        )
    dims = tuple((BATCH, TIME, *rest) if i == batch else d for i, d in enumerate(y.dims))
    return ctx.emit.op(call, "helper_ops:rows_first", y, dims, batch, Shape(((BATCH,), rest, (TIME,))))


def need_rows(call: OpCall, x: Stream) -> None:
    """Refuse a reduction of positions: a stream never has all of them."""
    if where(x.dims, BATCH) is None:
        raise Refused(
            f"`{call.op}` over positions depends on the length of the clip", "make it a fixed number: a stream has no length"
        )


def at_frame(ctx: RuleContext, call: OpCall, x: Stream, dim: int, at: Size, keep: bool) -> Stream:
    """One frame of a window of the clip's length, or the latest frame."""
    need_rows(call, x)
    length = ctx.shapes.length(x.wire)
    size, index = length.now, at.now
    if ctx.draft.so_far and at.values == _last(length).values:
        trim, label = Trim(), "last frame so far"
    else:
        if size > 1:
            ctx.draft.window_note(call, f"takes frame {index} of the {size} of a clip; in a stream that of a sliding window")
        trim, label = Trim(index, size - 1 - index), f"frame {index} of {size}"
    y = rows_first(ctx, call, ctx.emit.layer(call, x, trim, in_rows(x.dims, dim), label=label, windows=True))
    y = ctx.origin.reduced(y, call, "the last frame" if index == size - 1 else f"frame {index}")
    return ctx.emit.unsqueeze(call, y, dim) if keep else y


def at_end(ctx: RuleContext, call: OpCall, x: Stream, dim: int) -> Stream:
    """The last frame of a clip."""
    return at_frame(ctx, call, x, dim, _last(ctx.shapes.length(x.wire)), keep=False)


def _last(length: Size) -> Size:
    return length.combine(lambda n: n - 1)


def only_frame(ctx: RuleContext, call: OpCall, x: Stream, others: Sequence[int]) -> Stream:
    """The only frame of the example, whose dimension is dropped with others of size 1."""
    dim = x.dims.index((TIME,))
    y = at_frame(ctx, call, x, dim, ctx.shapes.sized(0), keep=False)
    return ctx.emit.squeeze(call, y, [i - (i > dim) for i in others])


def over_clip(ctx: RuleContext, call: OpCall, x: Stream, dim: int, reducer: Reducer) -> Stream:
    """A reduction over the clip's frames: over a sliding window of as many, or as `time_pooling` says.

    Args:
        ctx, call, x: the operation on a stream.
        dim: where time is.
        reducer: the reduction.
    """
    need_rows(call, x)
    if call.node.name in ctx.draft.middle:
        return _pooled(ctx, call, x, dim, reducer.what)
    size, what = ctx.shapes.length(x.wire).now, reducer.what
    ctx.draft.window_note(call, f"over the {size} frames of a clip; in a stream over a sliding window of as many")
    order, label = View(x.dims).order, f"{what} over {size} frames"
    n = max(1, len(order) - 2)
    if what in POOLS and n <= 3 and x.dtype.is_floating_point and reducer.pick in (None, 0):
        layer: CoModule = POOLS[what][n - 1]((size, *(1,) * (n - 1)), (1,) * n)
        y = ctx.emit.layer(call, x, layer, in_rows(x.dims, dim), label=label, windows=True)
        if what == "sum":
            y = ctx.emit.op(call, "aten.mul.Scalar", y, y.dims, size)
    else:
        places = [order.index(d) for d in reducer.others]  # in a chunk
        layer = Reduction(size, call.name, dict(reducer.options), pick=reducer.pick, others=places)
        dims = in_rows(tuple(() if i in reducer.others else d for i, d in enumerate(x.dims)), dim)
        y = ctx.emit.layer(call, x, layer, dims, label=label, windows=True)
    return ctx.origin.reduced(rows_first(ctx, call, y), call, f"`{call.op}`", what in POOLED)


def _pooled(ctx: RuleContext, call: OpCall, x: Stream, dim: int, what: str) -> Stream:
    """A reduction in the middle of the network, as `time_pooling` says."""
    size, out = ctx.shapes.length(x.wire).now, in_rows(x.dims, dim)
    if ctx.draft.time_pooling == "frame":
        ctx.draft.window_note(
            call, "over each frame alone, where the module takes the whole clip: the converted network computes another function"
        )
        args = Ref(x.slot), where(x.dims, BATCH), dim
        return ctx.emit.local(call, out, x, target="helper_ops:gathered", args=args, inputs=[x], windows=True)
    ctx.draft.note(
        call, f"over the last {size} frames, those present at the start, where the module takes the whole clip: another function"
    )
    layer = Reduction(size, f"aten.{what}.{'dim' if what == 'mean' else 'default'}", {}, trailing=True)
    return rows_first(ctx, call, ctx.emit.layer(call, x, layer, out, label=f"{what} of the last {size}", windows=True))


# ---- rules --------------------------------------------------------------------------------------------------------------


def chosen_dims(call: OpCall, rank: int) -> list[int]:
    """The dimensions that are reduced."""
    dim = call.get("dim")
    if dim is None or dim == []:
        return list(range(rank))
    return sorted({as_int(d) % rank for d in as_sequence(dim)})


@rule(*KINDS)
def reduce(ctx: RuleContext, call: OpCall) -> Stream:
    """A reduction over any dimensions."""
    x = call.stream("self")
    dims, keep, what = chosen_dims(call, len(x.dims)), bool(call.get("keepdim", False)), KINDS[call.name]
    if any(BATCH in x.dims[d] for d in dims):
        return _refuse_rows(call, tuple(x.dims[d] for d in dims))
    if not any(TIME in x.dims[d] for d in dims):
        return _of_other_dims(ctx, call, x, dims, keep)
    return _with_time(ctx, call, x, dims, keep, what)


def _of_other_dims(ctx: RuleContext, call: OpCall, x: Stream, dims: list[int], keep: bool) -> Stream:
    if any(BATCH in x.dims[d] for d in dims):
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "dim=… without the batch's")
    kwargs = {n: ctx.emit.template(v) for n, v in call.args.items() if n != "self"}
    kwargs["dim"] = dims if isinstance(call.get("dim"), (list, tuple)) or call.get("dim") is None else dims[0]
    if "keepdim" in kwargs or keep:
        kwargs["keepdim"] = keep
    out = tuple(() if i in dims else d for i, d in enumerate(x.dims) if keep or i not in dims)
    return ctx.emit.local(call, out, x, args=(Ref(x.slot),), kwargs=kwargs, inputs=[x])


def _with_time(
    ctx: RuleContext, call: OpCall, x: Stream, dims: Sequence[int], keep: bool, what: str, pick: int | None = None
) -> Stream:
    """A reduction over time, and perhaps over other dimensions too."""
    time = next(d for d in dims if TIME in x.dims[d])
    x, parts = _unmerged(ctx, call, x, time)
    new = [d if d < time else d + len(parts) - 1 for d in dims if d != time] + parts
    at = next(d for d in new if x.dims[d] == (TIME,))
    others = [d for d in new if d != at]
    if others and call.name == "aten.max.dim" and pick == 0:
        reduced = tuple(() if i in others else d for i, d in enumerate(x.dims))
        x = ctx.emit.op(call, "aten.amax.default", x, reduced, others, True, dtype=x.dtype)
    elif others and what in SEPARABLE:
        x = _of_other_dims(ctx, call, x, others, keep=True)
    elif others and isinstance(call.get("dim"), int):  # torch takes one dimension, in which others are merged with time
        raise Misfit(f"`{call.op}` over time merged with another dimension", "do it before the dimensions are merged")
    args = {n: v for n, v in call.args.items() if n in call.positional or n in call.node.kwargs}
    options = {n: ctx.emit.template(v) for n, v in args.items() if n not in ("self", "dim", "keepdim")}
    y = over_clip(ctx, call, x, at, Reducer(what, options, pick, () if what in SEPARABLE else others))
    y = ctx.emit.squeeze(call, y, [d - (d > at) for d in others])
    for d in dims if keep else ():
        y = ctx.emit.unsqueeze(call, y, d)
    return y


def _unmerged(ctx: RuleContext, call: OpCall, x: Stream, dim: int) -> tuple[Stream, list[int]]:
    """A stream in which time has a dimension of its own, and the places of what was merged there."""
    own = x.dims[dim]
    if TIME not in own or own == (TIME,):
        return x, [dim]
    at = own.index(TIME)
    pieces = [p for p in (own[:at], (TIME,), own[at + 1 :]) if p]
    return ctx.emit.reshape(call, x, (*x.dims[:dim], *pieces, *x.dims[dim + 1 :])), list(range(dim, dim + len(pieces)))


def _refuse_rows(call: OpCall, over: Dims) -> Stream:
    """Refuse a reduction over the batch, and perhaps over the whole clip too."""
    if any(TIME in d for d in over):
        bound = "; a fixed bound where it limits a range (top_db=None in audio front ends)" if call.op in LIMITS else ""
        raise RowsMixed(
            f"`{call.op}` is taken over the whole clip and over the rows of the batch, which are streams of their own",
            f"dim=… without the batch's, at the end of the network{bound}",
        )
    raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "dim=… without the batch's: every row is a stream of its own")


@rule("aten.mean.default", "aten.sum.default", "aten.max.default", "aten.min.default", "aten.norm.Scalar", "aten.any.default",
      "aten.all.default", "aten.var.default", "aten.std.default", "aten.prod.default", "aten.median.default",
      "aten.std_mean.default", "aten.var_mean.default")  # fmt: skip
def of_everything(ctx: RuleContext, call: OpCall) -> Stream:
    """Reductions over all dimensions."""
    x = call.stream("self")
    need_rows(call, x)
    return _refuse_rows(call, x.dims)


@rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.nanmedian.dim", "aten.mode.default", "aten.kthvalue.default",
      "aten.std_mean.correction", "aten.var_mean.correction", "aten.std_mean.dim", "aten.var_mean.dim", "aten.aminmax.default")  # fmt: skip
def two_results(ctx: RuleContext, call: OpCall) -> Sequence[Value]:
    """Reductions with two results: maxima and their indices, standard deviations and means."""
    x = call.stream("self")
    dims, keep = chosen_dims(call, len(x.dims)), bool(call.get("keepdim", False))
    if any(BATCH in x.dims[d] for d in dims):
        return [_refuse_rows(call, tuple(x.dims[d] for d in dims))]
    if any(TIME in x.dims[d] for d in dims):
        used = {user.args[1] for user in call.node.users if user.users}
        what = ["amax" if call.op == "max" and pick == 0 else call.op for pick in (0, 1)]
        return [_with_time(ctx, call, x, dims, keep, what[i], i) if i in used else None for i in (0, 1)]
    out = tuple(() if i in dims else d for i, d in enumerate(x.dims) if keep or i not in dims)
    return items(ctx, call, ctx.emit.local(call, out, x))
