"""Operations along one axis: softmax, running reductions, order."""

from __future__ import annotations

from typing import Any

from ....layers import cumulative
from ..axes import BATCH, TIME
from ..instructions import Ref
from ..op_call import Call, Misfit, Refused, hint, rule
from ..time_layers import CumulativeProduct, LogCumulativeSumExp
from ..values import Fragment, Stream, Value
from ..walker import Builder
from .elementwise import items

RUNNING: Any = {
    "cumsum": cumulative.CumulativeSum, "cummax": cumulative.CumulativeMax, "cummin": cumulative.CumulativeMax,
    "cumprod": CumulativeProduct, "logcumsumexp": LogCumulativeSumExp,
}  # fmt: skip


def _rows(call: Call) -> None:
    raise Refused(f"`{call.op}` mixes the rows of the batch", "dim=… without the batch's: every row is a stream of its own")


@rule("aten.softmax.int", "aten.log_softmax.int", "aten._softmax.default", "aten._log_softmax.default", "aten.softmin.int")
def softmax(b: Builder, call: Call) -> Stream:
    """Softmax over other axes than time."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if TIME in x.dims[dim]:
        raise Refused("softmax over time sees the whole clip", "softmax over channels; or causal attention (is_causal=True)")
    if BATCH in x.dims[dim]:
        _rows(call)
    return b.local(call, x.dims, x)


@rule("aten.cumsum.default", "aten.cumprod.default", "aten.cummax.default", "aten.cummin.default", "aten.logcumsumexp.default")
def cumulate(b: Builder, call: Call) -> Value:
    """Running reductions."""
    x: Stream = call["self"]
    dim, two = int(call["dim"]) % len(x.dims), call.op in ("cummax", "cummin")
    if BATCH in x.dims[dim]:
        _rows(call)
    if TIME not in x.dims[dim]:
        y = b.local(call, x.dims, x)
        return items(b, call, y) if two else y
    if x.dims[dim] != (TIME,):
        raise Misfit(f"`{call.op}` over time merged with another dimension", "do it before the dimensions are merged")
    if two and not x.dtype.is_floating_point and call.op == "cummin":
        raise Refused("`cummin` of whole numbers over time", "floating point numbers, or -cummax(-x)")
    low = call.op == "cummin"
    y = _negated(b, call, x) if low else x
    y = b.layer(call, y, RUNNING[call.op](), x.dims)
    y = _negated(b, call, y) if low else y
    places = (
        Fragment(x.dims, call.node.meta["val"][1].dtype, f"`{call.op}` gives positions in the clip", "its values")
        if two
        else None
    )
    return [y, places] if two else y


def _negated(b: Builder, call: Call, x: Stream) -> Stream:
    return b.local(call, x.dims, x, target="aten.neg.default", args=(Ref(x.slot),), kwargs={}, inputs=[x])


@rule("aten.sort.default", "aten.topk.default", "aten.argsort.default", "aten.sort.stable")
def sort(b: Builder, call: Call) -> Value:
    """Order over other axes than time."""
    x: Stream = call["self"]
    dim = int(call.get("dim", -1)) % len(x.dims)
    if TIME in x.dims[dim] or BATCH in x.dims[dim]:
        raise Refused(
            f"`{call.op}` orders the frames of the clip: each output sees all of them",
            "order channels, or take maxima over windows",
        )
    vals = call.node.meta["val"]
    first = vals[0] if isinstance(vals, (list, tuple)) else vals
    size = hint(first.shape[dim])
    out = tuple(((size,) if size != 1 else ()) if i == dim else d for i, d in enumerate(x.dims))
    if not isinstance(vals, (list, tuple)):
        return b.local(call, out, x)
    return items(b, call, b.local(call, out, x))
