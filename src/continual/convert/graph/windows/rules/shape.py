"""Reshapes, permutations and expansions."""

from __future__ import annotations

import math
from typing import Any

from ...axes import TIME, Dims, regrouped
from ...exec_context import Shape
from ..sizes import ROWS, Unfollowed
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Wire
from .pointwise import alike, timed


@rule("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.unflatten.int",
      "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default", "aten.view_copy.default")  # fmt: skip
def reshape(w: Walk, call: Call) -> Any:
    """The same elements in the same order."""
    x: Task = call["self"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    dims, group = regrouped(wire.dims, sizes, ROWS, wire.n), 1
    if dims is None or sum(TIME in d for d in dims) != 1:
        dims, group = _in_groups(wire, sizes)
    return w.positionwise(call, dims, wire, target="aten.reshape.default", args=[x, Shape(dims)], kwargs={}, group=group)


def _in_groups(wire: Wire, sizes: tuple[int, ...]) -> tuple[Dims, int]:
    """The layout after a reshape that joins each group of ``k`` positions into one: ``n`` becomes ``n/k`` and ``k``."""
    behind = math.prod(_size(d, wire.n) for d in wire.dims[wire.dim + 1 :])
    inner = math.prod(int(f) for f in wire.axis.inner) * behind
    below = 1
    for i in range(len(sizes) - 1, -1, -1):
        if below > inner and below % inner == 0 and wire.n % (below // inner) == 0:
            group = below // inner
            if group < wire.n and sizes[i] % (wire.n // group) == 0:
                before = (*wire.dims[: wire.dim], (*wire.axis.outer, TIME), (group, *wire.axis.inner), *wire.dims[wire.dim + 1 :])
                dims = regrouped(before, sizes, ROWS, wire.n // group)
                if dims is not None:
                    return dims, group
        below *= sizes[i]
    raise Unfollowed("a reshape takes time apart")


def _size(dim: Any, n: int) -> int:
    return math.prod(n if f == TIME else ROWS if isinstance(f, str) else f for f in dim)


@rule(
    "aten.permute.default",
    "aten.transpose.int",
    "aten.t.default",
    "aten.movedim.int",
    "aten.numpy_T.default",
    "aten.swapaxes.default",
)
def permute(w: Walk, call: Call) -> Any:
    """Dimensions in another order."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    order = order_of(call, len(wire.dims))
    dims = tuple(wire.dims[i] for i in order)
    return w.positionwise(call, dims, wire, target="aten.permute.default", args=[x, order], kwargs={})


def order_of(call: Call, rank: int) -> list[int]:
    """The order of the dimensions."""
    if call.op == "permute":
        return [d % rank for d in call["dims"]]
    order = list(range(rank))
    if call.op in ("t", "numpy_T"):
        return order[::-1]
    if call.op == "movedim":
        source, target = call["source"] % rank, call["destination"] % rank
        order.remove(source)
        order.insert(target, source)
        return order
    a, b = (call[n] % rank for n in call.positional[1:3])
    order[a], order[b] = order[b], order[a]
    return order


@rule("aten.expand.default", "aten.repeat.default")
def expand(w: Walk, call: Call) -> Any:
    """Repeat dimensions."""
    x: Task = call["self"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    before = len(sizes) - len(wire.dims)
    dims = tuple(_expanded(wire.dims[i - before] if i >= before else (), s, wire.n) for i, s in enumerate(sizes))
    if call.op == "repeat":
        return w.positionwise(call, dims, wire)
    return w.positionwise(call, dims, wire, args=[x, Shape(dims)], kwargs={})


def _expanded(dim: Any, size: int, n: int) -> Any:
    if _size(dim, n) == size:
        return dim
    if any(isinstance(f, str) for f in dim) or size % ROWS == 0:
        raise Unfollowed("rows or positions several times")
    return (size,)
