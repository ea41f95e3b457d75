"""Elements selected or written by indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....layers.delay import Trim
from ..axes import BATCH, TIME, dim_of, fixed, with_dim, with_size
from ..exec_context import Ref
from ..op_call import Misfit, OpCall, Refused
from ..regular_index import RegularIndex, regular_index
from ..rule_context import RuleContext, rule
from ..shape_queries import LONGER
from ..time_layers import Subsample, UnfoldTime
from ..values import STATIC, Const, LengthDependent, Stream, TensorValue, Value, as_int
from .elementwise import joined, lead
from .padding import pad_time
from .parts import expanded_argument, is_time, with_streams
from .resample import over_time

FRAMES = "slices, or pooling"


def by_number(call: OpCall) -> Refused:
    """The refusal of frames that a stream would have to wait for, or has once."""
    return Refused(f"`{call.op}` chooses frames of the clip by their number", FRAMES)


@rule("aten.index_select.default", keeps_length_dependent=True)
def index_select(ctx: RuleContext, call: OpCall) -> Stream:
    """Selected indices of another dimension than time, or rows of a table that a stream selects; of time, regular indices."""
    if (frames := _regular(ctx, call, call["index"], call.get("dim"))) is not None:
        return frames
    call = ctx.lengths.materialise(call)
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
        raise by_number(call)
    return dim


@rule("aten.gather.default", "aten.take_along_dim.default", keeps_length_dependent=True)
def gather(ctx: RuleContext, call: OpCall) -> Stream:
    """Selected elements of another dimension than time, also of a table that rows share; of time, regular indices of each element."""
    x, name = call["self"], "indices" if "indices" in call.args else "index"
    if (frames := _regular(ctx, call, call[name], call.get("dim"), each=True)) is not None:
        return frames
    call = ctx.lengths.materialise(call)
    if not isinstance(x, Stream):
        like, dim = call.stream(name), call.dim(len(call.stream(name).dims))
        if like.dims[dim] != (TIME,):  # else each frame chooses from a table: a codebook, expanded to (B, codes, C)
            _other_dim(ctx, call, like)
        elif isinstance(x, Const):
            ctx.lengths.limit(like, x.value.shape[dim])
        return with_streams(ctx, call, {"self": expanded_argument(ctx, call, "self", like)}, like.dims)
    dim = _other_dim(ctx, call, x)
    index = expanded_argument(ctx, call, name, x)
    return with_streams(ctx, call, {name: index}, with_dim(x.dims, dim, index.dims[dim]))


def _regular(ctx: RuleContext, call: OpCall, index: Value, dim: Value, each: bool = False) -> Stream | None:
    """Frames at regular indices, which follow from the length of the clip; ``None`` where others are chosen.

    Args:
        ctx, call: the operation.
        index: the indices.
        dim: of the stream that is indexed.
        each: each element of a frame has an index of its own.
    """
    x = call["self"]
    if not isinstance(x, Stream) or not isinstance(index, LengthDependent) or not isinstance(dim, int) or x.windows:
        return None
    at = dim % len(x.dims)
    if x.dims[at] != (TIME,):
        return None
    samples = []
    for i in (LONGER, 0, 3, 4):  # the longest first; for most others the strides leave a rest
        found = ctx.lengths.concrete(index, i)
        if each:
            sizes = [1 if BATCH in d else ctx.shapes.size(x, j).values[i] for j, d in enumerate(x.dims)]
            found = _of_one_row(found, at, sizes, broadcast=call.op == "take_along_dim")
        samples.append((ctx.shapes.length(x.wire).values[i], found))
    regular = regular_index(samples, [at] if each else None)
    if regular is None:
        raise by_number(call)
    y = _whole(ctx, call, x, regular)
    if bool((regular.offsets == 0).all()) and (each or not regular.offsets.ndim):
        return (
            y
            if regular.step == 1
            else ctx.emit.layer(call, y, Subsample(regular.step), y.dims, label=f"every {regular.step}th frame")
        )
    offsets = _offsets(ctx, index, regular)
    return _elements(ctx, call, y, (at, regular), offsets) if each else _windows(ctx, call, y, (at, regular), offsets)


def _offsets(ctx: RuleContext, index: LengthDependent, regular: RegularIndex) -> Const:
    """The offsets as a constant of the program, which changes with the parameters that the indices are computed from."""
    emit, whole = ctx.emit, ctx.lengths.constant(index, LONGER)
    for d in range(whole.value.ndim):
        if whole.value.shape[d] != regular.offsets.unsqueeze(regular.dim).shape[d] == 1 and d != regular.dim:
            whole = emit.const("aten.narrow.default", [whole, d, 0, 1])  # all rows have the same
    middle = whole.value.shape[regular.dim] // 2
    places = emit.const("aten.select.int", [whole, regular.dim, middle])
    return emit.const("aten.sub.Scalar", [places, regular.step * middle - regular.first])


def _of_one_row(index: Tensor, at: int, sizes: Sequence[int], broadcast: bool) -> Tensor:
    """The indices of all elements of a row; nothing where rows have indices of their own, or elements have none."""
    rows = [d for d, n in enumerate(sizes) if n == 1 and d != at and d < index.ndim]
    own = index
    for d in rows:
        own = own.narrow(d, 0, 1)
    pairs = [(n, m) for d, (n, m) in enumerate(zip(own.shape, sizes, strict=False)) if d != at]
    fits = index.ndim == len(sizes) and all(n == m or (broadcast and n == 1) for n, m in pairs)
    return own if fits and bool((index == own).all()) else index.new_empty((0,) * (at + 1))


def _whole(ctx: RuleContext, call: OpCall, x: Stream, index: RegularIndex) -> Stream:
    """A stream with more frames, or fewer, at both ends."""
    first, last = (max(0, n) for n in (index.first, index.last))
    x = pad_time(ctx, call, x, (first, last), index.mode, 0.0) if first or last else x
    first, last = (max(0, -n) for n in (index.first, index.last))
    return ctx.emit.layer(call, x, Trim(first, last), x.dims, label=f"cut {first}, {last}") if first or last else x


def _unfolded(ctx: RuleContext, call: OpCall, x: Stream, index: RegularIndex) -> Stream:
    """Windows that cover all offsets, in a last dimension."""
    layer, y = UnfoldTime(index.extent, index.step), ctx.emit.unsqueeze_dummy(call, x)
    y = ctx.emit.layer(call, y, layer, (*y.dims, dim_of(index.extent)), label=f"unfold {index.extent}, {index.step}")
    return ctx.emit.squeeze_dummy(call, y, len(x.dims) + 1)


def _elements(ctx: RuleContext, call: OpCall, x: Stream, place: tuple[int, RegularIndex], offsets: Const) -> Stream:
    """One element of each window for every position in a frame."""
    (at, index), rank = place, len(x.dims)
    for d in (at, rank):
        offsets = ctx.emit.const("aten.unsqueeze.default", [offsets, d])
    y = _unfolded(ctx, call, x, index)
    y = ctx.emit.op(call, "aten.take_along_dim.default", y, (*x.dims, ()), Ref(offsets.slot), rank)
    return ctx.emit.squeeze(call, y, [rank])


def _windows(ctx: RuleContext, call: OpCall, x: Stream, place: tuple[int, RegularIndex], offsets: Const) -> Stream:
    """Some frames of each window, or all of them, in the dimensions that the indices have."""
    (at, index), emit, rank = place, ctx.emit, len(x.dims)
    y, flat = _unfolded(ctx, call, x, index), index.offsets.flatten()
    if flat.tolist() != list(range(index.extent)):
        offsets = emit.const("aten.reshape.default", [offsets, [-1]])
        y = emit.op(call, "aten.index_select.default", y, with_size(y.dims, rank, len(flat)), rank, Ref(offsets.slot))
    y = emit.reshape(call, y, (*y.dims[:-1], *fixed(index.offsets.shape)))
    before = [rank + i for i in range(index.dim)]
    behind = [rank + i for i in range(index.dim, index.offsets.ndim)]
    return emit.permute(call, y, [*range(at), *before, at, *behind, *range(at + 1, rank)])


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce", "aten.index_add", "aten.index_copy", "aten.index_fill")
def scatter(ctx: RuleContext, call: OpCall) -> Stream:
    """Elements are written, or added, at indices of another dimension than time."""
    x = call["self"]
    if not isinstance(x, Stream):
        raise Refused(f"`{call.op}` writes a stream into a constant", f"torch.zeros_like(…) of the stream, and `{call.op}` on it")
    _other_dim(ctx, call, x)
    names = [n for n in ("index", "src") if call.op.startswith("scatter") and isinstance(call.get(n), (Stream, Const))]
    return with_streams(ctx, call, {n: expanded_argument(ctx, call, n, x) for n in names}, x.dims)


@rule("aten.index.Tensor", keeps_length_dependent=True)
def index(ctx: RuleContext, call: OpCall) -> Stream:
    """Advanced indexing of other dimensions than time, by constants; of tables, by streams; of time, by regular indices."""
    indices = call.sequence("indices")
    if sum(v is not None for v in indices) == 1:
        at = next(i for i, v in enumerate(indices) if v is not None)
        if (frames := _regular(ctx, call, indices[at], at)) is not None:
            return frames
    call = ctx.lengths.materialise(call)
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
        raise by_number(call)
    return places, chosen


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(ctx: RuleContext, call: OpCall) -> Stream:
    """Every element is repeated in place; each row, and each frame of the rows, too: the copies are the minor part of the dimension."""
    x = call.stream("self")
    if call.get("dim") is None and len(x.dims) > 1:
        raise Refused("repeat_interleave without dim flattens the clip", "dim=…")
    dim, times = as_int(call.get("dim") or 0) % len(x.dims), ctx.shapes.integer(call["repeats"])
    own = x.dims[dim]
    if own == (TIME,):
        return over_time(ctx, call, x, times, "nearest")
    if TIME in own or BATCH in own:
        return ctx.emit.local(call, with_dim(x.dims, dim, (*own, *dim_of(times))), x)
    return ctx.emit.local(call, with_size(x.dims, dim, ctx.shapes.shape(x)[dim] * times), x)
