"""Products of matrices, and attention."""

from __future__ import annotations

from typing import Any

from ...axes import BATCH, TIME, Dim, Dims
from ...values import Const
from ..sizes import Unfollowed
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Wire, sized
from .pointwise import alike, timed


def still(dim: Dim, n: int) -> Dim:
    """A dimension with its positions as plain entries: all of them are needed."""
    return tuple(n if f == TIME else f for f in dim)


@rule("aten.linear.default")
def linear(w: Walk, call: Call) -> Any:
    """Over the last dimension."""
    x: Task = call["input"]
    if not isinstance(x, Task) or not isinstance(call["weight"], Const):
        raise Unfollowed("weights that are computed of the window")
    wire = alike(timed([x]))
    if wire.dim == len(wire.dims) - 1 or any(isinstance(f, str) for f in wire.dims[-1]):
        raise Unfollowed("over time")
    size = call["weight"].value.shape[0]
    return w.positionwise(call, (*wire.dims[:-1], sized(size)), wire)


@rule("aten.addmm.default")
def addmm(w: Walk, call: Call) -> Any:
    """A product of matrices and a sum."""
    x: Task = call["mat1"]
    if not isinstance(x, Task) or not isinstance(call["mat2"], Const) or isinstance(call["self"], Task) or not x.wire.timed:
        raise Unfollowed("a product of computed values")
    if x.wire.dim != 0 or call["self"].value.ndim > 1:
        raise Unfollowed("over time")
    size = call["mat2"].value.shape[1]
    return w.positionwise(call, (x.wire.dims[0], sized(size)), x.wire)


@rule("aten.matmul.default", "aten.mm.default", "aten.bmm.default")
def matmul(w: Walk, call: Call) -> Any:
    """Products of matrices, row by row of the first, or batch by batch."""
    a, b = call["self"], call["other" if "other" in call.args else "mat2"]
    ranks, rank = (len(w.shape(a)), len(w.shape(b))), len(w.result_shape(call))
    if min(ranks) < 2 or a is b:
        raise Unfollowed("vectors, or a matrix by itself")
    da, db = _of(w, a), _of(w, b)
    wire = alike(timed([a, b])[:1])
    ta, tb = _time(a), _time(b)
    batch = _batch(da[:-2], db[:-2], rank - 2)
    own: Wire | None = a.wire if isinstance(a, Task) and ta is not None else None
    if ta is not None and ta - ranks[0] < -2 and (tb is None or tb - ranks[1] < -2):  # time is among the batch
        alike(timed([a, b]))
        if tb is not None and ta - ranks[0] != tb - ranks[1]:
            raise Unfollowed("time lies differently")
        return w.positionwise(call, (*batch, da[-2], db[-1]), wire, tables=_tables(w, b, ta - ranks[0]))
    if ta is None and tb is not None and tb - ranks[1] < -2:
        return w.positionwise(call, (*batch, da[-2], db[-1]), wire, tables=_tables(w, a, tb - ranks[1]))
    if ta is None and tb is not None and tb == ranks[1] - 1:  # columns of the second
        return w.positionwise(call, (*batch, da[-2], db[-1]), b.wire)
    if own is not None and ta == ranks[0] - 2:  # rows of the first, and of the second all
        dims = (
            *(still(d, b.wire.n) if tb is not None else d for d in batch),
            da[-2],
            still(db[-1], b.wire.n if tb is not None else 1),
        )
        if tb is not None and tb - ranks[1] < -2:
            raise Unfollowed("time lies differently")
        return w.positionwise(call, dims, own, entire=[b] if isinstance(b, Task) else [])
    raise Unfollowed("over time")


def _of(w: Walk, value: Any) -> Dims:
    if isinstance(value, Task):
        return value.wire.dims
    return tuple(sized(s) for s in w.shape(value))


def _time(value: Any) -> int | None:
    return value.wire.dim if isinstance(value, Task) and value.wire.timed else None


def _batch(a: Dims, b: Dims, rank: int) -> Dims:
    """The layout of the dimensions before the matrices."""
    found: list[Dim] = []
    for i in range(rank):
        own = {d for dims in (a, b) if (d := dims[i - rank + len(dims)] if i - rank + len(dims) >= 0 else ())}
        if len({tuple(f for f in d if isinstance(f, str)) for d in own}) > 1:
            raise Unfollowed("rows lie differently")
        found.append(max(own, key=len) if own else ())
    return tuple(found)


def _tables(w: Walk, value: Any, place: int) -> list[tuple[Const, int]]:
    """A constant that varies over time, which is in a dimension of the batch."""
    if not isinstance(value, Const):
        return []
    dim = place + value.value.ndim
    return [(value, dim)] if dim >= 0 and value.value.shape[dim] != 1 else []


@rule("aten.scaled_dot_product_attention.default")
def attention(w: Walk, call: Call) -> Any:
    """Computes query by query, on all keys and values, or frame by frame."""
    q, k, v = call["query"], call["key"], call["value"]
    mask = call.get("attn_mask")
    if not all(isinstance(t, Task) for t in (q, k, v)):
        raise Unfollowed("constants")
    wire, rank = alike(timed([q])), len(w.result_shape(call))
    size = w.result_shape(call)[-1]
    dims = (*wire.dims[:-1], sized(size))
    if wire.dim < rank - 2:
        if any(not t.wire.timed or t.wire.dim != wire.dim for t in (k, v)):
            raise Unfollowed("time lies differently")
        alike([q, k, v])
        tables = []
        if isinstance(mask, Const):
            tables = _tables(w, mask, wire.dim - rank)
        elif mask is not None:
            raise Unfollowed("a mask that is computed")
        return w.positionwise(call, dims, wire, tables=tables)
    if (
        k is q
        or v is q
        or wire.dim != rank - 2
        or mask is not None
        or call.get("is_causal")
        or any(t.wire.timed and t.wire.dim < rank - 2 for t in (k, v))
    ):
        return w.window(call, dims, wire)
    return w.positionwise(call, dims, wire, entire=[k, v])


@rule("aten.einsum.default")
def einsum(w: Walk, call: Call) -> Any:
    """Sums of products whose result keeps the letter of time."""
    equation, tensors = str(call["equation"]).replace(" ", ""), call["tensors"]
    if "." in equation or "->" not in equation:
        raise Unfollowed("an equation without a result")
    terms, out = equation.split("->")
    letters = terms.split(",")
    moving = [(name, t) for name, t in zip(letters, tensors, strict=True) if isinstance(t, Task) and t.wire.timed]
    wire = alike([t for _, t in moving])
    times = {name[t.wire.dim] for name, t in moving}
    time = times.pop()
    if times or time not in out or any(isinstance(t, Task) and not t.wire.timed for t in tensors):
        raise Unfollowed("over time")
    tables = [(t, name.index(time)) for name, t in zip(letters, tensors, strict=True) if isinstance(t, Const) and time in name]
    dims = {c: d for name, t in moving for c, d in zip(name, t.wire.dims, strict=True)}
    rows = {c for c, d in dims.items() if BATCH in d}
    if any(c not in out for c in rows) or any(
        len({d[n.index(c)] for n, d in ((n, t.wire.dims) for n, t in moving) if c in n}) > 1 for c in rows
    ):
        raise Unfollowed("over rows")
    for name, t in zip(letters, tensors, strict=True):
        if isinstance(t, Const):
            dims |= {c: sized(s) for c, s in zip(name, w.shape(t), strict=True) if c not in dims}
    return w.positionwise(call, tuple(dims[c] for c in out), wire, tables=tables)
