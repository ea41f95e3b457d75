"""Pooling over windows, and over everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..axes import BATCH, TIME, Dims
from ..capture import source_line
from ..instructions import Ref, Shape
from ..op_call import Call, Misfit, Refused, hint, rule
from ..values import Fragment, Size, Stream
from ..walker import Builder
from .conv import described, spread
from .reduce import AVG, MAX, over_clip


def _place(b: Builder, call: Call, x: Stream, n: int) -> int | None:
    """Which of the last ``n`` dimensions is time."""
    if any(BATCH in d for d in x.dims[-n:]):
        raise Refused(f"`{call.op}` mixes the rows of the batch", "the batch in dim 0")
    at = next((i for i, d in enumerate(x.dims[-n:]) if TIME in d), None)
    if at is not None and x.dims[-n:][at] != (TIME,):
        raise Misfit(f"`{call.op}` slides over time merged with another dimension", "keep time a dimension of its own")
    return at


def _sized(call: Call, x: Stream) -> Dims:
    val = call.node.meta["val"]
    val = val[0] if isinstance(val, (list, tuple)) else val
    shape = [hint(s) for s in val.shape]
    shape = shape if len(shape) == len(x.dims) else [shape[0], 1, *shape[1:]]
    return tuple(d if TIME in d or BATCH in d else ((s,) if s != 1 else ()) for d, s in zip(x.dims, shape, strict=True))


@rule("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", "aten.avg_pool1d.default", "aten.avg_pool2d.default",
      "aten.avg_pool3d.default")  # fmt: skip
def pool(b: Builder, call: Call) -> Stream:
    """A streaming pool, or an ordinary one on every frame."""
    x: Stream = call["self"]
    n, is_max = int(call.op[-2]), call.op.startswith("max")
    at, out = _place(b, call, x, n), _sized(call, x)
    if at is None:
        return b.local(call, out, x)
    if len(x.dims) == n + 1:  # torch takes the rows for channels, which are pooled one by one all the same
        dims = (x.dims[0], (), *x.dims[1:])
        x = b.local(call, dims, x, target="aten.unsqueeze.default", args=(Ref(x.slot), 1), kwargs={}, inputs=[x])
        y = pool(b, replace(call, args=call.args | {"self": x}))
        return b.local(
            call, y.dims[:1] + y.dims[2:], y, target="aten.squeeze.dims", args=(Ref(y.slot), [1]), kwargs={}, inputs=[y]
        )
    order = [at, *(i for i in range(n) if i != at)]

    def ordered(name: str, default: Any) -> tuple[int, ...]:
        values = spread(call.get(name) or default, n)
        return tuple(int(b.number(values[i])) for i in order)

    kernel = ordered("kernel_size", 1)
    if _everything(b, call, x, at):
        return _whole_clip(b, call, x, n, at, is_max)
    options: dict[str, Any] = {"stride": ordered("stride", list(call["kernel_size"])), "padding": ordered("padding", 0)}
    options["ceil_mode"] = bool(call.get("ceil_mode", False))
    if is_max:
        options["dilation"] = ordered("dilation", 1)
    else:
        options["count_include_pad"] = bool(call.get("count_include_pad", True))
        if n > 1:
            options["divisor_override"] = call.get("divisor_override")
    layer = (MAX if is_max else AVG)[n](kernel, **options)
    return b.layer(call, x, layer, out, label=described(layer))


def _everything(b: Builder, call: Call, x: Stream, at: int) -> bool:
    """Whether a pool without stride takes the whole clip into one value: ``F.avg_pool2d(x, x.shape[2:])``.

    In the export the kernel is a number like any other. But then a longer clip would give more outputs.
    """
    n = int(call.op[-2])
    kernel, stride = spread(call["kernel_size"], n)[at], spread(call.get("stride") or call["kernel_size"], n)[at]
    alone = spread(call.get("padding") or 0, n)[at] == 0 and spread(call.get("dilation") or 1, n)[at] == 1
    whole = kernel == stride == b.length(x.wire).now and kernel > 1 and alone and call.get("divisor_override") is None
    return whole and b.one_output


def _whole_clip(b: Builder, call: Call, x: Stream, n: int, at: int, is_max: bool) -> Stream:
    kernel = spread(call["kernel_size"], n)
    shape, keep = b.shape(x)[-n:], len(x.dims) - n + at
    if any(k != s for i, (k, s) in enumerate(zip(kernel, shape, strict=True)) if i != at):
        args = [b.template(call[name]) if name != "self" else Ref(x.slot) for name in call.positional]
        names = list(call.positional)
        for name, value in (("kernel_size", 1), ("stride", 1)):
            if name in names:
                values = spread(call.get(name) or call["kernel_size"], n)
                args[names.index(name)] = [value if i == at else v for i, v in enumerate(values)]
        dims = tuple((TIME,) if i == keep else d for i, d in enumerate(_sized(call, x)))
        x = b.local(call, dims, x, args=args, kwargs={}, inputs=[x])
    elif n > 1:
        others = [len(x.dims) - n + i for i in range(n) if i != at]
        dims = tuple(() if i in others else d for i, d in enumerate(x.dims))
        op = "aten.amax.default" if is_max else "aten.mean.dim"
        x = b.local(call, dims, x, target=op, args=(Ref(x.slot), others, True), kwargs={}, inputs=[x])
    y = over_clip(b, call, x, keep, "amax" if is_max else "mean")
    dims = (*y.dims[:keep], (), *y.dims[keep:])
    return b.local(call, dims, y, target="aten.unsqueeze.default", args=(Ref(y.slot), keep), kwargs={}, inputs=[y])


@rule("aten.max_pool1d_with_indices", "aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices", "aten.max_unpool2d",
      "aten.max_unpool3d")  # fmt: skip
def pool_with_indices(b: Builder, call: Call) -> Stream:
    """Positions in the clip have no meaning in a stream."""
    raise Refused(f"`{call.op}` gives positions in the clip", "return_indices=False")


@rule("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default",
      "aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default", "aten.adaptive_max_pool3d.default")  # fmt: skip
def adaptive(b: Builder, call: Call) -> Any:
    """Pooling to a size: of space on every frame, of time to one frame as a window of the clip."""
    x: Stream = call["self"]
    n, is_max = int(call.op[-2]), "max" in call.op
    at = _place(b, call, x, n)
    out = _sized(call, x)
    if at is None:
        y = b.local(call, out, x)
        return [_first(b, call, y), _places(call, y)] if is_max else y
    keep = len(x.dims) - n + at
    as_it_is, wanted = _as_long(b, call, x, keep, Size.of(call["output_size"][at], len(b.lengths)))
    kept = tuple((TIME,) if i == keep else d for i, d in enumerate(out))
    y = x
    if b.shape(x)[-n:] != tuple(b.shape(x)[-n + i] if i == at else hint(s) for i, s in enumerate(_space(call, n))):
        args = (Ref(x.slot), Shape(kept[-n:]))
        y = b.local(call, kept, x, args=args, kwargs={}, inputs=[x])
        y = _first(b, call, y) if is_max else y
    if not as_it_is:
        if wanted.varies or wanted.now != 1:
            raise Refused(
                f"`{call.op}` pools time to {wanted.now} bins, whose borders follow from the length of the clip",
                "a pool with a fixed kernel; or one bin, at the end of the network",
            )
        y = over_clip(b, call, y, keep, "amax" if is_max else "mean")
        dims = (*y.dims[:keep], (), *y.dims[keep:])
        y = b.local(call, dims, y, target="aten.unsqueeze.default", args=(Ref(y.slot), keep), kwargs={}, inputs=[y])
    return [y, _places(call, y)] if is_max else y


def _as_long(b: Builder, call: Call, x: Stream, dim: int, wanted: Size) -> tuple[bool, Size]:
    """Whether as many bins are wanted as there are frames, and how many are."""
    length = b.length(x.wire)
    if (not b.captured.symbolic or b.length_is_fixed(call, dim)) and wanted.now == length.now > 1:  # the export knows one length
        b.baked.append(f"`{call.op}` to {wanted.now} bins leaves {length.now} frames as they are, at {source_line(call.node)}")
        return True, length
    as_it_is = wanted.values[:3] == length.values[:3] and wanted.now != 1
    if as_it_is and wanted.values != length.values:
        b.note(call, "pools time to the length of another stream: clips have to be of lengths that the strides divide")
        b.divided = True
    return as_it_is, wanted


def _places(call: Call, y: Stream) -> Fragment:
    return Fragment(y.dims, torch.long, f"`{call.op}` gives positions in the clip", "return_indices=False")


def _space(call: Call, n: int) -> list[Any]:
    val = call.node.meta["val"]
    val = val[0] if isinstance(val, (list, tuple)) else val
    return list(val.shape[-n:])


def _first(b: Builder, call: Call, y: Stream) -> Stream:
    return b.local(call, y.dims, y, target="helper_ops:item", args=(Ref(y.slot), 0), kwargs={}, inputs=[y])
