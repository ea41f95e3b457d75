"""Padding, and sliding windows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from ....core.module import CoModule
from ....layers import padding as pads
from ....layers.delay import Trim
from ..axes import View, dim_of, with_size
from ..end_lengths import fitted
from ..op_call import OpCall, Refused
from ..rule_context import RuleContext, rule
from ..time_layers import UnfoldTime
from ..values import Stream, Value
from .parts import is_time

PADS: dict[str, tuple[Callable[..., CoModule], ...]] = {
    "constant": (pads.ConstantPad1d, pads.ConstantPad2d, pads.ConstantPad3d),
    "replicate": (pads.ReplicationPad1d, pads.ReplicationPad2d, pads.ReplicationPad3d),
    "reflect": (pads.ReflectionPad1d, pads.ReflectionPad2d, pads.ReflectionPad3d),
}
MEMORY = "takes elements by their places in memory (`as_strided`)", "x.unfold(time, size, step) for sliding windows"


@rule("aten.pad.default", "aten.constant_pad_nd.default")
def pad(ctx: RuleContext, call: OpCall) -> Stream:
    """Padding of space on every frame, and of time by a streaming layer."""
    x, mode, value = call.stream("self"), str(call.get("mode", "constant")), call.get("value")
    flat, rank = [ctx.shapes.sized(p) for p in call.sequence("pad")], len(x.dims)
    ends = {rank - 1 - i: (flat[2 * i], flat[2 * i + 1]) for i in range(len(flat) // 2)}
    padded = {d for d, pair in ends.items() if any(any(p.values) for p in pair)}
    time = next((d for d in ends if d in padded and is_time(ctx, call, x, d, "pads")), None)
    last = ends[time][1] if time is not None else ctx.shapes.sized(0)
    sure = {d: (a, ctx.shapes.sized(0) if d == time else b) for d, (a, b) in ends.items()}
    pairs = {d: (ctx.shapes.integer(a, "the padding"), ctx.shapes.integer(b, "the padding")) for d, (a, b) in sure.items()}
    if time is not None and mode == "circular":
        raise Refused(
            "pads time with frames from the other end of the clip (circular), which a stream has not seen",
            "padding by zeros or 'replicate'",
        )
    if time is not None and mode not in PADS:
        raise Refused(f"pads time by mode {mode!r}", "'constant', 'replicate' or 'reflect'")
    space = {d: p for d, p in pairs.items() if d != time and any(p)}
    if space:
        amounts = [v for i in range(len(flat) // 2) for v in space.get(rank - 1 - i, (0, 0))]
        dims = tuple(dim_of(s + sum(space[d])) if d in space else x.dims[d] for d, s in enumerate(ctx.shapes.shape(x)))
        fill = ctx.emit.template(value)
        x = ctx.emit.op(call, call.name, x, dims, amounts, *((mode, fill) if call.op == "pad" else (fill or 0,)))
    if time is None:
        return x
    start, fill = pairs[time][0], 0.0 if value is None else ctx.shapes.real(value, "the padding's value")
    if last.varies:
        length = ctx.shapes.length(x.wire).combine(operator.add, last)
        least = start + 1 if mode == "reflect" else 1
        made = fitted(ctx, call, x, length, "pads the end", mode, fill, least)
        if made is not None:
            return pad_time(ctx, call, made, (start, 0), mode, fill) if start else made
    return pad_time(ctx, call, x, (start, ctx.shapes.integer(last, "the padding")), mode, fill)


def pad_time(ctx: RuleContext, call: OpCall, x: Stream, amounts: tuple[int, int], mode: str, value: float) -> Stream:
    """Padding of time."""
    producer = ctx.draft.sole_producer(call, x) if mode == "constant" else None
    trim = None if producer is None else producer.module
    if producer is not None and isinstance(trim, Trim) and not (amounts[0] and trim.first) and not (amounts[1] and trim.last):
        amounts = amounts[0] - trim.first, amounts[1] - trim.last  # a shift becomes one layer, without delay where possible
        x = ctx.emit.undo(producer, x)
    n = max(1, len(View(x.dims).order) - 2)
    if n > 3:
        raise Refused("pads time of a tensor of more than 5 dimensions", "merge dimensions before")
    flat = (*(0,) * 2 * (n - 1), *amounts)
    module = PADS[mode][n - 1](flat, *((float(value),) if mode == "constant" else ()))
    label = f"pad {amounts[0]}, {amounts[1]} ({mode})"
    return ctx.emit.layer(call, x, module, x.dims, label=label, fill=x.fill if x.fill == value else None)


@rule("aten.unfold.default")
def unfold(ctx: RuleContext, call: OpCall) -> Stream:
    """Sliding windows in a new last dimension."""
    x, size, step = call.stream("self"), call.integer("size"), call.integer("step")
    rank, dim = len(x.dims), call.dim(len(x.dims), "dimension")
    if is_time(ctx, call, x, dim, "slides over"):
        x = ctx.emit.unsqueeze_dummy(call, x)
        y = ctx.emit.layer(call, x, UnfoldTime(size, step), (*x.dims, dim_of(size)), label=f"unfold {size}, {step}")
        return ctx.emit.squeeze_dummy(call, y, rank + 1)
    count = (ctx.shapes.shape(x)[dim] - size) // step + 1
    return ctx.emit.local(call, (*with_size(x.dims, dim, count), dim_of(size)), x)


@rule("aten.as_strided.default")
def as_strided(ctx: RuleContext, call: OpCall) -> Value:
    """Sliding windows of the last dimension, as code writes them for speed: ``(…, n, size)`` with strides ``(…, step, 1)``."""
    x, rank = call.stream("self"), len(call.stream("self").dims)
    sizes, strides = ([ctx.shapes.sized(v) for v in call.sequence(name)] for name in ("size", "stride"))
    own = [ctx.shapes.size(x, d) for d in range(rank)]
    if len(sizes) != rank + 1 or call.get("storage_offset") or not call.node.args[0].meta["val"].is_contiguous():  # type: ignore[union-attr]
        raise Refused(*MEMORY)
    steps = [own[-1].combine(lambda *s: math.prod(s), *own[d + 1 : -1]) for d in range(rank - 1)]
    size, step = (
        ctx.shapes.integer(sizes[-1], "the size of a window"),
        ctx.shapes.integer(strides[-2], "the step between windows"),
    )
    windows = own[-1].combine(lambda n: (n - size) // step + 1)
    if [*sizes[:-2], *strides[:-2], sizes[-2], strides[-1]] != [*own[:-1], *steps, windows, ctx.shapes.sized(1)]:
        raise Refused(*MEMORY)
    return ctx.apply(call.other("aten.unfold.default", self=x, dimension=rank - 1, size=size, step=step))
