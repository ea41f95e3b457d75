"""Operations element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...axes import TIME, Dim, Dims
from ...exec_context import Shape
from ...values import Const, leaves
from ..sizes import Unfollowed, tasks_in
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Wire

HANDED_ON = ("aten.alias.default", "aten.detach.default", "aten.lift_fresh_copy.default", "aten.dropout.default",
             "aten.feature_dropout.default", "aten.alpha_dropout.default", "aten.clone.default", "aten.contiguous.default")  # fmt: skip
LIKE = ("aten._to_copy", "aten.to", "aten.type_as", "aten.zeros_like", "aten.ones_like", "aten.full_like", "aten.prelu",
        "aten._conj", "aten.view_as_complex_copy", "aten.gelu", "aten.nan_to_num")  # fmt: skip


def timed(values: Sequence[Any]) -> list[Task]:
    """The tasks that have positions."""
    return [t for t in tasks_in(list(values)) if t.wire.timed]


def alike(tasks: Sequence[Task]) -> Wire:
    """The wire of tasks whose positions are the same.

    Raises:
        Unfollowed: they are not.
    """
    if not tasks:
        raise Unfollowed("no positions")
    first = tasks[0].wire
    for t in tasks[1:]:
        if (t.wire.n, t.wire.stride) != (first.n, first.stride):
            raise Unfollowed("positions of different strides")
    return first


def joined(w: Walk, values: Sequence[Any], rank: int) -> tuple[Dims, list[tuple[Const, int]]]:
    """The layout of an elementwise result, and the constants among its inputs that vary over time."""
    moving = timed(values)
    alike(moving)
    out: list[Dim] = []
    for i in range(rank):
        found = {d for t in moving if (d := _dim(t.wire.dims, i, rank))}
        with_time = {d for d in found if TIME in d}
        if len(with_time) > 1 or (with_time and len(found) > 1) or len({_symbols(d) for d in found}) > 1:
            raise Unfollowed("time lies differently")
        out.append(max(found, key=len) if found else ())
    tables = []
    for value in leaves(list(values)):
        if isinstance(value, Const) or (isinstance(value, Task) and not value.wire.timed):
            sizes = w.shape(value)
            for i, size in enumerate(sizes):
                at = i + rank - len(sizes)
                if size == 1:
                    continue
                if TIME in out[at]:
                    if not isinstance(value, Const):
                        raise Unfollowed("a value of the whole window for each position")
                    tables.append((value, i))
                elif not out[at]:
                    out[at] = value.wire.dims[i] if isinstance(value, Task) else (size,)
    return tuple(out), tables


def _dim(dims: Dims, i: int, rank: int) -> Dim:
    at = i - (rank - len(dims))
    return dims[at] if at >= 0 else ()


def _symbols(dim: Dim) -> tuple[str, ...]:
    return tuple(f for f in dim if isinstance(f, str))


def grouped(w: Walk, call: Call) -> Call:
    """A call whose values all have the positions of the one of the largest stride: groups of entries, where its own are that."""
    strides = {t.wire.stride for t in timed(list(call.args.values()))}
    if len(strides) < 2:
        return call

    def in_groups(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [in_groups(v) for v in value]
        if not isinstance(value, Task) or not value.wire.timed or (size := max(strides) // value.wire.stride) == 1:
            return value
        wire = value.wire
        if max(strides) % wire.stride or wire.n % size or wire.n == size:
            raise Unfollowed("positions of different strides")
        own = (*wire.axis.outer, TIME, size, *wire.axis.inner)
        dims = tuple(own if i == wire.dim else d for i, d in enumerate(wire.dims))
        return w.positionwise(
            call, dims, wire, target="aten.reshape.default", args=[value, Shape(dims)], kwargs={}, group=size, inner=True
        )

    return replace(call, args={n: in_groups(v) for n, v in call.args.items()})


@rule("pointwise", *LIKE)
def pointwise(w: Walk, call: Call) -> Any:
    """Each element by itself."""
    call = grouped(w, positioned(w, call))
    values = list(call.args.values())
    rank = len(w.result_shape(call))
    dims, tables = joined(w, values, rank)
    return w.positionwise(call, dims, alike(timed(values)), tables=tables)


def positioned(w: Walk, call: Call) -> Call:
    """A call in which values of equal elements, and constants repeated for rows and positions, have positions where others have."""
    moving = timed(list(call.args.values()))
    if not moving:
        raise Unfollowed("no positions")
    like = max(moving, key=lambda t: len(t.wire.dims))

    def at_positions(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [at_positions(v) for v in value]
        if isinstance(value, Task) and value.uniform is not None and not value.wire.timed and w.shape(value):
            back = like.wire.dim - len(like.wire.dims)
            sizes = w.shape(value)
            return w.filled_beside(call, value, like) if -back <= len(sizes) and sizes[back] != 1 else value
        if isinstance(value, Task) and value.copies is not None and not value.wire.timed:
            return _repeated(w, call, value, like)
        return value

    return replace(call, args={n: at_positions(v) for n, v in call.args.items()})


def _repeated(w: Walk, call: Call, value: Task, like: Task) -> Task:
    """A constant that is repeated along the dimension of time of another value, at its positions."""
    back, sizes = like.wire.dim - len(like.wire.dims), w.shape(value)
    own: Const = value.copies  # type: ignore[assignment]
    varies = own.value.ndim >= -back and own.value.shape[back] != 1
    if varies or len(sizes) < -back or sizes[back] != w.shape(like)[like.wire.dim]:
        return value
    return w.copied_beside(call, value, like)


@rule(*HANDED_ON)
def handed_on(w: Walk, call: Call) -> Any:
    """Operations that return their input."""
    if call.name == "aten.clone.default" and call.get("memory_format") is not None and w.rows is not None:
        return w.window(call)
    return next(iter(call.args.values()))


@rule("aten.glu.default", "aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default",
      "aten.cumsum.default", "aten.cumprod.default", "aten.flip.default", "aten.sort.default", "aten.topk.default",
      "aten.logcumsumexp.default", "aten.cummax.default")  # fmt: skip
def along(w: Walk, call: Call) -> Any:
    """Operations along dimensions that remain: softmax, cumulative sums, sorting."""
    x: Task = next(iter(call.args.values()))
    wire = alike(timed([x]))
    dim = call.get("dims", call.get("dim", -1))
    along = {d % len(wire.dims) for d in (dim if isinstance(dim, (list, tuple)) else [dim])}
    val = call.node.meta["val"]
    many = isinstance(val, (list, tuple))
    dims = tuple(() if i in along else d for i, d in enumerate(wire.dims))
    sizes = w.result_shape(call, 0) if many else w.result_shape(call)
    own = tuple((sizes[i],) if i in along and sizes[i] != 1 else d for i, d in enumerate(dims))
    if any(isinstance(f, str) for i in along if i != wire.dim for f in wire.dims[i]):
        raise Unfollowed("over rows")
    if wire.dim in along:
        if call.op in ("glu", "topk"):
            raise Unfollowed("other positions")
        return w.window(call, [wire.dims] * len(val) if many else wire.dims, wire)
    return w.positionwise(call, [own] * len(val) if many else own, wire)


@rule("aten.embedding.default")
def embedding(w: Walk, call: Call) -> Any:
    """A row of a table for each number."""
    x: Task = call["indices"]
    if not isinstance(call["weight"], Const) or not isinstance(x, Task):
        raise Unfollowed("a table that is computed")
    wire = alike(timed([x]))
    return w.positionwise(call, (*wire.dims, (call["weight"].value.shape[1],)), wire)
