"""Convolutions, over time and over other dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from ....core.module import CoModule
from ....layers import conv as layers
from ....layers import padding as pads
from ....layers import transposed
from ..axes import BATCH, TIME, Dims, dim_of, size_of, with_dim
from ..op_call import Merged, OpCall, Refused, RowsMisfit, RowsMixed, result_shape
from ..rule_context import RuleContext, rule
from ..values import Const, LengthDependent, Stream, Value, as_sequence

CONVS: tuple[Callable[..., layers._Conv], ...] = (layers.Conv1d, layers.Conv2d, layers.Conv3d)
TRANSPOSED: tuple[Callable[..., CoModule], ...] = (
    transposed.ConvTranspose1d,
    transposed.ConvTranspose2d,
    transposed.ConvTranspose3d,
)
LONG_KERNEL = (
    "has a kernel as long as the clip, so each output needs all frames before it",
    "its recurrence, which is a stream: co.S4D for a state-space model, co.Recurrence or co.scan for others; or a kernel of fixed length",
)


def per_dim(value: Value, dims: int) -> list[Value]:
    """One value for each dimension."""
    values = list(as_sequence(value))
    return values * dims if len(values) == 1 else values


def spatial(dims: Dims, shape: Sequence[int]) -> Dims:
    """A layout with the sizes of a shape, but for batch and time."""
    return tuple(d if TIME in d or BATCH in d else dim_of(s) for d, s in zip(dims, shape, strict=True))


def time_place(call: OpCall, x: Stream, dims: int) -> int | None:
    """Which of the dimensions that the operation slides over is time; ``None`` if time is in the batch. Refuses other places."""
    if len(x.dims) != dims + 2:
        raise RowsMisfit(
            f"`{call.op}` on a tensor of {len(x.dims)} dimensions takes the rows of the batch for channels",
            f"{dims + 2} dimensions",
        )
    if any(BATCH in d for d in x.dims[1:]):
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "the batch in dim 0")
    at = next((i for i, d in enumerate(x.dims) if TIME in d), None)
    if at is None or at == 0:
        return None
    if at == 1:
        raise Refused(
            f"`{call.op}` takes the frames of the clip for its channels: each output sees all of them",
            "channels in dim 1 and time in a later one (transpose before), or a head over a window at the end of the network",
        )
    if x.dims[at] != (TIME,):
        raise Merged(f"`{call.op}` slides over time merged with another dimension", "keep time a dimension of its own")
    return at - 2


def weights(call: OpCall) -> dict[str, Const]:
    """Weight and bias, which must be constants."""
    weight, bias = call["weight"], call.get("bias")
    if not isinstance(weight, Const) or any(BATCH in d for d in weight.dims):
        raise Refused(
            f"the weight of `{call.op}` depends on the stream", "compute it of parameters, or write the product with matmul"
        )
    if bias is not None and not isinstance(bias, Const):
        raise Refused(f"the bias of `{call.op}` depends on the stream", "add it after the operation")
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _time_first(ctx: RuleContext, constants: dict[str, Const], at: int, n: int) -> tuple[dict[str, Const], list[int]]:
    """Weights whose first kernel dimension is time's, and the order of the kernel's dimensions."""
    order = [at, *(i for i in range(n) if i != at)]
    if at:
        weight = ctx.emit.const("aten.permute.default", [constants["weight"], [0, 1, *(i + 2 for i in order)]])
        constants = constants | {"weight": weight}
    return constants, order


def _one_row(ctx: RuleContext, call: OpCall) -> OpCall | None:
    """A convolution whose groups are the channels of all rows, ``(1, B·C, T)`` with ``taps.repeat(B·C, 1, 1)``, as one of each row."""
    x, weight, count = call.stream("input"), call["weight"], ctx.shapes.sized(call["groups"]).values
    if x.dims[0] or x.dims[1][:1] != (BATCH,) or not isinstance(weight, LengthDependent) or weight.name != "aten.repeat.default":
        return None
    taps, channels = weight.args["self"], size_of(x.dims[1][1:], 1, 1)
    first, *others = (ctx.shapes.sized(v) for v in as_sequence(weight.args["repeats"]))
    alike = count == first.values == tuple(rows * channels for rows in ctx.shapes.batches)
    if not isinstance(taps, Const) or taps.value.ndim > len(others) or not alike or call.get("bias") is not None:
        return None
    own = ctx.emit.const("aten.repeat.default", [taps, [channels, *(ctx.shapes.integer(v) for v in others)]])
    y = ctx.emit.reshape(call, x, ((BATCH,), dim_of(channels), *x.dims[2:]))
    return call.with_args(input=y, weight=own, groups=channels)


def _refuse_long(ctx: RuleContext, weight: Value) -> None:
    """Refuse a kernel whose size follows from the length of the clip."""
    if isinstance(weight, LengthDependent):
        rank = ctx.lengths.concrete(weight, shape=True).ndim
        if any(ctx.lengths.size(weight, dim).varies for dim in range(2, rank)):
            raise Refused(*LONG_KERNEL)


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", keeps_length_dependent=True)
def conv(ctx: RuleContext, call: OpCall) -> Stream:
    """A streaming convolution, or an ordinary one on frames that lie in the batch."""
    if (own := _one_row(ctx, call)) is not None:
        y = conv(ctx, own)
        return ctx.emit.reshape(call, y, ((), (BATCH, *y.dims[1]), *y.dims[2:]))
    _refuse_long(ctx, call["weight"])
    constants, x = weights(call), call.stream("input")
    n = len(constants["weight"].dims) - 2
    at, channels, groups = time_place(call, x, n), constants["weight"].value.shape[0], call.integer("groups")
    out = with_dim(spatial(x.dims, result_shape(call.node)), 1, dim_of(channels))
    if at is None:
        return ctx.emit.local(call, out, x)
    constants, order = _time_first(ctx, constants, at, n)
    size, options = constants["weight"].value.shape, _options(ctx, call, order, ("stride", "dilation"))
    same = call["padding"] if isinstance(call["padding"], str) else _options(ctx, call, order, ("padding",))["padding"]
    made = CONVS[n - 1](
        size[1] * groups,
        channels,
        tuple(size[2:]),
        options["stride"],
        same,
        options["dilation"],
        groups,
        "bias" in constants,
        device="meta",
    )
    x = absorb_padding(ctx, call, x, made)
    return ctx.emit.layer(call, x, made, with_dim(out, at + 2, (TIME,)), weights=constants, label=described(made))


def _options(ctx: RuleContext, call: OpCall, order: Sequence[int], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Arguments with one integer for each dimension, in another order."""
    return {n: tuple(ctx.shapes.integer(per_dim(call[n], len(order))[i]) for i in order) for n in names}


def absorb_padding(ctx: RuleContext, call: OpCall, x: Stream, conv: layers._Conv) -> Stream:
    """What a layer pads in front of a convolution becomes the convolution's own padding: one layer less.

    Frames that are repeated or mirrored at the start come all at once, in no program. The window of a convolution waits for them.
    """
    last = ctx.draft.sole_producer(call, x)
    padding = None if last is None else last.module
    if last is None or not isinstance(padding, pads._Pad) or conv.padding_mode != "zeros":
        return x
    start, end = padding._pads[-2:]
    if min(start, end) < 0 or any(padding._pads[:-2]):
        return x
    if isinstance(padding, pads._ConstantPad):
        if padding.value != 0:
            return x
        _repad(conv, conv._pads[0][0] + start, conv._pads[0][1] + end)
    elif padding.mode in ("replicate", "reflect") and not any(conv._pads[0]) and max(start, end) < conv._window.receptive_field:
        _repad(conv, start, end, padding.mode)
    else:
        return x
    return ctx.emit.undo(last, x)


def _repad(conv: layers._Conv, start: int, end: int, fill: str | None = None) -> None:
    """Give a convolution other padding over time."""
    conv._pads = [(start, end), *conv._pads[1:]]
    conv.padding = (start, *conv.padding[1:])
    conv.configure(fill)


def without_end(ctx: RuleContext, call: OpCall, x: Stream, cut: int) -> Stream | None:
    """A convolution that pads less at the end, where later frames are cut off. ``None`` where there is no such convolution."""
    last = ctx.draft.sole_producer(call, x)
    conv = None if last is None else last.module
    if last is None or not isinstance(conv, layers._Conv) or conv.padding_mode != "zeros" or conv.temporal_fill is not None:
        return None
    if conv.stride[0] != 1 or conv._pads[0][1] < cut:
        return None
    _repad(conv, conv._pads[0][0], conv._pads[0][1] - cut)
    last.wire, last.label = ctx.draft.wires.then(last.before, conv.timing), described(conv)
    return replace(x, wire=last.wire)


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(ctx: RuleContext, call: OpCall) -> Stream:
    """A streaming transposed convolution."""
    constants, x = weights(call), call.stream("input")
    n = len(constants["weight"].dims) - 2
    at, groups = time_place(call, x, n), call.integer("groups")
    channels = constants["weight"].value.shape[1] * groups
    out = with_dim(spatial(x.dims, result_shape(call.node)), 1, dim_of(channels))
    if at is None:
        return ctx.emit.local(call, out, x)
    constants, order = _time_first(ctx, constants, at, n)
    size, options = (
        constants["weight"].value.shape,
        _options(ctx, call, order, ("stride", "padding", "output_padding", "dilation")),
    )
    made = TRANSPOSED[n - 1](
        size[0], channels, tuple(size[2:]), groups=groups, bias="bias" in constants, device="meta", **options
    )
    return ctx.emit.layer(call, x, made, with_dim(out, at + 2, (TIME,)), weights=constants, label=described(made))


def described(module: nn.Module) -> str:
    """A layer in a few words: class, kernel, stride, padding, dilation."""
    parts = [type(module).__name__]
    uneven = [p for p in module.__dict__.get("_pads", ()) if isinstance(p, tuple)][:1]
    for name, attribute, default in (("k", "kernel_size", None), ("s", "stride", 1), ("p", "padding", 0), ("d", "dilation", 1)):
        value = module.__dict__.get(attribute)
        if name == "p" and uneven and uneven[0][0] != uneven[0][1]:
            parts.append(f"p({uneven[0][0]}, {uneven[0][1]})")
            continue
        if value is None:
            continue
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        if default is None or any(v != default for v in values):
            parts.append(f"{name}{values[0] if len(set(values)) == 1 else '×'.join(map(str, values))}")
    return " ".join(parts)
