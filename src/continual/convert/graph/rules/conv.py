"""Convolutions, over time and beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ....layers import conv as layers
from ....layers import padding as pads
from ....layers import transposed
from ..axes import BATCH, TIME, Dims
from ..op_call import Call, Misfit, Refused, hint, rule
from ..values import Const, Stream
from ..walker import Builder

CONVS: Any = (None, layers.Conv1d, layers.Conv2d, layers.Conv3d)
TRANSPOSED: Any = (None, transposed.ConvTranspose1d, transposed.ConvTranspose2d, transposed.ConvTranspose3d)


def spread(value: Any, dims: int) -> list[Any]:
    """One value per dimension."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * dims if len(values) == 1 else values


def checked(b: Builder, call: Call, x: Stream, dims: int) -> int | None:
    """Where time is among the dimensions that the operation slides over; ``None`` if it is in the batch. Refuses other places."""
    if len(x.dims) != dims + 2:
        raise Misfit(
            f"`{call.op}` on a tensor of {len(x.dims)} dimensions takes the rows of the batch for channels",
            f"{dims + 2} dimensions",
        )
    if any(BATCH in d for d in x.dims[1:]):
        raise Refused(f"`{call.op}` mixes the rows of the batch", "the batch in dim 0")
    at = next((i for i, d in enumerate(x.dims) if TIME in d), None)
    if at is None or at == 0:
        return None
    if at == 1:
        raise Refused(
            f"`{call.op}` takes the frames of the clip for its channels: each output sees all of them",
            "channels in dim 1 and time in a later one (transpose before), or a head over a window at the end of the network",
        )
    if x.dims[at] != (TIME,):
        raise Misfit(f"`{call.op}` slides over time merged with another dimension", "keep time a dimension of its own")
    return at - 2


def sized(b: Builder, call: Call, x: Stream, channels: int) -> Dims:
    """The layout of the result, sizes of space as exported."""
    shape = [hint(s) for s in call.node.meta["val"].shape]
    dims = [d if TIME in d or BATCH in d else ((s,) if s != 1 else ()) for d, s in zip(x.dims, shape, strict=True)]
    dims[1] = (channels,) if channels != 1 else ()
    return tuple(dims)


def weights(b: Builder, call: Call) -> tuple[Const, Const | None]:
    """Weight and bias, which must be constants."""
    weight, bias = call["weight"], call.get("bias")
    if not isinstance(weight, Const) or any(BATCH in d for d in weight.dims):
        raise Refused(
            f"the weight of `{call.op}` depends on the stream", "compute it of parameters, or write the product with matmul"
        )
    return weight, bias


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(b: Builder, call: Call) -> Stream:
    """A streaming convolution, or an ordinary one on frames that lie in the batch."""
    x: Stream = call["input"]
    weight, bias = weights(b, call)
    n = len(weight.dims) - 2
    at = checked(b, call, x, n)
    out = sized(b, call, x, weight.value.shape[0])
    if at is None:
        return b.local(call, out, x)
    order = [at, *(i for i in range(n) if i != at)]
    if at:  # the kernel's first dimension is time's
        weight = b.const("aten.permute.default", [weight, [0, 1, *(i + 2 for i in order)]])
    size, (stride, padding, dilation) = weight.value.shape, (spread(call[k], n) for k in ("stride", "padding", "dilation"))
    pads: Any = call["padding"] if isinstance(call["padding"], str) else tuple(int(b.number(padding[i])) for i in order)
    made = CONVS[n](
        size[1] * call["groups"], size[0], tuple(size[2:]), tuple(stride[i] for i in order), pads, tuple(dilation[i] for i in order),
        call["groups"], bias is not None, device="meta",
    )  # fmt: skip
    given = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    x = with_padding(b, call, x, made)
    return b.layer(call, x, made, _time_kept(out, at + 2), weights=given, label=described(made))


def with_padding(b: Builder, call: Call, x: Stream, conv: Any) -> Stream:
    """Zeros that a layer pads in front of a convolution become the convolution's own padding: one layer less."""
    last = b.maker(call, x)
    if last is None or not isinstance(last.module, pads._ConstantPad) or last.module.value != 0 or conv.padding_mode != "zeros":
        return x
    start, end = last.module._pads[-2:]
    if min(start, end) < 0 or any(last.module._pads[:-2]):
        return x
    repad(conv, conv._pads[0][0] + start, conv._pads[0][1] + end)
    return b.undo(last, x)


def repad(conv: Any, start: int, end: int) -> None:
    """Give a convolution other padding over time."""
    conv._pads = [(start, end), *conv._pads[1:]]
    conv.padding = (start, *conv.padding[1:])
    conv.configure()


def without_end(b: Builder, call: Call, x: Stream, cut: int) -> Stream | None:
    """Frames that are cut off after a convolution which pads the end: it pads less. ``None`` where that is not so."""
    last = b.maker(call, x)
    conv: Any = None if last is None else last.module
    if (
        last is None
        or not isinstance(conv, layers._Conv)
        or conv.padding_mode != "zeros"
        or conv.stride[0] != 1
        or conv._pads[0][1] < cut
    ):
        return None
    repad(conv, conv._pads[0][0], conv._pads[0][1] - cut)
    last.wire, last.label = b.wires.then(last.before, conv.timing), described(conv)
    return replace(x, wire=last.wire)


def _time_kept(dims: Dims, at: int) -> Dims:
    return tuple((TIME,) if i == at else d for i, d in enumerate(dims))


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(b: Builder, call: Call) -> Stream:
    """A streaming transposed convolution."""
    x: Stream = call["input"]
    weight, bias = weights(b, call)
    n = len(weight.dims) - 2
    at = checked(b, call, x, n)
    out = sized(b, call, x, weight.value.shape[1] * call["groups"])
    if at is None:
        return b.local(call, out, x)
    order = [at, *(i for i in range(n) if i != at)]
    if at:
        weight = b.const("aten.permute.default", [weight, [0, 1, *(i + 2 for i in order)]])
    size = weight.value.shape
    given = {
        k: tuple(int(b.number(spread(call[k], n)[i])) for i in order) for k in ("stride", "padding", "output_padding", "dilation")
    }
    made = TRANSPOSED[n](
        size[0], size[1] * call["groups"], tuple(size[2:]), given["stride"], given["padding"], given["output_padding"], call["groups"],
        bias is not None, given["dilation"], device="meta",
    )  # fmt: skip
    bound = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    return b.layer(call, x, made, _time_kept(out, at + 2), weights=bound, label=described(made))


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
