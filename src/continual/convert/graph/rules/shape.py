"""Operations that rearrange dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..axes import BATCH, TIME, Dim, Dims, dim_of, fixed, frames_together, grouped, regrouped, shape_of
from ..capture import source_line
from ..op_call import Misfit, OpCall, Refused, RowsMixed, result_shape
from ..rule_context import RuleContext, rule
from ..shape_queries import FARTHER, LONGER
from ..values import Size, Stream, TensorValue, Value, as_int
from .elementwise import lead
from .reduce import only_frame

Sample = tuple[int, int, list[int]]  # a batch size, a number of frames, and the sizes of a reshape


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
    """Dimensions are merged and split; where time is split, frames are taken together. The program uses the current sizes."""
    x = call.stream("self")
    if "other" in call.args:
        return reshaped(ctx, call, x, _sizes(ctx, call.tensor("other")))
    return reshaped(ctx, call, x, [ctx.shapes.sized(s) for s in call.sequence("size" if "size" in call.args else "shape")])


def reshaped(ctx: RuleContext, call: OpCall, x: Stream, sizes: Sequence[Size]) -> Stream:
    """A stream in another shape."""
    samples = _fitting(ctx, x, sizes)
    fixed = ctx.shapes.clip_is_fixed
    # Where the export knows all lengths, sizes that fit the example alone may as well count segments of the clip.
    tried = (_regrouped(ctx, x, s, fixed or (i == 0 and len(samples) > 1)) for i, s in enumerate(samples))
    found = next(filter(None, tried), None)
    if found is None:
        raise Misfit(
            f"`{call.op}` from {ctx.shapes.shape(x)} to {tuple(samples[-1][2])} splits time, or mixes it with other dimensions",
            "tensor.unfold or a strided convolution takes frames together; permute first where dimensions are to be swapped",
        )
    if len(samples) == 1 and not x.windows and ctx.shapes.length(x.wire).varies:
        place, steps = source_line(call.node), ctx.shapes.lengths[0]
        ctx.draft.baked.append(f"`{call.op}` to {tuple(samples[0][2])} is what clips of {steps} steps alone have, at {place}")
    dims, together = found
    if together == 1:
        return ctx.emit.reshape(call, x, dims)
    if any(frames % together for frames in ctx.shapes.length(x.wire).values):
        ctx.draft.note(call, f"takes {together} frames together: clips have to be of lengths that give whole groups")
        ctx.draft.divided = True
    return ctx.emit.reshape(call, ctx.groups.together(call, x, together), dims)


def _regrouped(ctx: RuleContext, x: Stream, sample: Sample, groups: bool) -> tuple[Dims, int] | None:
    """The layout for the sizes of a reshape, and how many frames it takes together, if there may be such groups."""
    batch, time, target = sample
    together, example = frames_together(x.dims, target, batch, time), ctx.shapes.length(x.wire).now
    if not groups or example % together or example == together:  # a group of all the example's frames is the clip
        together = 1
    dims = regrouped(grouped(x.dims, together), target, batch, time // together)
    if dims is None or (together > 1 and any(TIME in d and BATCH not in d and d[0] != TIME for d in dims)):
        return None  # parts of channels would become time: rows and columns that were not swapped
    return dims, together


def _sizes(ctx: RuleContext, x: TensorValue) -> list[Size]:
    return [ctx.shapes.size(x, i) for i in range(len(x.dims))]


def _fitting(ctx: RuleContext, x: Stream, sizes: Sequence[Size]) -> list[Sample]:
    """Batch size, frames and the sizes of a reshape without -1, for lengths at which they fit the stream: the example's comes last.

    On a long clip no other size is that of time.
    """
    found, times = [], ctx.shapes.length(x.wire).values
    for i in (0,) if x.windows else (FARTHER, LONGER, 0):
        total, target = math.prod(shape_of(x.dims, ctx.shapes.batches[i], times[i])), [size.values[i] for size in sizes]
        if -1 in target:
            target[target.index(-1)] = total // max(1, -math.prod(target))
        if math.prod(target) == total or i == 0:
            found.append((ctx.shapes.batches[i], times[i], target))
    return found


@rule("aten.flatten.using_ints")
def flatten(ctx: RuleContext, call: OpCall) -> Stream:
    """Dimensions are merged."""
    x = call.stream("self")
    sizes, rank = _sizes(ctx, x), len(x.dims)
    first, last = call.dim(rank, "start_dim"), call.dim(rank, "end_dim")
    whole = sizes[first].combine(lambda *n: math.prod(n), *sizes[first + 1 : last + 1])
    return reshaped(ctx, call, x, [*sizes[:first], whole, *sizes[last + 1 :]])


@rule("aten.unflatten.int")
def unflatten(ctx: RuleContext, call: OpCall) -> Stream:
    """A dimension is split."""
    x = call.stream("self")
    sizes, dim = _sizes(ctx, x), call.dim(len(x.dims))
    return reshaped(ctx, call, x, [*sizes[:dim], *map(ctx.shapes.sized, call.sequence("sizes")), *sizes[dim + 1 :]])


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
    x, name = call.stream("self"), "repeats" if "repeats" in call.args else "dims"
    repeats = [1] * (len(x.dims) - len(call.sequence(name))) + call.sequence(name)
    own = ((),) * (len(repeats) - len(x.dims)) + x.dims
    if rows := {i: d for i, v in enumerate(repeats) if not own[i] and (d := _of_rows(ctx, v, x)) is not None}:
        x = ctx.emit.expand(call, x, tuple(rows.get(i, d) for i, d in enumerate(own)), [x], x)
        repeats = [1 if i in rows else v for i, v in enumerate(repeats)]
        return x if repeats == [1] * len(repeats) else repeat(ctx, call.with_args(self=x, **{name: repeats}))
    times = [ctx.shapes.integer(v, "a number of repetitions") for v in repeats]
    if any((TIME in d or BATCH in d) and r != 1 for d, r in zip(own, times, strict=True)):
        raise Refused(
            f"`{call.op}` repeats the clip (or its rows) one after another", "repeat_interleave over time, or torch.stack"
        )
    return ctx.emit.local(call, tuple((d if r == 1 else (r, *d)) for d, r in zip(own, times, strict=True)), x)


def _of_rows(ctx: RuleContext, times: Value, x: Stream) -> Dim | None:
    """The layout of as many entries as there are rows, or some for each row; ``None`` for other numbers."""
    size = ctx.shapes.sized(times)
    if not size.varies or any(BATCH in d for d in x.dims):
        return None
    (found,) = ctx.shapes.layout([size], x.wire)
    return found if BATCH in found and TIME not in found else None


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


@rule("aten.channel_shuffle.default")
def channel_shuffle(ctx: RuleContext, call: OpCall) -> Stream:
    """Channels change places."""
    x = call.stream("self")
    if TIME in x.dims[1] or BATCH in x.dims[1]:
        raise Refused("`channel_shuffle` takes time for channels", "bring time to the batch first: (B·T, C, H, W)")
    return ctx.emit.local(call, x.dims, x)


@rule("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default")
def pixel_shuffle(ctx: RuleContext, call: OpCall) -> Stream:
    """Channels become pixels, and back. A row or a column of pixels may be time."""
    x, back = call.stream("self"), call.op == "pixel_unshuffle"
    factor = call.integer("downscale_factor" if back else "upscale_factor")
    if TIME in x.dims[-3] or any(BATCH in d for d in x.dims[-3:]):
        raise Refused(f"`{call.op}` takes time, or rows, for channels", "bring time to the batch first: (B·T, C, H, W)")
    *first, channels, rows, columns = _sizes(ctx, x)
    if back:
        sizes = [
            channels.combine(lambda n: n * factor**2),
            rows.combine(lambda n: n // factor),
            columns.combine(lambda n: n // factor),
        ]
    else:
        sizes = [channels.combine(lambda n: n // factor**2), rows, columns]
    if not any(TIME in d for d in x.dims[-2:]):
        grown = [n * (1 if back else factor) for n in (sizes[1].now, sizes[2].now)]
        return ctx.emit.local(call, (*x.dims[:-3], *fixed((sizes[0].now, *grown))), x)
    r, rank = ctx.shapes.sized(factor), len(x.dims)
    if back:
        y = reshaped(ctx, call, x, [*first, channels, sizes[1], r, sizes[2], r])
        y = ctx.emit.permute(call, y, [*range(rank - 2), rank - 1, rank + 1, rank - 2, rank])
        return reshaped(ctx, call, y, [*first, *sizes])
    y = reshaped(ctx, call, x, [*first, sizes[0], r, r, *sizes[1:]])
    y = ctx.emit.permute(call, y, [*range(rank - 2), rank, rank - 2, rank + 1, rank - 1])
    height, width = ((*y.dims[i], *dim_of(factor)) for i in (rank - 2, rank))
    return ctx.emit.reshape(call, y, (*y.dims[: rank - 2], height, width))
