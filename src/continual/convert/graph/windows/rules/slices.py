"""Slices of a tensor, over time and over other dimensions, and writes into slices."""

from __future__ import annotations

from typing import Any

import torch

from ...values import Const
from ..sizes import Unfollowed
from ..tasks import Select, Slice, Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Wire, resized
from .convolution import sliding
from .pointwise import alike, timed

FAR = 2**62


def bounds(size: int, start: Any, end: Any) -> tuple[int, int]:
    """The start and the end of a slice."""
    i = 0 if start is None else start
    j = size if end is None else end
    i = min(size, max(0, i + size if i < 0 else i))
    return i, max(i, min(size, max(0, j + size if j < 0 else j)))


def sliced(w: Walk, call: Call, x: Task, first: int, count: int, step: int = 1) -> Task:
    """A number of positions ``first, first + step, …`` of a task."""
    wire = x.wire
    if (first, count, step) == (0, wire.n, 1):
        return x
    if not wire.alone and step > 1:
        raise Unfollowed("every so many positions of merged time")
    last = (wire.n - wire.b - 1 - first) // step
    made = Wire(wire.dims, count, wire.stride * step, max(0, -(-(wire.a - first) // step)), max(0, count - 1 - last))
    return w.add(call, Slice, [x], made, first=first, step=step, inner=True)


@rule("aten.slice.Tensor", "aten.narrow.default")
def slices(w: Walk, call: Call) -> Any:
    """A slice of a dimension."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    dim = call["dim"] % len(wire.dims)
    size = w.shape(x)[dim]
    if call.op == "narrow":
        i, j, step = call["start"] % max(1, size), call["start"] % max(1, size) + call["length"], 1
    else:
        (i, j), step = bounds(size, call["start"], call["end"]), call["step"]
    count = max(0, -(-(j - i) // step))
    if count == size:
        return x
    if dim != wire.dim:
        if any(isinstance(f, str) for f in wire.dims[dim]):
            raise Unfollowed("some of the rows")
        return w.positionwise(call, resized(wire.dims, {dim: count}), wire)
    if not count:
        raise Unfollowed("no positions")
    if not wire.alone:  # groups of entries
        own = [x, dim, 0, FAR, step]
        return sliding(w, call, wire.dims, target="aten.slice.Tensor", args=own, extent=1, step=step, start=-i)
    return sliced(w, call, x, i, count, step)


def selected(w: Walk, call: Call, x: Task, dim: int, index: int) -> Task:
    """One position of time."""
    wire = x.wire
    dims = tuple(d for i, d in enumerate(wire.dims) if i != dim)
    return w.add(call, Select, [x], Wire(dims), index=index % wire.n, inner=True)


@rule("aten.select.int")
def select(w: Walk, call: Call) -> Any:
    """One entry of a dimension."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    dim = call["dim"] % len(wire.dims)
    dims = tuple(d for i, d in enumerate(wire.dims) if i != dim)
    if dim != wire.dim:
        if any(isinstance(f, str) for f in wire.dims[dim]):
            raise Unfollowed("one of the rows")
        return w.positionwise(call, dims, wire)
    if not wire.alone:
        raise Unfollowed("one position of merged time")
    return selected(w, call, x, dim, call["index"])


@rule("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default", "aten.tensor_split.sections", "aten.unbind.int",
      "aten.unsafe_split.Tensor", "aten.unsafe_chunk.default")  # fmt: skip
def parts(w: Walk, call: Call) -> Any:
    """All ranges of a dimension, or all its entries."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    dim = call["dim"] % len(wire.dims)
    if dim == wire.dim and not wire.alone:
        raise Unfollowed("stretches of merged time")
    if any(isinstance(f, str) for f in wire.dims[dim]) and dim != wire.dim:
        raise Unfollowed("some of the rows")
    number = len(call.node.meta["val"])
    used = {user.args[1] for user in call.node.users if len(user.args) > 1}
    found, at = [], 0
    for i in range(number):
        size = 1 if call.op == "unbind" else w.result_shape(call, i)[dim]
        found.append(_part(w, call, x, dim, at, size, i) if i in used else None)
        at += size
    return found


def _part(w: Walk, call: Call, x: Task, dim: int, at: int, size: int, result: int) -> Task:
    wire = x.wire
    if call.op == "unbind":
        if dim == wire.dim:
            return selected(w, call, x, dim, at)
        dims = tuple(d for i, d in enumerate(wire.dims) if i != dim)
        return w.positionwise(call, dims, wire, target="aten.select.int", args=[x, dim, at], kwargs={}, result=result)
    if dim == wire.dim:
        return sliced(w, call, x, at, size)
    dims = resized(wire.dims, {dim: size})
    return w.positionwise(call, dims, wire, target="aten.narrow.default", args=[x, dim, at, size], kwargs={}, result=result)


@rule("aten.index_select.default", "aten.index.Tensor")
def index(w: Walk, call: Call) -> Any:
    """Entries by constant indices."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    if call.op == "index":
        present = [(d, i) for d, i in enumerate(call["indices"]) if i is not None]
        if len(present) != 1:
            raise Unfollowed("several dimensions at once")
        dim, numbers = present[0]
    else:
        dim, numbers = call["dim"] % len(wire.dims), call["index"]
    if not isinstance(numbers, Const) or numbers.value.ndim != 1 or numbers.value.dtype == torch.bool:
        raise Unfollowed("numbers that are computed")
    if dim != wire.dim:
        if any(isinstance(f, str) for f in wire.dims[dim]):
            raise Unfollowed("some of the rows")
        count = numbers.value.numel()
        return w.positionwise(call, resized(wire.dims, {dim: count}), wire)
    if w.origin.can_change(numbers) or not wire.alone:
        raise Unfollowed("numbers that may change")
    at = [int(i) % wire.n for i in numbers.value.tolist()]
    step = at[1] - at[0] if len(at) > 1 else 1
    if not at or step < 1 or at != list(range(at[0], at[0] + step * len(at), step)):
        raise Unfollowed("positions in another order")
    return sliced(w, call, x, at[0], len(at), step)
