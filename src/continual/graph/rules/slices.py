"""Parts of tensors, and tensors put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ... import pads
from ...delay import Trim
from ..builder import Builder
from ..call import Call, Refused, hint, rule
from ..layers import Decimate, Surround, Taps
from ..layout import BATCH, TIME, Dim, Dims, View, joined_dims
from ..program import Ref, Shape
from ..values import Clocked, Const, Fragment, Size, Stream, Value
from .conv import without_end
from .elementwise import explicit, lead
from .reduce import at_frame

PADS: Any = {
    "constant": (None, pads.ConstantPad1d, pads.ConstantPad2d, pads.ConstantPad3d),
    "replicate": (None, pads.ReplicationPad1d, pads.ReplicationPad2d, pads.ReplicationPad3d),
    "reflect": (None, pads.ReflectionPad1d, pads.ReflectionPad2d, pads.ReflectionPad3d),
}
END = 1 << 62


def whole(size: int) -> Dim:
    """A dimension that knows neither batch nor time."""
    return (size,) if size != 1 else ()


def with_dim(dims: Dims, at: int, dim: Dim) -> Dims:
    """A layout with another dimension in one place."""
    return (*dims[:at], dim, *dims[at + 1 :])


def alone(b: Builder, call: Call, x: Stream, dim: int, what: str) -> bool:
    """Whether a dimension is time. Refuses time that is merged with others, and the batch."""
    own = x.dims[dim]
    if own == (TIME,):
        return True
    if TIME in own:
        raise Refused(f"`{call.op}` {what} time merged with another dimension", "do it before the dimensions are merged")
    if BATCH in own:
        raise Refused(f"`{call.op}` {what} the rows of the batch", "keep the batch as it is")
    return False


@rule("aten.slice.Tensor", "aten.narrow.default")
def slices(b: Builder, call: Call) -> Value:
    """A stretch of a dimension. Over time: frames cut off at the start and at the end, every so many of the rest."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    length = b.size(x, dim)
    start, step = Size.of(call.get("start") or 0, len(length.values)), b.number(call.get("step", 1))
    end = call.get("end")
    if "length" in call.args:
        end = start.combine(lambda s, n: s + n, call["length"])
    end = Size.of(END if end is None else end, len(length.values))
    first = start.combine(lambda s, n: min(max(s + n, 0) if s < 0 else s, n), length)
    last = end.combine(lambda e, n: min(max(e + n, 0) if e < 0 else e, n), length)
    cut = length.combine(lambda n, e: n - e, last)
    if not any(first.values) and not any(cut.values) and step == 1:
        return x
    if not alone(b, call, x, dim, "takes a part of"):
        size = len(range(first.now, last.now, step))
        if x.patches is not None and x.patches[1] == dim and all(last.now <= lo or hi <= first.now for lo, hi in x.patches[2]):
            out = with_dim(x.dims, dim, whole(size))  # nothing was written there
            return b.filled(call, out, x, x.patches[0], x.dtype)
        return b.local(call, with_dim(x.dims, dim, whole(size)), x, target="aten.slice.Tensor",
                       args=(Ref(x.slot), dim, first.now, last.now, step), kwargs={}, inputs=[x], fill=x.fill)  # fmt: skip
    return _stretch(b, call, x, dim, (first, last, cut, length), step)


def _stretch(b: Builder, call: Call, x: Stream, dim: int, bounds: tuple[Size, Size, Size, Size], step: int) -> Value:
    first, last, cut, length = bounds
    if not first.steady:  # the last frames of the clip
        size = length.combine(lambda n, f: n - f, first)
        if size.steady and size.now == 1 and not any(cut.values):
            return at_frame(b, call, x, dim, first.now, keep=True)
        raise Refused(
            f"takes the last {size.now} frames of the clip", "the last one alone (x[:, :, -1:]), or a window: AvgPool1d, unfold"
        )
    if not cut.steady and not b.captured.symbolic:  # the export knows one length alone: a cut from its end, then
        cut = Size.of(cut.now, len(length.values))
        if cut.now:
            b.note(call, f"cuts {cut.now} frames from the end (the length of the example is fixed in the export)")
    if not cut.steady:
        size = last.combine(lambda e, f: e - f, first)
        dims = with_dim(x.dims, dim, whole(max(0, size.now)))
        return Fragment(
            dims, x.dtype, f"takes frames {first.now} … {last.now - 1} of the clip alone, and there is one clip in a stream",
            "a cut from the end (x[:, :, :-k]), or the part of the network that uses them outside of the stream",
        )  # fmt: skip
    shorter = without_end(b, call, x, cut.now) if cut.now and not first.now else None
    if shorter is not None:
        x = shorter
    elif first.now or cut.now:
        x = b.layer(call, x, b.trim(first.now, cut.now), x.dims, label=f"cut {first.now}, {cut.now}", fill=x.fill)
    return x if step == 1 else b.layer(call, x, Decimate(step), x.dims, label=f"every {step}th frame", fill=x.fill)


@rule("aten.select.int")
def select(b: Builder, call: Call) -> Stream:
    """One index of a dimension. Over time: one frame of a window of the clip's length."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if not alone(b, call, x, dim, "takes one of"):
        return b.local(call, (*x.dims[:dim], *x.dims[dim + 1 :]), x, fill=x.fill)
    length = b.size(x, dim)
    index = Size.of(call["index"], len(length.values)).combine(lambda i, n: i + n if i < 0 else i, length)
    return at_frame(b, call, x, dim, index.now, keep=False)


@rule("aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", "aten.chunk.default", "aten.unbind.int",
      "aten.tensor_split.sections", "aten.unsafe_chunk.default", "aten.unsafe_split.Tensor")  # fmt: skip
def split(b: Builder, call: Call) -> list[Stream]:
    """A dimension in parts."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if alone(b, call, x, dim, "splits"):
        raise Refused(f"`{call.op}` splits the clip in time", "work on all frames, or on windows: tensor.unfold, pooling")
    found, start = [], 0
    for part in call.node.meta["val"]:
        shape = [hint(s) for s in part.shape]
        if call.op == "unbind":
            dims = (*x.dims[:dim], *x.dims[dim + 1 :])
            found.append(b.local(call, dims, x, target="aten.select.int", args=(Ref(x.slot), dim, start), kwargs={}, inputs=[x]))
            start += 1
            continue
        size = shape[dim]
        args = (Ref(x.slot), dim, start, size)
        found.append(
            b.local(call, with_dim(x.dims, dim, whole(size)), x, target="aten.narrow.default", args=args, kwargs={}, inputs=[x])
        )
        start += size
    return found


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
    if rest is None or any(BATCH in v.dims[dim] for v in values):
        raise Refused("`cat` joins tensors whose dimensions do not fit, or the rows of batches", "reshape one of them")
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
        raise Refused("`stack` joins tensors whose dimensions do not fit", "reshape one of them")
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
        raise Refused("`cat` over time merged with another dimension", "do it before the dimensions are merged")
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
        raise Refused("`cat` over time joins constants whose dimensions are not those of the stream", "reshape them")
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


@rule("aten.pad.default", "aten.constant_pad_nd.default")
def pad(b: Builder, call: Call) -> Stream:
    """Padding of space on every frame, of time by a streaming layer."""
    x: Stream = call["self"]
    mode, value = call.get("mode", "constant"), call.get("value")
    amounts = [b.number(p, "the padding") for p in call["pad"]]
    rank, pairs = len(x.dims), {len(x.dims) - 1 - i: (amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2)}
    time = next((d for d, p in pairs.items() if any(p) and alone(b, call, x, d, "pads")), None)
    if time is not None and mode == "circular":
        raise Refused(
            "pads time with frames from the other end of the clip (circular), which a stream has not seen",
            "padding by zeros or 'replicate'",
        )
    if time is not None and mode not in PADS:
        raise Refused(f"pads time by mode {mode!r}", "'constant', 'replicate' or 'reflect'")
    space = {d: p for d, p in pairs.items() if d != time and any(p)}
    if space:
        flat = [v for i in range(len(amounts) // 2) for v in space.get(rank - 1 - i, (0, 0))]
        dims = tuple(whole(s + sum(space[d])) if d in space else x.dims[d] for d, s in enumerate(b.shape(x)))
        args = (Ref(x.slot), flat, mode, value) if call.op == "pad" else (Ref(x.slot), flat, value or 0)
        x = b.local(call, dims, x, args=args, kwargs={}, inputs=[x])
    return (
        x
        if time is None
        else pad_time(b, call, x, pairs[time], mode, 0.0 if value is None else b.number(value, "the padding's value"))
    )


def pad_time(b: Builder, call: Call, x: Stream, amounts: tuple[int, int], mode: str, value: float) -> Stream:
    """Padding of time."""
    maker = b.maker(call, x) if mode == "constant" else None
    if (
        maker is not None
        and isinstance(maker.module, Trim)
        and not any(a and c for a, c in zip(amounts, (maker.module.first, maker.module.last)))
    ):
        amounts = (
            amounts[0] - maker.module.first,
            amounts[1] - maker.module.last,
        )  # a shift: in one layer, and without delay if it can
        x = b.undo(maker, x)
    n = max(1, len(View(x.dims).order) - 2)
    if n > 3:
        raise Refused("pads time of a tensor of more than 5 dimensions", "merge dimensions before")
    flat = (*(0,) * 2 * (n - 1), *amounts)
    layer = PADS[mode][n](flat, float(value)) if mode == "constant" else PADS[mode][n](flat)
    return b.layer(
        call, x, layer, x.dims, label=f"pad {amounts[0]}, {amounts[1]} ({mode})", fill=x.fill if x.fill == value else None
    )


@rule("aten.unfold.default")
def unfold(b: Builder, call: Call) -> Stream:
    """Sliding windows in a new last dimension."""
    x: Stream = call["self"]
    dim, size, step = int(call["dimension"]) % len(x.dims), int(call["size"]), int(call["step"])
    if alone(b, call, x, dim, "slides over"):
        x = b.roomy(call, x)
        return b.snug(
            call,
            b.layer(call, x, Taps(size, step), (*x.dims, whole(size)), label=f"unfold {size}, {step}"),
            len(call["self"].dims) + 1,
        )
    count = (b.shape(x)[dim] - size) // step + 1
    return b.local(call, (*with_dim(x.dims, dim, whole(count)), whole(size)), x)


@rule("aten.slice_scatter.default", "aten.select_scatter.default", keeps_clocked=True)
def scatter(b: Builder, call: Call) -> Stream:
    """A part of a tensor is written. Over time: frames of one value are left at the ends."""
    x, src = call["self"], call["src"]
    if isinstance(x, Clocked) and isinstance(src, Stream):
        return _into_constant(b, call, x, src)
    if isinstance(x, Const) or not isinstance(src, Stream) or not isinstance(x, Stream):
        raise Refused("writes a stream into a constant, or a constant into a part of a stream", "torch.cat or torch.where")
    dim = int(call["dim"]) % len(x.dims)
    length = b.size(x, dim)
    if call.op == "select_scatter":
        if alone(b, call, x, dim, "writes a part of"):
            raise Refused("writes single frames of the clip", "torch.cat over time with constants, or torch.where")
        call = b.together(call)
        return b.local(call, x.dims, lead(call.streams))
    first, cut = _ends(call, length)
    step = b.number(call.get("step", 1))
    if not any(first.values) and not any(cut.values) and step == 1:
        return src
    if not alone(b, call, x, dim, "writes a part of"):
        value, stretches = (x.fill, ()) if x.fill is not None else (x.patches[0], x.patches[2]) if x.patches else (None, ())
        call = b.together(call)
        y = b.local(call, x.dims, lead(call.streams))
        return y if value is None else replace(y, patches=(value, dim, (*stretches, (first.now, length.now - cut.now))))
    if step != 1:
        raise Refused("writes every other frame of the clip", "torch.where, or transposed convolution")
    if x.fill is None or not first.steady or not cut.steady:
        raise Refused("writes frames into a part of another stream", "torch.cat over time with constants, or torch.where")
    return pad_time(b, call, src, (first.now, cut.now), "constant", x.fill)


def _ends(call: Call, length: Size) -> tuple[Size, Size]:
    """How much a slice leaves at the start and at the end of a dimension."""
    start = Size.of(call.get("start") or 0, len(length.values))
    end = Size.of(END if call.get("end") is None else call["end"], len(length.values))
    first = start.combine(lambda s, n: min(max(s + n, 0) if s < 0 else s, n), length)
    return first, end.combine(lambda e, n: n - min(max(e + n, 0) if e < 0 else e, n), length)


def _into_constant(b: Builder, call: Call, x: Clocked, src: Stream) -> Stream:
    """A stream is written into what depends on the clip's length alone: ``torch.zeros(b, c, t)``."""
    dim = int(call["dim"]) % len(src.dims)
    if call.op == "select_scatter" or src.dims[dim] != (TIME,):
        made = b.clocked_stream(x.node, src)
        return scatter(b, replace(call, args=call.args | {"self": made}))
    value = b.concrete(x).flatten()
    first, cut = _ends(call, b.mutations.size_of_clocked(x, dim))
    if not value.numel() or bool((value != value[0]).any()) or not first.steady or not cut.steady:
        raise Refused("writes frames into a part of a table", "torch.cat over time with constants, or torch.where")
    return pad_time(b, call, src, (first.now, cut.now), "constant", float(value[0]))


@rule("aten.index_select.default", "aten.gather.default", "aten.take_along_dim.default")
def index_select(b: Builder, call: Call) -> Stream:
    """Chosen indices of another axis than time."""
    x = call["self"]
    index = call.get("index", call.get("indices"))
    if not isinstance(x, Stream):
        if call.op == "index_select" and isinstance(index, Stream):
            dim = int(call["dim"]) % len(x.dims)
            return b.local(call, (*x.dims[:dim], index.dims[0], *x.dims[dim + 1 :]), index)
        raise Refused(f"`{call.op}` chooses from a constant by a stream", "embedding")
    dim = int(call["dim"]) % len(x.dims)
    if alone(b, call, x, dim, "chooses from"):
        raise Refused(f"`{call.op}` chooses frames of the clip by their number", "slices, or pooling")
    dims = with_dim(x.dims, dim, index.dims[dim] if call.op != "index_select" else whole(b.shape(index)[0] if index.dims else 1))
    return b.local(call, dims, x)


@rule("aten.index.Tensor")
def index(b: Builder, call: Call) -> Stream:
    """Advanced indexing of other axes than time, by constants."""
    x, indices = call["self"], call["indices"]
    given = [(i, v) for i, v in enumerate(indices) if v is not None]
    if isinstance(x, Const) and len(given) == 1 and isinstance(given[0][1], Stream):
        at, chosen = given[0]
        return b.local(call, (*x.dims[:at], *chosen.dims, *x.dims[at + 1 :]), chosen)
    if not isinstance(x, Stream) or len(given) != 1 or not isinstance(given[0][1], Const):
        raise Refused("indexing by several tensors, or by values of the stream", "torch.gather, torch.where, or embedding")
    at, chosen = given[0]
    if alone(b, call, x, at, "chooses from"):
        raise Refused("`index` chooses frames of the clip by their number", "slices, or pooling")
    return b.local(call, (*x.dims[:at], *chosen.dims, *x.dims[at + 1 :]), x)


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(b: Builder, call: Call) -> Stream:
    """Every element several times."""
    x: Stream = call["self"]
    if call.get("dim") is None:
        raise Refused("repeat_interleave without dim flattens the clip", "dim=…")
    dim, times = int(call["dim"]) % len(x.dims), b.number(call["repeats"])
    if not alone(b, call, x, dim, "repeats"):
        return b.local(call, with_dim(x.dims, dim, whole(b.shape(x)[dim] * times)), x)
    from .resample import over_time

    return over_time(b, call, x, times, "nearest")
