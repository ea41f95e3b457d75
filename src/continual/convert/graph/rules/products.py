"""Matrix products, in which time is one of the rows."""

from __future__ import annotations

from ..axes import BATCH, TIME, Dim, Dims
from ..op_call import Call, Misfit, Refused, rule
from ..values import Const, Stream, Value
from ..walker import Builder
from .contraction import over_frames, over_window
from .elementwise import lead, with_explicit
from .scores import masked_product, scores_of


@rule("aten.linear.default")
def linear(b: Builder, call: Call) -> Stream:
    """A linear layer over channels; over the frames of the clip it becomes a window of the clip's length."""
    x: Stream = call["input"]
    weight = call["weight"]
    if not isinstance(weight, Const):
        raise Refused(
            "the weight of `linear` depends on the stream", "compute it of parameters, or write the product with matmul"
        )
    if BATCH in x.dims[-1]:
        raise Refused("`linear` mixes the rows of the batch", "the batch in a dimension of its own")
    features = weight.value.shape[0]
    if TIME in x.dims[-1]:
        return over_window(b, call, x, weight, call.get("bias"))
    return b.local(call, (*x.dims[:-1], (features,) if features != 1 else ()), x)


def _product(b: Builder, call: Call, x: Stream | Const, y: Stream | Const) -> Dims:
    """The layout of ``x @ y``."""
    inner = x.dims[-1], y.dims[-2] if len(y.dims) > 1 else y.dims[-1]
    if any(TIME in d for d in inner):
        raise Refused(
            f"`{call.op}` sums over the frames of the clip",
            "attention as F.scaled_dot_product_attention(is_causal=True); a mean over time at the end of the network",
        )
    if any(BATCH in d for d in inner):
        raise Refused(f"`{call.op}` mixes the rows of the batch", "the batch as a dimension of its own")
    rows: tuple[Dim, ...] = (x.dims[-2],) if len(x.dims) > 1 else ()
    columns: tuple[Dim, ...] = (y.dims[-1],) if len(y.dims) > 1 else ()
    heads = [v for v in (Const(0, x.dims[:-2], x.value) if isinstance(x, Const) else x, y) if v is not None]
    batch = _joined(b, call, [h.dims[:-2] for h in heads])
    return (*batch, *rows, *columns)


def _joined(b: Builder, call: Call, layouts: list[Dims]) -> Dims:
    from ..axes import joined_dims

    dims = joined_dims(layouts)
    if dims is None:
        raise Misfit(f"`{call.op}` joins batches that do not fit", "reshape one of them")
    return dims


@rule("aten.matmul.default", "aten.bmm.default", "aten.mm.default", "aten.mv.default", "aten.dot.default")
def matmul(b: Builder, call: Call) -> Value:
    """A product whose rows or batch are time."""
    call = with_explicit(b, call)
    x, y = [v for v in call.args.values() if isinstance(v, (Stream, Const))][:2]
    scores = scores_of(b, call, x, y)
    return scores or over_frames(b, call, x, y) or b.local(call, _product(b, call, x, y), lead(call.streams))


@rule("aten.baddbmm.default", keeps_clocked=True)
def baddbmm(b: Builder, call: Call) -> Value:
    """A product and a sum; or scores of attention and their mask."""
    scores = scores_of(b, call, call["batch1"], call["batch2"])
    if scores is not None:
        return masked_product(b, call, scores, call["self"])
    return added(b, b.beside(call))


@rule("aten.addmm.default", "aten.addbmm.default", "aten.addmv.default")
def added(b: Builder, call: Call) -> Stream:
    """A product and a sum."""
    call = with_explicit(b, call)
    add, x, y = [v for v in call.args.values() if isinstance(v, (Stream, Const))][:3]
    return b.local(call, _joined(b, call, [add.dims, _product(b, call, x, y)]), lead(call.streams))


@rule("aten.cdist.default", "aten._cdist_forward.default", "aten._euclidean_dist.default")
def cdist(b: Builder, call: Call) -> Stream:
    """Distances between the vectors of a frame and others."""
    call = with_explicit(b, call)
    x, y = call["x1"], call["x2"]
    for v in (x, y):
        if TIME in v.dims[-1]:
            raise Refused(f"`{call.op}` sums over the frames of the clip", "vectors of channels: (…, T, C)")
        if BATCH in v.dims[-1] or (BATCH in x.dims[-2] and BATCH in y.dims[-2]):
            raise Refused(f"`{call.op}` mixes the rows of the batch", "the batch as a dimension of its own")
    return b.local(call, (*_joined(b, call, [x.dims[:-2], y.dims[:-2]]), x.dims[-2], y.dims[-2]), lead(call.streams))


@rule("aten.bilinear.default")
def bilinear(b: Builder, call: Call) -> Stream:
    """A bilinear map of channels."""
    call = with_explicit(b, call)
    x, y, weight = call["input1"], call["input2"], call["weight"]
    if any(f in v.dims[-1] for v in (x, y) for f in (TIME, BATCH)) or not isinstance(weight, Const):
        raise Refused("`bilinear` maps frames or rows, or by a weight that depends on the stream", "channels last: (B, T, C)")
    features = weight.value.shape[0]
    dims = (*_joined(b, call, [x.dims[:-1], y.dims[:-1]]), (features,) if features != 1 else ())
    return b.local(call, dims, lead(call.streams))


@rule("aten.linalg_cross.default")
def cross(b: Builder, call: Call) -> Stream:
    """The cross product of vectors that lie beside time."""
    call = with_explicit(b, call)
    dims = _joined(b, call, [call["self"].dims, call["other"].dims])
    dim = int(call["dim"]) % len(dims)
    if TIME in dims[dim] or BATCH in dims[dim]:
        raise Refused("`cross` of vectors that lie along time or rows", "vectors of channels")
    return b.local(call, dims, lead(call.streams))


@rule("aten.embedding.default")
def embedding(b: Builder, call: Call) -> Stream:
    """A row of a table for every index."""
    weight, indices = call["weight"], call["indices"]
    if not isinstance(weight, Const) or not isinstance(indices, Stream):
        raise Refused("embedding of a table that depends on the stream", "a table of parameters")
    width = weight.value.shape[1]
    b.limit(indices, weight.value.shape[0])
    return b.local(call, (*indices.dims, (width,) if width != 1 else ()), indices)
