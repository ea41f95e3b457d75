"""Operations that rearrange dimensions."""

from __future__ import annotations

import math

from ..axes import BATCH, TIME, Dims, fixed, regrouped, shape_of
from ..capture import source_line
from ..instructions import Ref, Shape
from ..op_call import Call, Misfit, Refused, hint, rule
from ..values import Const, Size, Stream, Value
from ..walker import Builder
from .elementwise import lead


@rule("aten.permute.default")
def permute(b: Builder, call: Call) -> Stream:
    """Another order of the dimensions."""
    x: Stream = call["self"]
    order = [int(d) % len(x.dims) for d in call["dims"]]
    return b.local(call, tuple(x.dims[i] for i in order), x)


@rule("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default")
def transpose(b: Builder, call: Call) -> Stream:
    """Two dimensions change places."""
    x: Stream = call["self"]
    i, j = (int(v) % len(x.dims) for v in [v for n, v in call.args.items() if n != "self"])
    dims = list(x.dims)
    dims[i], dims[j] = dims[j], dims[i]
    return b.local(call, tuple(dims), x)


@rule("aten.t.default", "aten.numpy_T.default", "aten.mT.default")
def t(b: Builder, call: Call) -> Stream:
    """The last two dimensions change places."""
    x: Stream = call["self"]
    return b.local(call, (*x.dims[:-2], *x.dims[-2:][::-1]), x)


@rule("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def movedim(b: Builder, call: Call) -> Stream:
    """Dimensions go to other places."""
    x: Stream = call["self"]
    rank = len(x.dims)
    source, to = (v if isinstance(v, (list, tuple)) else [v] for v in (call["source"], call["destination"]))
    order: list[int] = [-1] * rank
    for s, d in zip(source, to, strict=True):
        order[int(d) % rank] = int(s) % rank
    rest = iter(i for i in range(rank) if i not in order)
    return b.local(call, tuple(x.dims[i if i >= 0 else next(rest)] for i in order), x)


@rule("aten.unsqueeze.default")
def unsqueeze(b: Builder, call: Call) -> Stream:
    """A new dimension of size 1."""
    x: Stream = call["self"]
    at = int(call["dim"]) % (len(x.dims) + 1)
    return b.local(call, (*x.dims[:at], (), *x.dims[at:]), x)


@rule("aten.squeeze")
def squeeze(b: Builder, call: Call) -> Value:
    """Dimensions of size 1 go."""
    x: Stream = call["self"]
    given = call.get("dim")
    rank = len(x.dims)
    chosen = range(rank) if given is None else [int(d) % rank for d in (given if isinstance(given, (list, tuple)) else [given])]
    gone = [i for i in chosen if x.dims[i] == ()]
    if any(x.dims[i] == (TIME,) and b.length(x.wire).now == 1 for i in chosen):
        from .reduce import only_frame

        return only_frame(b, call, x, gone)
    return b.local(call, tuple(d for i, d in enumerate(x.dims) if i not in gone), x, target="aten.squeeze.dims",
                   args=(Ref(x.slot), gone), kwargs={}, inputs=[x])  # fmt: skip


@rule("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.view_as.default", "aten.reshape_as.default")
def reshape(b: Builder, call: Call) -> Stream:
    """Dimensions are merged and split. Sizes in which batch or time hide are those of now."""
    x: Stream = call["self"]
    if "other" in call.args:
        return reshaped(b, call, x, list(b.shape(call["other"])))
    sizes = [Size.of(s, len(b.lengths)) for s in call.get("size", call.get("shape"))]
    made = reshaped(b, call, x, [s.now for s in sizes])
    _note_baked(b, call, x, made, sizes)
    return made


def _note_baked(b: Builder, call: Call, x: Stream, made: Stream, sizes: list[Size]) -> None:
    """Note where a reshape that asks for other sizes at another length than what was made of it: it fits the example alone."""
    if x.windows:
        return
    now, far = (shape_of(made.dims, b.batches[i], b.length(x.wire).values[i]) for i in (0, 1))
    total, asked = math.prod(far), [s.values[1] for s in sizes]
    if -1 in asked:
        asked[asked.index(-1)] = total // max(1, -math.prod(asked))
    if tuple(asked) != far:
        b.baked.append(f"`{call.op}` to {now} is what clips of {b.lengths[0]} steps alone have, at {source_line(call.node)}")


def reshaped(b: Builder, call: Call, x: Stream, wanted: list[int]) -> Stream:
    """A stream in another shape, given for the example."""
    total = math.prod(b.shape(x))
    wanted = [total // -math.prod(wanted) if s == -1 else s for s in wanted]
    dims = regrouped(x.dims, wanted, b.batches[0], b.length(x.wire).now)
    if dims is None:
        raise Misfit(
            f"`{call.op}` from {b.shape(x)} to {tuple(wanted)} splits time, or mixes it with other dimensions",
            "tensor.unfold or a strided convolution takes frames together; permute first where dimensions are to be swapped",
        )
    if dims == x.dims:
        return x
    return b.local(call, dims, x, target="aten.reshape.default", args=(Ref(x.slot), Shape(dims)), kwargs={}, inputs=[x])


@rule("aten.flatten.using_ints")
def flatten(b: Builder, call: Call) -> Stream:
    """Dimensions are merged."""
    x: Stream = call["self"]
    shape, rank = b.shape(x), len(x.dims)
    first, last = int(call["start_dim"]) % rank, int(call["end_dim"]) % rank
    return reshaped(b, call, x, [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]])


@rule("aten.unflatten.int")
def unflatten(b: Builder, call: Call) -> Stream:
    """A dimension is split."""
    x: Stream = call["self"]
    shape, dim = b.shape(x), int(call["dim"]) % len(x.dims)
    sizes = [Size.of(s, 1).now for s in call["sizes"]]
    sizes = [shape[dim] // -math.prod(sizes) if s == -1 else s for s in sizes]
    made = reshaped(b, call, x, [*shape[:dim], *sizes, *shape[dim + 1 :]])
    others = [b.size(x, i) for i in range(len(x.dims))]
    _note_baked(b, call, x, made, [*others[:dim], *(Size.of(s, len(b.lengths)) for s in call["sizes"]), *others[dim + 1 :]])
    return made


@rule("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def expand(b: Builder, call: Call) -> Stream | Const:
    """Dimensions of size 1 are repeated."""
    x: Stream | Const = call["self"]
    if "other" in call.args:
        other: Stream | Const = call["other"]
        return _expanded(b, call, x, other.dims, [x, other])
    wanted = [Size.of(s, len(b.lengths)) for s in call["size"]]
    new = len(wanted) - len(x.dims)
    dims: list[tuple[int | str, ...]] = []
    for i, size in enumerate(wanted):
        own = x.dims[i - new] if i >= new else ()
        if own or size.now in (-1, 1):
            dims.append(own)
        elif size.varies and size.values == b.batches:
            dims.append((BATCH,))
        elif size.varies:  # repeated over time: what it meets has a time there
            dims.append(())
        else:
            dims.append((size.now,))
    return _expanded(b, call, x, tuple(dims), [x])


def _expanded(b: Builder, call: Call, x: Stream | Const, dims: Dims, inputs: list[Stream | Const]) -> Stream | Const:
    if dims == x.dims:
        return x
    streams = [s for s in inputs if isinstance(s, Stream)]
    return b.local(
        call, dims, lead(streams), target="aten.expand.default", args=(Ref(x.slot), Shape(dims)), kwargs={}, inputs=streams,
        dtype=x.dtype if isinstance(x, Stream) else x.value.dtype,
    )  # fmt: skip


@rule("aten.repeat.default", "aten.tile.default")
def repeat(b: Builder, call: Call) -> Stream:
    """Dimensions are repeated one after another."""
    x: Stream = call["self"]
    times = [b.number(v, "a number of repetitions") for v in call.get("repeats", call.get("dims"))]
    times = [1] * (len(x.dims) - len(times)) + times
    new = len(times) - len(x.dims)
    own = ((),) * new + x.dims
    if any((TIME in d or BATCH in d) and r != 1 for d, r in zip(own, times, strict=True)):
        raise Refused(
            f"`{call.op}` repeats the clip (or its rows) one after another", "repeat_interleave over time, or torch.stack"
        )
    dims = tuple((d if r == 1 else (r, *d)) for d, r in zip(own, times, strict=True))
    return b.local(call, dims, x)


@rule("aten.flip.default", "aten.roll.default")
def flip(b: Builder, call: Call) -> Stream:
    """The other way round, or turned: of other axes than time."""
    x: Stream = call["self"]
    chosen = call["dims"] if isinstance(call["dims"], (list, tuple)) else [call["dims"]]
    dims = [int(d) % len(x.dims) for d in chosen] or list(range(len(x.dims)))
    for d in dims:
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
            raise Refused(f"`{call.op}` mixes the rows of the batch", "work on other dimensions")
    return b.local(call, x.dims, x)


@rule("aten.diagonal.default", "aten.diag_embed.default")
def diagonal(b: Builder, call: Call) -> Stream:
    """Diagonals of other axes than time."""
    x: Stream = call["self"]
    shape = [hint(s) for s in call.node.meta["val"].shape]
    first, second = (int(call[n]) % (len(x.dims) if call.op == "diagonal" else len(shape)) for n in ("dim1", "dim2"))
    touched = [x.dims[first], x.dims[second]] if call.op == "diagonal" else [x.dims[-1]]
    if any(TIME in d or BATCH in d for d in touched):
        raise Refused(f"`{call.op}` takes frames of the clip (or rows) by their number", "diagonals of space or channels")
    if call.op == "diagonal":
        return b.local(call, (*(d for i, d in enumerate(x.dims) if i not in (first, second)), fixed(shape[-1:])[0]), x)
    rest = iter(x.dims[:-1])
    return b.local(call, tuple(fixed((s,))[0] if i in (first, second) else next(rest) for i, s in enumerate(shape)), x)


@rule("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default", "aten.channel_shuffle.default")
def shuffled(b: Builder, call: Call) -> Stream:
    """Channels and space change places, image by image."""
    x: Stream = call["self"]
    shape, rank = b.shape(x), len(x.dims)
    touched = range(rank - 3, rank) if "pixel" in call.op else range(1, 2)
    if any(TIME in x.dims[i] or BATCH in x.dims[i] for i in touched):
        raise Refused(f"`{call.op}` takes time for channels or space", "bring time to the batch first: (B·T, C, H, W)")
    dims = list(x.dims)
    if call.op == "pixel_shuffle":
        r = int(call["upscale_factor"])
        sizes = (shape[-3] // (r * r), shape[-2] * r, shape[-1] * r)
    elif call.op == "pixel_unshuffle":
        r = int(call["downscale_factor"])
        sizes = (shape[-3] * r * r, shape[-2] // r, shape[-1] // r)
    else:
        return b.local(call, x.dims, x)
    dims[-3:] = [(s,) if s != 1 else () for s in sizes]
    return b.local(call, tuple(dims), x)
