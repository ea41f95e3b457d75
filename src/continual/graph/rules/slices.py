"""Parts of tensors."""

from __future__ import annotations

from typing import Any

from torch.fx import Node as Fx

from ..builder import Builder
from ..call import Call, Misfit, Refused, hint, rule
from ..layers import Decimate
from ..mutation import op_of
from ..program import Ref
from ..values import Fragment, Size, Stream, Value
from .conv import without_end
from .parts import alone, whole, with_dim
from .reduce import at_frame

END = 1 << 62
SHIFT = "a shift by F.pad(x, (k, 0))[..., :-k], with zeros before the first frame; a pre-emphasis is x - a * F.pad(x, (1, 0))[..., :-1]"
SEGMENTS = "windows over all frames, x.unfold(time, size, step) or pooling; or that part of the network outside of the stream"
LIKE, PARTS = ("zeros_like", "ones_like"), ("slice", "narrow")
LOOP = (
    "takes the frames of the clip one by one, in a loop: as many operations as the example has frames",
    "operations on all frames at once; nn.LSTM, nn.GRU or nn.RNN instead of a loop over cells",
)


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
    if len({*first.values}) == 1 and last.now - first.now == 1 and _one_by_one(call, length.now):
        raise Refused(*LOOP)
    return _stretch(b, call, x, dim, (first, last, cut, length), step)


def _stretch(b: Builder, call: Call, x: Stream, dim: int, bounds: tuple[Size, Size, Size, Size], step: int) -> Value:
    first, last, cut, length = bounds
    if not first.steady:  # the last frames of the clip
        size = length.combine(lambda n, f: n - f, first)
        if size.steady and size.now == 1 and not any(cut.values):
            return at_frame(b, call, x, dim, first.now, keep=True)
        raise Misfit(
            f"takes the last {size.values[1]} frames of the clip",
            "the last one alone (x[:, :, -1:]), or a window: AvgPool1d, unfold",
        )
    if not cut.steady and b.length_is_fixed(call, dim) and not _few(call.node, last.now - first.now, cut.now):
        # the export knows one length alone: a cut from its end, then
        cut = Size.of(cut.now, len(length.values))
        if cut.now:
            b.note(call, f"cuts {cut.now} frames from the end (the length of the example is fixed in the export)")
    if len(set(cut.values[:3])) == 1:
        b.number(cut, "how many frames are cut off")
    if not cut.steady:
        size = last.combine(lambda e, f: e - f, first)
        dims = with_dim(x.dims, dim, whole(max(0, size.now)))
        return Fragment(
            dims, x.dtype, f"takes {_which(first.now, last.now)} of the clip alone, which a stream has once, at its start",
            SHIFT if not first.now else SEGMENTS,
        )  # fmt: skip
    shorter = without_end(b, call, x, cut.now) if cut.now and not first.now else None
    if shorter is not None:
        x = shorter
    elif first.now or cut.now:
        x = b.layer(call, x, b.trim(first.now, cut.now), x.dims, label=f"cut {first.now}, {cut.now}", fill=x.fill)
    return x if step == 1 else b.layer(call, x, Decimate(step), x.dims, label=f"every {step}th frame", fill=x.fill)


def _few(node: Fx, taken: int, left: int) -> bool:
    """Whether the first frames are taken and not a cut made at the end, where an export could say both.

    Nobody cuts all but one frame off the end; nor more than is left, for zeros as long as that.
    """
    return taken < left and (taken == 1 or _for_its_shape(node))


def _for_its_shape(node: Fx) -> bool:
    """Whether zeros or ones of its shape are all that is made of a part."""
    users = list(node.users)
    return bool(users) and all(op_of(u) in LIKE or (op_of(u) in PARTS and _for_its_shape(u)) for u in users)


def _which(first: int, end: int) -> str:
    """Frames from a start to an end, in words."""
    if not first:
        return "the first frame" if end == 1 else f"the first {end} frames"
    return f"frame {first}" if end == first + 1 else f"frames {first} … {end - 1}"


@rule("aten.select.int")
def select(b: Builder, call: Call) -> Stream:
    """One index of a dimension. Over time: one frame of a window of the clip's length."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if not alone(b, call, x, dim, "takes one of"):
        return b.local(call, (*x.dims[:dim], *x.dims[dim + 1 :]), x, fill=x.fill)
    length = b.size(x, dim)
    if _one_by_one(call, length.now):
        raise Refused(*LOOP)
    index = Size.of(call["index"], len(length.values)).combine(lambda i, n: i + n if i < 0 else i, length)
    return at_frame(b, call, x, dim, index.now, keep=False)


def _one_by_one(call: Call, frames: int) -> bool:
    """Whether every frame of the clip is taken by an operation of its own."""
    source, dim = _uncut(call.node), call.node.args[1]
    alike = {
        n.args[2] for n in call.node.graph.nodes if n.target is call.node.target and n.args[1] == dim and _uncut(n) is source
    }
    return frames > 2 and len(alike) >= frames - frames // 10  # a loop may leave out frames that were padded


def _uncut(node: Fx) -> Fx:
    """What a slice is taken from, if not all of it."""
    source: Any = node.args[0]
    whole = str(source.target) == "aten.slice.Tensor" and source.meta["val"].shape == source.args[0].meta["val"].shape
    return _uncut(source) if whole else source


@rule("aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", "aten.chunk.default", "aten.unbind.int",
      "aten.tensor_split.sections", "aten.unsafe_chunk.default", "aten.unsafe_split.Tensor")  # fmt: skip
def split(b: Builder, call: Call) -> list[Stream]:
    """A dimension in parts."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if alone(b, call, x, dim, "splits"):
        if call.op == "unbind":
            raise Refused(*LOOP)
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
