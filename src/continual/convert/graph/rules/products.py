"""Matrix products in which time is one of the rows, and tables."""

from __future__ import annotations

from ..axes import BATCH, TIME, Dim, Dims, dim_of
from ..op_call import OpCall, Refused, RowsMixed, as_stream
from ..rule_context import RuleContext, rule
from ..values import Const, Stream, TensorValue, Value
from .contraction import over_frames, over_window
from .elementwise import joined, lead, with_explicit
from .scores import masked_product, scores_of
from .time_filters import product_over_time

BATCHES = "`{}` joins batches that do not fit"


@rule("aten.linear.default")
def linear(ctx: RuleContext, call: OpCall) -> Stream:
    """A linear layer over channels; over the frames of the clip it becomes a window of the clip's length."""
    weight, bias, x = call["weight"], call.get("bias"), call.tensor("input")
    if not isinstance(weight, Const):
        raise Refused(
            "the weight of `linear` depends on the stream", "compute it of parameters, or write the product with matmul"
        )
    if BATCH in x.dims[-1]:
        raise RowsMixed("`linear` mixes the rows of the batch", "the batch in a dimension of its own")
    if TIME in x.dims[-1]:
        if bias is not None and not isinstance(bias, Const):
            raise Refused("the bias of `linear` depends on the stream", "add it after the operation")
        return over_window(ctx, call, as_stream(x), weight, bias)
    return ctx.emit.local(call, (*x.dims[:-1], dim_of(weight.value.shape[0])), lead(call.streams))


def _product(call: OpCall, x: TensorValue, y: TensorValue) -> Dims:
    """The layout of ``x @ y``."""
    inner = x.dims[-1], y.dims[-2] if len(y.dims) > 1 else y.dims[-1]
    if any(TIME in d for d in inner):
        raise Refused(
            f"`{call.op}` sums over the frames of the clip",
            "attention as F.scaled_dot_product_attention(is_causal=True); a mean over time at the end of the network",
        )
    if any(BATCH in d for d in inner):
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "the batch as a dimension of its own")
    rows: tuple[Dim, ...] = (x.dims[-2],) if len(x.dims) > 1 else ()
    columns: tuple[Dim, ...] = (y.dims[-1],) if len(y.dims) > 1 else ()
    return (*joined(call, [v.dims[:-2] for v in (x, y)], BATCHES.format(call.op)), *rows, *columns)


def _tensors(call: OpCall, count: int) -> list[TensorValue]:
    """The first tensors among the arguments."""
    return [v for v in call.args.values() if isinstance(v, (Stream, Const))][:count]


@rule(
    "aten.matmul.default",
    "aten.bmm.default",
    "aten.mm.default",
    "aten.mv.default",
    "aten.dot.default",
    keeps_length_dependent=True,
)
def matmul(ctx: RuleContext, call: OpCall) -> Value:
    """A product in which time is among the rows or the batch; one with weights for all pairs of frames."""
    if (filtered := product_over_time(ctx, call, *[*call.args.values()][:2])) is not None:
        return filtered
    call = with_explicit(ctx, ctx.lengths.materialise(call))
    x, y = _tensors(call, 2)
    scores = scores_of(ctx, call, x, y)
    return scores or over_frames(ctx, call, x, y) or ctx.emit.local(call, _product(call, x, y), lead(call.streams))


@rule("aten.baddbmm.default", keeps_length_dependent=True)
def baddbmm(ctx: RuleContext, call: OpCall) -> Value:
    """A product and a sum; or attention scores and their mask."""
    scores = scores_of(ctx, call, call["batch1"], call["batch2"])
    if scores is not None:
        return masked_product(ctx, call, scores, call["self"])
    return added(ctx, ctx.lengths.materialise(call))


@rule("aten.addmm.default", "aten.addbmm.default", "aten.addmv.default")
def added(ctx: RuleContext, call: OpCall) -> Stream:
    """A product and a sum."""
    call = with_explicit(ctx, call)
    add, x, y = _tensors(call, 3)
    dims = joined(call, [add.dims, _product(call, x, y)], BATCHES.format(call.op))
    return ctx.emit.local(call, dims, lead(call.streams))


@rule("aten.cdist.default", "aten._cdist_forward.default", "aten._euclidean_dist.default")
def cdist(ctx: RuleContext, call: OpCall) -> Stream:
    """Distances between the vectors of a frame and others."""
    call = with_explicit(ctx, call)
    x, y = call.tensor("x1"), call.tensor("x2")
    for v in (x, y):
        if TIME in v.dims[-1]:
            raise Refused(f"`{call.op}` sums over the frames of the clip", "vectors of channels: (…, T, C)")
        if BATCH in v.dims[-1] or (BATCH in x.dims[-2] and BATCH in y.dims[-2]):
            raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "the batch as a dimension of its own")
    rows = joined(call, [x.dims[:-2], y.dims[:-2]], BATCHES.format(call.op))
    return ctx.emit.local(call, (*rows, x.dims[-2], y.dims[-2]), lead(call.streams))


@rule("aten.bilinear.default")
def bilinear(ctx: RuleContext, call: OpCall) -> Stream:
    """A bilinear map of channels."""
    call = with_explicit(ctx, call)
    x, y, weight = call.tensor("input1"), call.tensor("input2"), call["weight"]
    if any(f in v.dims[-1] for v in (x, y) for f in (TIME, BATCH)) or not isinstance(weight, Const):
        raise Refused("`bilinear` maps frames or rows, or by a weight that depends on the stream", "channels last: (B, T, C)")
    rows = joined(call, [x.dims[:-1], y.dims[:-1]], BATCHES.format(call.op))
    return ctx.emit.local(call, (*rows, dim_of(weight.value.shape[0])), lead(call.streams))


@rule("aten.linalg_cross.default")
def cross(ctx: RuleContext, call: OpCall) -> Stream:
    """The cross product of vectors along other dimensions than time."""
    call = with_explicit(ctx, call)
    dims = joined(call, [call.tensor("self").dims, call.tensor("other").dims], BATCHES.format(call.op))
    dim = call.dim(len(dims))
    if TIME in dims[dim] or BATCH in dims[dim]:
        raise Refused("`cross` of vectors that lie along time or rows", "vectors of channels")
    return ctx.emit.local(call, dims, lead(call.streams))


@rule("aten.embedding.default")
def embedding(ctx: RuleContext, call: OpCall) -> Stream:
    """A row of a table for every index."""
    weight, indices = call["weight"], call["indices"]
    if not isinstance(weight, Const) or not isinstance(indices, Stream):
        raise Refused("embedding of a table that depends on the stream", "a table of parameters")
    ctx.lengths.limit(indices, weight.value.shape[0])
    return ctx.emit.local(call, (*indices.dims, dim_of(weight.value.shape[1])), indices)
