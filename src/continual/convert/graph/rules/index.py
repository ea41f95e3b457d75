"""Elements selected or written by indices."""

from __future__ import annotations

import torch

from ..axes import with_dim, with_size
from ..instructions import Ref
from ..op_call import Misfit, OpCall, Refused
from ..rule_context import RuleContext, rule
from ..values import STATIC, Const, Stream, TensorValue
from .elementwise import joined, lead
from .parts import expanded_argument, is_time, with_streams
from .resample import over_time

FRAMES = "slices, or pooling"


@rule("aten.index_select.default")
def index_select(ctx: RuleContext, call: OpCall) -> Stream:
    """Selected indices of another dimension than time, or rows of a table that a stream selects."""
    x, index = call.tensor("self"), call.tensor("index")
    if isinstance(index, Stream) and (isinstance(x, Const) or x.wire == STATIC != index.wire):
        dim = call.dim(len(x.dims))
        if isinstance(x, Const):
            ctx.lengths.limit(index, x.value.shape[dim])
        return ctx.emit.local(call, with_dim(x.dims, dim, index.dims[0] if index.dims else ()), lead(call.streams))
    x = call.stream("self")
    dim = _other_dim(ctx, call, x)
    if isinstance(index, Stream):
        raise Refused("`index_select` chooses by values of the stream, the same for all rows", "torch.gather")
    return ctx.emit.local(call, with_size(x.dims, dim, ctx.shapes.shape(index)[0] if index.dims else 1), x)


def _other_dim(ctx: RuleContext, call: OpCall, x: Stream) -> int:
    """The dimension from which elements are selected. Time and batch are refused."""
    dim = call.dim(len(x.dims))
    if is_time(ctx, call, x, dim, "chooses from"):
        raise Refused(f"`{call.op}` chooses frames of the clip by their number", FRAMES)
    return dim


@rule("aten.gather.default", "aten.take_along_dim.default")
def gather(ctx: RuleContext, call: OpCall) -> Stream:
    """Selected elements of another dimension than time."""
    x = call["self"]
    if not isinstance(x, Stream):
        raise Refused(f"`{call.op}` chooses from a constant by a stream", "embedding, or table[index]")
    dim, name = _other_dim(ctx, call, x), "indices" if "indices" in call.args else "index"
    index = expanded_argument(ctx, call, name, x)
    return with_streams(ctx, call, {name: index}, with_dim(x.dims, dim, index.dims[dim]))


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce", "aten.index_add", "aten.index_copy", "aten.index_fill")
def scatter(ctx: RuleContext, call: OpCall) -> Stream:
    """Elements are written, or added, at indices of another dimension than time."""
    x = call["self"]
    if not isinstance(x, Stream):
        raise Refused(f"`{call.op}` writes a stream into a constant", f"torch.zeros_like(…) of the stream, and `{call.op}` on it")
    _other_dim(ctx, call, x)
    names = [n for n in ("index", "src") if call.op.startswith("scatter") and isinstance(call.get(n), (Stream, Const))]
    return with_streams(ctx, call, {n: expanded_argument(ctx, call, n, x) for n in names}, x.dims)


@rule("aten.index.Tensor")
def index(ctx: RuleContext, call: OpCall) -> Stream:
    """Advanced indexing of other dimensions than time, by constants; of tables, by streams."""
    x = call.tensor("self")
    places, chosen = _indices(ctx, call, x)
    if isinstance(x, Stream) and any(isinstance(v, Stream) for v in chosen):
        raise Refused("indexing by values of the stream", "torch.gather, torch.where, or embedding")
    layout = joined(call, [v.dims for v in chosen], "indexing by tensors that do not fit together")
    for place, v in zip(places, chosen, strict=True):
        if isinstance(x, Const) and isinstance(v, Stream):
            ctx.lengths.limit(v, x.value.shape[place])
    rest = [d for i, d in enumerate(x.dims) if i not in places]
    at = places[0] if places == list(range(places[0], places[0] + len(places))) else 0
    args, dims = (Ref(x.slot), places, [Ref(v.slot) for v in chosen]), (*rest[:at], *layout, *rest[at:])
    return ctx.emit.local(call, dims, lead(call.streams), target="helper_ops:indexed", args=args, inputs=call.streams)


@rule("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(ctx: RuleContext, call: OpCall) -> Stream:
    """Elements are written at indices of other dimensions than time."""
    x = call["self"]
    if not isinstance(x, Stream):
        raise Refused("writes a stream into chosen places of a constant", "torch.zeros_like(…) of the stream")
    places, chosen = _indices(ctx, call, x)
    if any(isinstance(v, Stream) for v in chosen):
        raise Refused("writes at places that depend on the stream", "torch.scatter, or torch.where")
    args = Ref(x.slot), places, [Ref(v.slot) for v in chosen], Ref(call.tensor("values").slot), bool(call["accumulate"])
    return ctx.emit.local(call, x.dims, lead(call.streams), target="helper_ops:placed", args=args, inputs=call.streams)


def _indices(ctx: RuleContext, call: OpCall, x: TensorValue) -> tuple[list[int], list[TensorValue]]:
    """The dimensions that are indexed, and their indices; a mask becomes the indices where it is true."""
    places, chosen, at = list[int](), list[TensorValue](), 0
    for v in call.sequence("indices"):
        count = 1
        if isinstance(v, Const) and v.dtype == torch.bool:
            count = v.value.ndim
            found = ctx.emit.const("aten.nonzero.default", [v])
            chosen += [ctx.emit.const("aten.select.int", [found, 1, i]) for i in range(count)]
        elif isinstance(v, (Const, Stream)):
            if isinstance(v, Stream) and v.dtype == torch.bool:
                raise Refused(
                    "the values of the stream decide how many elements there are", "torch.where, which keeps all of them"
                )
            chosen.append(v)
        elif v is not None:
            raise Misfit("indexing by what depends on the length of the clip", FRAMES)
        places += [at + i for i in range(count)] if v is not None else []
        at += count
    if isinstance(x, Stream) and any(is_time(ctx, call, x, p, "chooses from") for p in places):
        raise Refused(f"`{call.op}` chooses frames of the clip by their number", FRAMES)
    return places, chosen


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(ctx: RuleContext, call: OpCall) -> Stream:
    """Every element is repeated in place."""
    x = call.stream("self")
    if call.get("dim") is None:
        raise Refused("repeat_interleave without dim flattens the clip", "dim=…")
    dim, times = call.dim(len(x.dims)), ctx.shapes.integer(call["repeats"])
    if not is_time(ctx, call, x, dim, "repeats"):
        return ctx.emit.local(call, with_size(x.dims, dim, ctx.shapes.shape(x)[dim] * times), x)
    return over_time(ctx, call, x, times, "nearest")
