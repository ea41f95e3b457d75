"""Pooling over windows, and over everything."""

from __future__ import annotations

from typing import Any

import torch

from ..axes import BATCH, TIME, Dims, with_dim
from ..capture import source_line
from ..exec_context import Ref, Shape
from ..op_call import Merged, OpCall, Refused, RowsMixed, result_shape
from ..rule_context import RuleContext, rule
from ..values import NotStreamed, Size, Stream, Value
from .conv import described, per_dim, spatial
from .reduce import AVG, MAX, Reducer, over_clip


def _place(call: OpCall, x: Stream, n: int) -> int | None:
    """Which of the last ``n`` dimensions is time; ``None`` if it is in the batch. Refuses other places."""
    if any(BATCH in d for d in x.dims[-n:]):
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "the batch in dim 0")
    at = next((i for i, d in enumerate(x.dims[-n:]) if TIME in d), None)
    if at is not None and x.dims[-n:][at] != (TIME,):
        raise Merged(f"`{call.op}` slides over time merged with another dimension", "keep time a dimension of its own")
    return at


def _result(call: OpCall, x: Stream) -> Dims:
    shape = result_shape(call.node)
    return spatial(x.dims, shape if len(shape) == len(x.dims) else [shape[0], 1, *shape[1:]])


@rule("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", "aten.avg_pool1d.default", "aten.avg_pool2d.default",
      "aten.avg_pool3d.default")  # fmt: skip
def pool(ctx: RuleContext, call: OpCall) -> Stream:
    """A streaming pool, or an ordinary one on every frame."""
    x = call.stream("self")
    n, is_max = int(call.op[-2]), call.op.startswith("max")
    at, out = _place(call, x, n), _result(call, x)
    if at is None:
        return ctx.emit.local(call, out, x)
    if len(x.dims) == n + 1:  # torch takes the rows for channels, which it pools one by one: the result is the same
        y = pool(ctx, call.with_args(self=ctx.emit.unsqueeze(call, x, 1)))
        return ctx.emit.squeeze(call, y, [1])
    if _takes_everything(ctx, call, x, at):
        return _whole_clip(ctx, call, x, n, at, is_max)
    order = [at, *(i for i in range(n) if i != at)]

    def ordered(name: str, default: Value) -> tuple[int, ...]:
        values = per_dim(call.get(name) or default, n)
        return tuple(ctx.shapes.integer(values[i]) for i in order)

    options: dict[str, Any] = {"stride": ordered("stride", call["kernel_size"]), "padding": ordered("padding", 0)}
    options["ceil_mode"] = bool(call.get("ceil_mode", False))
    if is_max:
        options["dilation"] = ordered("dilation", 1)
    else:
        options["count_include_pad"] = bool(call.get("count_include_pad", True))
        if n > 1:
            options["divisor_override"] = call.get("divisor_override")
    layer = (MAX if is_max else AVG)[n - 1](ordered("kernel_size", 1), **options)
    return ctx.emit.layer(call, x, layer, out, label=described(layer))


def _takes_everything(ctx: RuleContext, call: OpCall, x: Stream, at: int) -> bool:
    """Whether a pool reduces the whole clip to one value: ``F.avg_pool2d(x, x.shape[2:])``.

    In the export its kernel is a number like any other. A pool with a fixed kernel gives more outputs for a longer clip.
    """
    n = int(call.op[-2])

    def of_time(name: str, default: Value) -> Value:
        return per_dim(call.get(name) or default, n)[at]

    kernel, stride = of_time("kernel_size", None), of_time("stride", call["kernel_size"])
    ordinary = of_time("padding", 0) == 0 and of_time("dilation", 1) == 1 and call.get("divisor_override") is None
    whole = ordinary and kernel == stride == ctx.shapes.length(x.wire).now != 1
    return whole and ctx.shapes.output_ignores_length


def _whole_clip(ctx: RuleContext, call: OpCall, x: Stream, n: int, at: int, is_max: bool) -> Stream:
    kernel = per_dim(call["kernel_size"], n)
    shape, time = ctx.shapes.shape(x)[-n:], len(x.dims) - n + at
    if any(k != s for i, (k, s) in enumerate(zip(kernel, shape, strict=True)) if i != at):
        new: dict[str, Value] = {"self": x}
        for name, value in (("kernel_size", kernel), ("stride", per_dim(call.get("stride") or call["kernel_size"], n))):
            new[name] = [1 if i == at else v for i, v in enumerate(value)]
        args = [ctx.emit.template((call.args | new)[name]) for name in call.positional]
        x = ctx.emit.local(call, with_dim(_result(call, x), time, (TIME,)), x, args=args, inputs=[x])
    elif n > 1:
        others = [len(x.dims) - n + i for i in range(n) if i != at]
        dims = tuple(() if i in others else d for i, d in enumerate(x.dims))
        x = ctx.emit.op(call, "aten.amax.default" if is_max else "aten.mean.dim", x, dims, others, True)
    return _to_one_frame(ctx, call, x, time, is_max)


def _to_one_frame(ctx: RuleContext, call: OpCall, x: Stream, time: int, is_max: bool) -> Stream:
    y = over_clip(ctx, call, x, time, Reducer("amax" if is_max else "mean", {}))
    return ctx.emit.unsqueeze(call, y, time)


@rule("aten.max_pool1d_with_indices", "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices", "aten.max_unpool2d",
      "aten.max_unpool3d")  # fmt: skip
def pool_with_indices(ctx: RuleContext, call: OpCall) -> Stream:
    """Indices into the clip have no meaning in a stream."""
    raise Refused(f"`{call.op}` gives positions in the clip", "return_indices=False")


@rule("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default",
      "aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default", "aten.adaptive_max_pool3d.default")  # fmt: skip
def adaptive(ctx: RuleContext, call: OpCall) -> Value:
    """Pooling to a size: of space on every frame, of time to one frame as a window of the clip."""
    x = call.stream("self")
    n, is_max = int(call.op[-2]), "max" in call.op
    at, out = _place(call, x, n), _result(call, x)
    if at is None:
        y = ctx.emit.local(call, out, x)
        return [_maxima(ctx, call, y), _indices(call, y)] if is_max else y
    y = _adaptive_over_time(ctx, call, x, out, at)
    return [y, _indices(call, y)] if is_max else y


def _adaptive_over_time(ctx: RuleContext, call: OpCall, x: Stream, out: Dims, at: int) -> Stream:
    n, is_max = int(call.op[-2]), "max" in call.op
    time = len(x.dims) - n + at
    unchanged, wanted = _keeps_length(ctx, call, x, time, ctx.shapes.sized(call.sequence("output_size")[at]))
    y, kept = x, with_dim(out, time, (TIME,))
    before, after = ctx.shapes.shape(x)[-n:], result_shape(call.node)[-n:]
    if any(a != b for i, (a, b) in enumerate(zip(before, after, strict=True)) if i != at):
        y = ctx.emit.local(call, kept, x, args=(Ref(x.slot), Shape(kept[-n:])), inputs=[x])
        y = _maxima(ctx, call, y) if is_max else y
    if unchanged:
        return y
    if wanted.varies or wanted.now != 1:
        raise Refused(
            f"`{call.op}` pools time to {wanted.now} bins, whose borders follow from the length of the clip",
            "a pool with a fixed kernel; or one bin, at the end of the network",
        )
    return _to_one_frame(ctx, call, y, time, is_max)


def _keeps_length(ctx: RuleContext, call: OpCall, x: Stream, dim: int, wanted: Size) -> tuple[bool, Size]:
    """Whether there are as many bins as frames, and the number of bins."""
    length, draft = ctx.shapes.length(x.wire), ctx.draft
    if (not draft.captured.symbolic or ctx.shapes.length_is_fixed(call, dim)) and wanted.now == length.now > 1:
        place = source_line(call.node)  # the export knows one length alone
        draft.baked.append(f"`{call.op}` to {wanted.now} bins leaves {length.now} frames as they are, at {place}")
        return True, length
    unchanged = wanted.values[:3] == length.values[:3] and wanted.now != 1
    if unchanged and wanted.values != length.values:
        draft.note(call, "pools time to the length of another stream: clips have to be of lengths that the strides divide")
        draft.divided = True
    return unchanged, wanted


def _indices(call: OpCall, y: Stream) -> NotStreamed:
    return NotStreamed(y.dims, torch.long, f"`{call.op}` gives positions in the clip", "return_indices=False")


def _maxima(ctx: RuleContext, call: OpCall, y: Stream) -> Stream:
    return ctx.emit.op(call, "helper_ops:item", y, y.dims, 0)
