"""Elements chosen by their number."""

from __future__ import annotations

from ..builder import Builder
from ..call import Call, Refused, rule
from ..values import Const, Stream
from .parts import alone, whole, with_dim
from .resample import over_time


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
    return over_time(b, call, x, times, "nearest")
