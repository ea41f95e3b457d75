"""Slices, selected indices and splits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.fx import Node as Fx

from ....layers.delay import Trim
from ..axes import with_size
from ..end_lengths import fitted
from ..functionalise import op_of
from ..op_call import FrameByFrame, Misfit, OpCall, Refused, hint, results_of
from ..rule_context import RuleContext, rule
from ..time_layers import Subsample
from ..values import NotStreamed, Size, Stream, Value
from .conv import without_end
from .parts import is_time
from .reduce import at_frame

END = 1 << 62
SHIFT = "a shift by F.pad(x, (k, 0))[..., :-k], with zeros before the first frame; a pre-emphasis is x - a * F.pad(x, (1, 0))[..., :-1]"
SEGMENTS = "windows over all frames, x.unfold(time, size, step) or pooling; or that part of the network outside of the stream"
LIKE, SLICES = ("zeros_like", "ones_like"), ("slice", "narrow")


def from_start(index: Size, length: Size) -> Size:
    """An index of a slice, counted from the start and clipped to the length."""
    return index.combine(lambda i, n: min(max(i + n, 0) if i < 0 else i, n), length)


@rule("aten.slice.Tensor", "aten.narrow.default")
def slices(ctx: RuleContext, call: OpCall) -> Value:
    """A slice of a dimension. Over time: frames are cut off at both ends, and the rest is subsampled."""
    x = call.stream("self")
    dim, sized = call.dim(len(x.dims)), ctx.shapes.sized
    length, start, step = ctx.shapes.size(x, dim), sized(call.get("start") or 0), ctx.shapes.integer(call.get("step", 1))
    end = sized(END if call.get("end") is None else call["end"])
    if "length" in call.args:
        end = start.combine(lambda s, n: s + n, sized(call["length"]))
    first, last = from_start(start, length), from_start(end, length)
    cut = length.combine(lambda n, e: n - e, last)
    if not any(first.values) and not any(cut.values) and step == 1:
        return x
    if not is_time(ctx, call, x, dim, "takes a part of"):
        return _of_other_dim(ctx, call, x, dim, (first.now, last.now, step))
    if len({*first.values}) == 1 and last.now - first.now == 1 and _one_by_one(call, length.now):
        raise FrameByFrame
    return _of_time(ctx, call, x, dim, (first, last, cut, length), step)


def _of_other_dim(ctx: RuleContext, call: OpCall, x: Stream, dim: int, bounds: tuple[int, int, int]) -> Stream:
    first, last, _ = bounds
    dims = with_size(x.dims, dim, len(range(*bounds)))
    if x.patches is not None and x.patches[1] == dim and all(last <= lo or hi <= first for lo, hi in x.patches[2]):
        return ctx.emit.filled(call, dims, x, x.patches[0], x.dtype)  # nothing was written there
    producer = ctx.draft.sole_producer(call, x)
    trim = None if producer is None else producer.module
    if producer is not None and isinstance(trim, Trim):  # a cut of time comes last: padding behind it makes a shift of both
        before = ctx.emit.undo(producer, x)
        y = ctx.emit.op(call, "aten.slice.Tensor", before, with_size(before.dims, dim, len(range(*bounds))), dim, *bounds)
        return ctx.emit.layer(call, y, Trim(trim.first, trim.last), y.dims, label=f"cut {trim.first}, {trim.last}", fill=x.fill)
    return replace(ctx.emit.op(call, "aten.slice.Tensor", x, dims, dim, *bounds), fill=x.fill)


def _of_time(ctx: RuleContext, call: OpCall, x: Stream, dim: int, bounds: tuple[Size, Size, Size, Size], step: int) -> Value:
    first, last, cut, length = bounds
    if not first.constant:  # the last frames of the clip
        size = length.combine(lambda n, f: n - f, first)
        if size.constant and size.now == 1 and not any(cut.values):
            return at_frame(ctx, call, x, dim, first, keep=True)
        if size.values[1] != size.values[2]:
            raise Refused(
                f"cuts {first.now} of {length.now} frames off the start, a number that depends on the length of the clip",
                "a cut of a fixed number of frames at the start; at the end it may depend on the length",
            )
        raise Misfit(
            f"takes the last {size.values[1]} frames of the clip",
            "the last one alone (x[:, :, -1:]), or a window: AvgPool1d, unfold",
        )
    first_frames = _takes_first_frames(call.node, last.now - first.now, cut.now)
    if (
        not cut.constant and ctx.shapes.length_is_fixed(call, dim) and not first_frames
    ):  # the export knows one length: a cut from its end
        cut = ctx.shapes.sized(cut.now)
        if cut.now:
            ctx.draft.note(call, f"cuts {cut.now} frames from the end (the length of the example is fixed in the export)")
    if not cut.constant and not last.constant and (made := fitted(ctx, call, x, last, "cuts the end")) is not None:
        x, cut = made, ctx.shapes.sized(0)
    if len(set(cut.values[:3])) == 1:
        ctx.shapes.number(cut, "how many frames are cut off")
    if not cut.constant:
        size = last.combine(lambda e, f: e - f, first)
        reason = f"takes {_frames(first.now, last.now)} of the clip alone, which a stream has once, at its start"
        dims = with_size(x.dims, dim, max(0, size.now))
        return NotStreamed(dims, x.dtype, reason, SEGMENTS if first.now else SHIFT)
    shorter = without_end(ctx, call, x, cut.now) if cut.now and not first.now else None
    if shorter is not None:
        x = shorter
    elif first.now or cut.now:
        x = ctx.emit.layer(call, x, Trim(first.now, cut.now), x.dims, label=f"cut {first.now}, {cut.now}", fill=x.fill)
    return x if step == 1 else ctx.emit.layer(call, x, Subsample(step), x.dims, label=f"every {step}th frame", fill=x.fill)


def _takes_first_frames(node: Fx, taken: int, left: int) -> bool:
    """Whether a slice takes the first frames and is not a cut at the end, where an export with one length allows both readings.

    A module does not cut all but one frame off the end. Nor does it cut off more than it keeps to make zeros of the rest.
    """
    return taken < left and (taken == 1 or _only_for_its_shape(node))


def _only_for_its_shape(node: Fx) -> bool:
    """Whether a slice is used only to create zeros or ones of its shape."""
    users = list(node.users)
    return bool(users) and all(op_of(u) in LIKE or (op_of(u) in SLICES and _only_for_its_shape(u)) for u in users)


def _frames(first: int, end: int) -> str:
    """Frames from a start to an end, in words."""
    if not first:
        return "the first frame" if end == 1 else f"the first {end} frames"
    return f"frame {first}" if end == first + 1 else f"frames {first} … {end - 1}"


@rule("aten.select.int")
def select(ctx: RuleContext, call: OpCall) -> Stream:
    """One index of a dimension. Over time: one frame of a window of the clip's length."""
    x = call.stream("self")
    dim = call.dim(len(x.dims))
    if not is_time(ctx, call, x, dim, "takes one of"):
        return ctx.emit.local(call, (*x.dims[:dim], *x.dims[dim + 1 :]), x, fill=x.fill)
    length = ctx.shapes.size(x, dim)
    if _one_by_one(call, length.now):
        raise FrameByFrame
    index = ctx.shapes.sized(call["index"]).combine(lambda i, n: i + n if i < 0 else i, length)
    return at_frame(ctx, call, x, dim, index, keep=False)


def _one_by_one(call: OpCall, frames: int) -> bool:
    """Whether the module takes every frame of the clip by an operation of its own."""
    source, dim = _unsliced(call.node), call.node.args[1]
    alike = {
        n.args[2] for n in call.node.graph.nodes if n.target is call.node.target and n.args[1] == dim and _unsliced(n) is source
    }
    return frames > 2 and len(alike) >= frames - frames // 10  # a loop may leave out frames of padding


def _unsliced(node: Fx) -> Fx:
    """The tensor that a slice is taken from. A slice of everything counts as its source."""
    source: Any = node.args[0]
    everything = str(source.target) == "aten.slice.Tensor" and source.meta["val"].shape == source.args[0].meta["val"].shape
    return _unsliced(source) if everything else source


@rule("aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", "aten.chunk.default", "aten.unbind.int",
      "aten.tensor_split.sections", "aten.unsafe_chunk.default", "aten.unsafe_split.Tensor")  # fmt: skip
def split(ctx: RuleContext, call: OpCall) -> list[Stream]:
    """The parts of a dimension."""
    x = call.stream("self")
    dim = call.dim(len(x.dims))
    if is_time(ctx, call, x, dim, "splits"):
        if call.op == "unbind":
            raise FrameByFrame
        raise Refused(f"`{call.op}` splits the clip in time", "work on all frames, or on windows: tensor.unfold, pooling")
    if call.op == "unbind":
        dims = (*x.dims[:dim], *x.dims[dim + 1 :])
        return [ctx.emit.op(call, "aten.select.int", x, dims, dim, i) for i in range(len(results_of(call.node)))]
    found, start = [], 0
    for part in results_of(call.node):
        size = hint(part.shape[dim])
        found.append(ctx.emit.op(call, "aten.narrow.default", x, with_size(x.dims, dim, size), dim, start, size))
        start += size
    return found
