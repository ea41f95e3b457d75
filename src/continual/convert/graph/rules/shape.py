"""Operations that rearrange dimensions."""

from __future__ import annotations

import math

from ..axes import BATCH, TIME, Dim, Dims, dim_of, fixed, regrouped, shape_of
from ..capture import source_line
from ..op_call import Misfit, OpCall, Refused, RowsMixed, result_shape
from ..rule_context import RuleContext, rule
from ..values import Size, Stream, TensorValue, as_int
from .elementwise import lead
from .reduce import only_frame


@rule("aten.permute.default")
def permute(ctx: RuleContext, call: OpCall) -> Stream:
    """Another order of the dimensions."""
    x = call.stream("self")
    return ctx.emit.local(call, tuple(x.dims[d % len(x.dims)] for d in call.integers("dims")), x)


@rule("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default")
def transpose(ctx: RuleContext, call: OpCall) -> Stream:
    """Two dimensions change places."""
    x = call.stream("self")
    i, j = (as_int(v) % len(x.dims) for n, v in call.args.items() if n != "self")
    dims = list(x.dims)
    dims[i], dims[j] = dims[j], dims[i]
    return ctx.emit.local(call, tuple(dims), x)


@rule("aten.t.default", "aten.numpy_T.default", "aten.mT.default")
def transpose_last(ctx: RuleContext, call: OpCall) -> Stream:
    """The last two dimensions change places."""
    x = call.stream("self")
    return ctx.emit.local(call, (*x.dims[:-2], *x.dims[-2:][::-1]), x)


@rule("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def movedim(ctx: RuleContext, call: OpCall) -> Stream:
    """Dimensions go to other places."""
    x = call.stream("self")
    rank = len(x.dims)
    order = [-1] * rank
    for source, destination in zip(call.integers("source"), call.integers("destination"), strict=True):
        order[destination % rank] = source % rank
    rest = iter(i for i in range(rank) if i not in order)
    return ctx.emit.local(call, tuple(x.dims[i if i >= 0 else next(rest)] for i in order), x)


@rule("aten.unsqueeze.default")
def unsqueeze(ctx: RuleContext, call: OpCall) -> Stream:
    """A new dimension of size 1."""
    x = call.stream("self")
    at = call.dim(len(x.dims) + 1)
    return ctx.emit.local(call, (*x.dims[:at], (), *x.dims[at:]), x)


@rule("aten.squeeze")
def squeeze(ctx: RuleContext, call: OpCall) -> Stream:
    """Dimensions of size 1 are dropped."""
    x = call.stream("self")
    rank = len(x.dims)
    chosen = range(rank) if call.get("dim") is None else [d % rank for d in call.integers("dim")]
    gone = [i for i in chosen if x.dims[i] == ()]
    if any(x.dims[i] == (TIME,) and ctx.shapes.length(x.wire).now == 1 for i in chosen):
        return only_frame(ctx, call, x, gone)
    dims = tuple(d for i, d in enumerate(x.dims) if i not in gone)
    return ctx.emit.op(call, "aten.squeeze.dims", x, dims, gone)


@rule("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.view_as.default", "aten.reshape_as.default")
def reshape(ctx: RuleContext, call: OpCall) -> Stream:
    """Dimensions are merged and split. The program uses the current sizes of batch and time."""
    x = call.stream("self")
    if "other" in call.args:
        return reshaped(ctx, call, x, list(ctx.shapes.shape(call.tensor("other"))))
    sizes = [ctx.shapes.sized(s) for s in call.sequence("size" if "size" in call.args else "shape")]
    made = reshaped(ctx, call, x, [s.now for s in sizes])
    _note_baked(ctx, call, x, made, sizes)
    return made


def _note_baked(ctx: RuleContext, call: OpCall, x: Stream, made: Stream, sizes: list[Size]) -> None:
    """Record a reshape whose sizes, for another length, do not fit its layout: the layout fits the example alone."""
    if x.windows:
        return
    shapes = ctx.shapes
    now, far = (shape_of(made.dims, shapes.batches[i], shapes.length(x.wire).values[i]) for i in (0, 1))
    total, asked = math.prod(far), [s.values[1] for s in sizes]
    if -1 in asked:
        asked[asked.index(-1)] = total // max(1, -math.prod(asked))
    if tuple(asked) != far:
        place = source_line(call.node)
        ctx.draft.baked.append(f"`{call.op}` to {now} is what clips of {shapes.lengths[0]} steps alone have, at {place}")


def reshaped(ctx: RuleContext, call: OpCall, x: Stream, wanted: list[int]) -> Stream:
    """A stream in another shape, which is given for the example."""
    shape = ctx.shapes.shape(x)
    wanted = [math.prod(shape) // -math.prod(wanted) if s == -1 else s for s in wanted]
    dims = regrouped(x.dims, wanted, ctx.shapes.batches[0], ctx.shapes.length(x.wire).now)
    if dims is None:
        raise Misfit(
            f"`{call.op}` from {shape} to {tuple(wanted)} splits time, or mixes it with other dimensions",
            "tensor.unfold or a strided convolution takes frames together; permute first where dimensions are to be swapped",
        )
    return ctx.emit.reshape(call, x, dims)


@rule("aten.flatten.using_ints")
def flatten(ctx: RuleContext, call: OpCall) -> Stream:
    """Dimensions are merged."""
    x = call.stream("self")
    shape, rank = ctx.shapes.shape(x), len(x.dims)
    first, last = call.dim(rank, "start_dim"), call.dim(rank, "end_dim")
    return reshaped(ctx, call, x, [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]])


@rule("aten.unflatten.int")
def unflatten(ctx: RuleContext, call: OpCall) -> Stream:
    """A dimension is split."""
    x = call.stream("self")
    shape, dim = ctx.shapes.shape(x), call.dim(len(x.dims))
    given = [ctx.shapes.sized(s) for s in call.sequence("sizes")]
    sizes = [s.now for s in given]
    sizes = [shape[dim] // -math.prod(sizes) if s == -1 else s for s in sizes]
    made = reshaped(ctx, call, x, [*shape[:dim], *sizes, *shape[dim + 1 :]])
    own = [ctx.shapes.size(x, i) for i in range(len(x.dims))]
    _note_baked(ctx, call, x, made, [*own[:dim], *given, *own[dim + 1 :]])
    return made


@rule("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def expand(ctx: RuleContext, call: OpCall) -> TensorValue:
    """Dimensions of size 1 are repeated."""
    x = call.tensor("self")
    if "other" in call.args:
        other = call.tensor("other")
        return _expanded(ctx, call, x, other.dims, [x, other])
    wanted = [ctx.shapes.sized(s) for s in call.sequence("size")]
    new, dims = len(wanted) - len(x.dims), list[Dim]()
    for i, size in enumerate(wanted):
        own = x.dims[i - new] if i >= new else ()
        if own or size.now in (-1, 1):
            dims.append(own)
        elif size.varies and size.values == ctx.shapes.batches:
            dims.append((BATCH,))
        elif size.varies:  # repeated over time: it broadcasts against the frames that it meets
            dims.append(())
        else:
            dims.append((size.now,))
    return _expanded(ctx, call, x, tuple(dims), [x])


def _expanded(ctx: RuleContext, call: OpCall, x: TensorValue, dims: Dims, inputs: list[TensorValue]) -> TensorValue:
    if dims == x.dims:
        return x
    streams = [s for s in inputs if isinstance(s, Stream)]
    return ctx.emit.expand(call, x, dims, streams, lead(streams))


@rule("aten.repeat.default", "aten.tile.default")
def repeat(ctx: RuleContext, call: OpCall) -> Stream:
    """Dimensions are repeated as a whole."""
    x = call.stream("self")
    times = [
        ctx.shapes.integer(v, "a number of repetitions") for v in call.sequence("repeats" if "repeats" in call.args else "dims")
    ]
    times = [1] * (len(x.dims) - len(times)) + times
    own = ((),) * (len(times) - len(x.dims)) + x.dims
    if any((TIME in d or BATCH in d) and r != 1 for d, r in zip(own, times, strict=True)):
        raise Refused(
            f"`{call.op}` repeats the clip (or its rows) one after another", "repeat_interleave over time, or torch.stack"
        )
    return ctx.emit.local(call, tuple((d if r == 1 else (r, *d)) for d, r in zip(own, times, strict=True)), x)


@rule("aten.flip.default", "aten.roll.default")
def flip(ctx: RuleContext, call: OpCall) -> Stream:
    """Reversal and rotation of other dimensions than time."""
    x = call.stream("self")
    for d in [d % len(x.dims) for d in call.integers("dims")] or range(len(x.dims)):
        if TIME in x.dims[d]:
            if call.op == "flip":
                raise Refused(
                    "flips the clip in time: its first output is the last frame, which a stream has not seen",
                    "run backward branches on clips of the past, or leave them out",
                )
            raise Refused(
                "rolls the clip in time: frames that leave at one end come in at the other, which a stream has not seen",
                "shift with zeros: torch.cat((zeros, x[:, :, :-1]), 2)",
            )
        if BATCH in x.dims[d]:
            raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "work on other dimensions")
    return ctx.emit.local(call, x.dims, x)


@rule("aten.diagonal.default", "aten.diag_embed.default")
def diagonal(ctx: RuleContext, call: OpCall) -> Stream:
    """Diagonals of other dimensions than time."""
    x, shape, takes = call.stream("self"), result_shape(call.node), call.op == "diagonal"
    rank = len(x.dims) if takes else len(shape)
    first, second = call.dim(rank, "dim1"), call.dim(rank, "dim2")
    touched = [x.dims[first], x.dims[second]] if takes else [x.dims[-1]]
    if any(TIME in d or BATCH in d for d in touched):
        raise Refused(f"`{call.op}` takes frames of the clip (or rows) by their number", "diagonals of space or channels")
    if takes:
        return ctx.emit.local(call, (*(d for i, d in enumerate(x.dims) if i not in (first, second)), dim_of(shape[-1])), x)
    rest, sizes = iter(x.dims[:-1]), fixed(shape)
    return ctx.emit.local(call, tuple(d if i in (first, second) else next(rest) for i, d in enumerate(sizes)), x)


@rule("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default", "aten.channel_shuffle.default")
def shuffle(ctx: RuleContext, call: OpCall) -> Stream:
    """Channels and space change places, image by image."""
    x = call.stream("self")
    shape, rank = ctx.shapes.shape(x), len(x.dims)
    touched = range(rank - 3, rank) if "pixel" in call.op else range(1, 2)
    if any(TIME in x.dims[i] or BATCH in x.dims[i] for i in touched):
        raise Refused(f"`{call.op}` takes time for channels or space", "bring time to the batch first: (B·T, C, H, W)")
    if call.op == "channel_shuffle":
        return ctx.emit.local(call, x.dims, x)
    if call.op == "pixel_shuffle":
        r = call.integer("upscale_factor")
        sizes = (shape[-3] // (r * r), shape[-2] * r, shape[-1] * r)
    else:
        r = call.integer("downscale_factor")
        sizes = (shape[-3] * r * r, shape[-2] // r, shape[-1] // r)
    return ctx.emit.local(call, (*x.dims[:-3], *fixed(sizes)), x)
