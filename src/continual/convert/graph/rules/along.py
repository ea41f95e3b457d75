"""Operations along one dimension: softmax, running reductions, sorting."""

from __future__ import annotations

from ....layers import cumulative
from ..axes import BATCH, TIME, with_size
from ..op_call import Merged, OpCall, Refused, RowsMixed, result_shape, results_of
from ..rule_context import RuleContext, rule
from ..time_layers import CumulativeProduct, FirstFrame, LogCumulativeSumExp
from ..values import NotStreamed, Stream, Value
from .elementwise import items

RUNNING = {
    "cumsum": cumulative.CumulativeSum, "cummax": cumulative.CumulativeMax, "cummin": cumulative.CumulativeMax,
    "cumprod": CumulativeProduct, "logcumsumexp": LogCumulativeSumExp,
}  # fmt: skip


def _refuse_rows(call: OpCall) -> None:
    raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "dim=… without the batch's: every row is a stream of its own")


@rule("aten.softmax.int", "aten.log_softmax.int", "aten._softmax.default", "aten._log_softmax.default", "aten.softmin.int")
def softmax(ctx: RuleContext, call: OpCall) -> Stream:
    """Softmax over other dimensions than time."""
    x = call.stream("self")
    dim = call.dim(len(x.dims))
    if TIME in x.dims[dim]:
        raise Refused("softmax over time sees the whole clip", "softmax over channels; or causal attention (is_causal=True)")
    if BATCH in x.dims[dim]:
        _refuse_rows(call)
    return ctx.emit.local(call, x.dims, x)


@rule("aten.cumsum.default", "aten.cumprod.default", "aten.cummax.default", "aten.cummin.default", "aten.logcumsumexp.default")
def cumulate(ctx: RuleContext, call: OpCall) -> Value:
    """Running reductions."""
    x = call.stream("self")
    dim, with_indices, minimum = call.dim(len(x.dims)), call.op in ("cummax", "cummin"), call.op == "cummin"
    if BATCH in x.dims[dim]:
        _refuse_rows(call)
    if TIME not in x.dims[dim]:
        y = ctx.emit.local(call, x.dims, x)
        return items(ctx, call, y) if with_indices else y
    if x.dims[dim] != (TIME,):
        raise Merged(f"`{call.op}` over time merged with another dimension", "do it before the dimensions are merged")
    if minimum and not x.dtype.is_floating_point:
        raise Refused("`cummin` of whole numbers over time", "floating point numbers, or -cummax(-x)")
    y = ctx.emit.op(call, "aten.neg.default", x, x.dims) if minimum else x
    y = ctx.emit.layer(call, y, RUNNING[call.op](), x.dims)
    y = ctx.emit.op(call, "aten.neg.default", y, x.dims) if minimum else y
    if not with_indices:
        return y
    return [y, NotStreamed(x.dims, results_of(call.node)[1].dtype, f"`{call.op}` gives positions in the clip", "its values")]


@rule("continual.held.default")
def held(ctx: RuleContext, call: OpCall) -> Stream:
    """The first frame of the clip, for each frame."""
    x = call.stream("x")
    if x.dims[call.dim(len(x.dims))] != (TIME,):
        raise Merged("takes the first frame of time merged with another dimension", "do it before the dimensions are merged")
    return ctx.emit.layer(call, x, FirstFrame(), x.dims)


@rule("aten.sort.default", "aten.topk.default", "aten.argsort.default", "aten.sort.stable")
def sort(ctx: RuleContext, call: OpCall) -> Value:
    """Sorting along other dimensions than time."""
    x = call.stream("self")
    dim = call.dim(len(x.dims), default=-1)
    if TIME in x.dims[dim] or BATCH in x.dims[dim]:
        raise Refused(
            f"`{call.op}` orders the frames of the clip: each output sees all of them",
            "order channels, or take maxima over windows",
        )
    y = ctx.emit.local(call, with_size(x.dims, dim, result_shape(call.node)[dim]), x)
    return items(ctx, call, y) if isinstance(call.node.meta["val"], (list, tuple)) else y
