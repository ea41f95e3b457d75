"""Elements chosen by their number, and written there."""

from __future__ import annotations

import torch

from ..axes import Dims, joined_dims
from ..instructions import Ref
from ..op_call import Call, Misfit, Refused, rule
from ..values import Const, Stream
from ..walker import Builder
from .elementwise import lead
from .parts import alone, positional, spread_out, whole, with_dim
from .resample import over_time

FRAMES = "slices, or pooling"


@rule("aten.index_select.default")
def index_select(b: Builder, call: Call) -> Stream:
    """Chosen indices of another axis than time, or rows of a table chosen by a stream."""
    x, index = call["self"], call["index"]
    if isinstance(x, Const) or x.wire < 0 <= getattr(index, "wire", -1):
        dim = int(call["dim"]) % len(x.dims)
        if isinstance(x, Const):
            b.limit(index, x.value.shape[dim])
        return b.local(call, with_dim(x.dims, dim, index.dims[0] if index.dims else ()), lead(call.streams))
    dim = _besides(b, call, x)
    if isinstance(index, Stream):
        raise Refused("`index_select` chooses by values of the stream, the same for all rows", "torch.gather")
    return b.local(call, with_dim(x.dims, dim, whole(b.shape(index)[0] if index.dims else 1)), x)


def _besides(b: Builder, call: Call, x: Stream) -> int:
    """The dimension from which elements are chosen, which must be neither time nor rows."""
    dim = int(call["dim"]) % len(x.dims)
    if alone(b, call, x, dim, "chooses from"):
        raise Refused(f"`{call.op}` chooses frames of the clip by their number", FRAMES)
    return dim


@rule("aten.gather.default", "aten.take_along_dim.default")
def gather(b: Builder, call: Call) -> Stream:
    """Chosen elements of another axis than time."""
    x = call["self"]
    if not isinstance(x, Stream):
        raise Refused(f"`{call.op}` chooses from a constant by a stream", "embedding, or table[index]")
    dim, name = _besides(b, call, x), "indices" if "indices" in call.args else "index"
    index = spread_out(b, call, name, x)
    return positional(b, call, {name: index}, with_dim(x.dims, dim, index.dims[dim]))


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce", "aten.index_add", "aten.index_copy", "aten.index_fill")
def scatter(b: Builder, call: Call) -> Stream:
    """Elements are written, or added, at chosen indices of another axis than time."""
    x = call["self"]
    if not isinstance(x, Stream):
        raise Refused(f"`{call.op}` writes a stream into a constant", f"torch.zeros_like(…) of the stream, and `{call.op}` on it")
    _besides(b, call, x)
    names = [n for n in ("index", "src") if call.op.startswith("scatter") and isinstance(call.get(n), (Stream, Const))]
    return positional(b, call, {n: spread_out(b, call, n, x) for n in names}, x.dims)


@rule("aten.index.Tensor")
def index(b: Builder, call: Call) -> Stream:
    """Advanced indexing of other axes than time, by constants; of tables, by streams."""
    x = call["self"]
    places, chosen = _indices(b, call, x)
    if isinstance(x, Stream) and any(isinstance(v, Stream) for v in chosen):
        raise Refused("indexing by values of the stream", "torch.gather, torch.where, or embedding")
    layouts = _joined([v.dims for v in chosen])
    for place, v in zip(places, chosen, strict=True):
        if isinstance(x, Const) and isinstance(v, Stream):
            b.limit(v, x.value.shape[place])
    rest = [d for i, d in enumerate(x.dims) if i not in places]
    at = places[0] if places == list(range(places[0], places[0] + len(places))) else 0
    args = (Ref(x.slot), places, [Ref(v.slot) for v in chosen])
    dims = (*rest[:at], *layouts, *rest[at:])
    return b.local(call, dims, lead(call.streams), target="helper_ops:indexed", args=args, kwargs={}, inputs=call.streams)


@rule("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(b: Builder, call: Call) -> Stream:
    """Elements are written at chosen places of other axes than time."""
    x = call["self"]
    if not isinstance(x, Stream):
        raise Refused("writes a stream into chosen places of a constant", "torch.zeros_like(…) of the stream")
    places, chosen = _indices(b, call, x)
    if any(isinstance(v, Stream) for v in chosen):
        raise Refused("writes at places that depend on the stream", "torch.scatter, or torch.where")
    args = (Ref(x.slot), places, [Ref(v.slot) for v in chosen], Ref(call["values"].slot), bool(call["accumulate"]))
    return b.local(call, x.dims, lead(call.streams), target="helper_ops:placed", args=args, kwargs={}, inputs=call.streams)


def _indices(b: Builder, call: Call, x: Stream | Const) -> tuple[list[int], list[Stream | Const]]:
    """Which dimensions are indexed, and by what; masks as the places where they are true."""
    places, chosen, at = list[int](), list[Stream | Const](), 0
    for v in call["indices"]:
        count = 1
        if isinstance(v, Const) and v.value.dtype == torch.bool:
            count = v.value.ndim
            found = b.const("aten.nonzero.default", [v])
            chosen += [b.const("aten.select.int", [found, 1, i]) for i in range(count)]
        elif isinstance(v, (Const, Stream)):
            if isinstance(v, Stream) and v.dtype == torch.bool:
                raise Refused(
                    "the values of the stream decide how many elements there are", "torch.where, which keeps all of them"
                )
            chosen.append(v)
        elif v is not None:
            raise Misfit("indexing by what depends on the length of the clip", FRAMES)
        places += [at + i for i in range(count)] if v is not None else []
        at += count
    if isinstance(x, Stream) and any(alone(b, call, x, p, "chooses from") for p in places):
        raise Refused(f"`{call.op}` chooses frames of the clip by their number", FRAMES)
    return places, chosen


def _joined(layouts: list[Dims]) -> Dims:
    dims = joined_dims(layouts)
    if dims is None:
        raise Misfit("indexing by tensors that do not fit together", "reshape one of them")
    return dims


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
