"""Pools."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from ...exec_context import Shape
from ...instructions import resolve
from ..sizes import Unfollowed
from ..sliding import Sliding
from ..tasks import Table, Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Axis, sized
from .convolution import sliding, spread, with_sizes
from .pointwise import alike, timed


def _geometry(w: Walk, call: Call, x: Task) -> tuple[int, list[int], list[int], list[int]]:
    space = int(call.op[len("max_pool") : len("max_pool") + 1])
    size = spread(call["kernel_size"], space)
    return space, size, spread(call["stride"] or size, space), spread(call["padding"], space)


@rule("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default")
def max_pool(w: Walk, call: Call) -> Any:
    """The largest value of a window."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    space, size, strides, pads = _geometry(w, call, x)
    first = len(wire.dims) - space
    dims = with_sizes(wire.dims, first, w.result_shape(call), wire.dim)
    if wire.dim < first:
        return w.positionwise(call, dims, wire)
    j, dilations = wire.dim - first, spread(call["dilation"], space)
    start, pads = pads[j], [0 if i == j else p for i, p in enumerate(pads)]
    extent = (size[j] - 1) * dilations[j] + 1
    args = [x, size, strides, pads, dilations, call["ceil_mode"]]
    return sliding(w, call, dims, target=call.name, args=args, extent=extent, step=strides[j], start=start, fill=-math.inf)


@rule("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def avg_pool(w: Walk, call: Call) -> Any:
    """The mean of a window. At the edges its divisor differs."""
    x: Task = call["self"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    space, size, strides, pads = _geometry(w, call, x)
    first = len(wire.dims) - space
    dims = with_sizes(wire.dims, first, sizes, wire.dim)
    if wire.dim < first:
        return w.positionwise(call, dims, wire)
    j = wire.dim - first
    start, over = pads[j], (sizes[wire.dim] - 1) * strides[j] + size[j] - pads[j] - wire.n
    inside = [0 if i == j else p for i, p in enumerate(pads)]
    fixed_divisor = call.get("divisor_override")
    counted = bool(call["count_include_pad"])
    last = [fixed_divisor] if space > 1 else []
    args = [x, size, strides, inside, call["ceil_mode"], counted, *last]
    made: Sliding = sliding(w, call, dims, target=call.name, args=args, extent=size[j], step=strides[j], start=start)  # type: ignore[assignment]
    if (start or over > 0) and fixed_divisor is None and not (counted and over <= start):
        if made.grain != (1, 1):
            raise Unfollowed("edges of groups")
        _at_edges(w, call, made, (space, j, size, strides, inside), (start, max(0, over)))
    return made


def _at_edges(w: Walk, call: Call, made: Sliding, geometry: Any, more: tuple[int, int]) -> None:
    """Correct the divisor of results whose window reaches beyond the edges."""
    space, j, size, strides, inside = geometry
    x: Task = call["self"]
    counted = bool(call["count_include_pad"])
    shape = w.shape(x)[len(x.wire.dims) - space :]
    ones = torch.ones(1, 1, *shape, dtype=torch.float64)
    own = [call.args[n] for n in call.positional[1:]]
    right = resolve(call.name)(ones, *own)
    pads = [0] * (2 * space)
    pads[2 * (space - 1 - j)], pads[2 * (space - 1 - j) + 1] = more
    pool: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[space]
    plain = pool(F.pad(ones, pads), size, strides, inside, call["ceil_mode"], counted)
    table = (right / plain)[0, 0]
    val = call.node.meta["val"]
    edges = w.emit.constant(f"{made.path}.edges", table.to(w.captured.inputs[0].device, val.dtype))
    made.edges = Table(edges.slot, w.draft.new_slot(), Axis(j, (), ()), made.wire.n)


@rule("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default",
      "aten._adaptive_avg_pool2d.default", "aten._adaptive_avg_pool3d.default")  # fmt: skip
def adaptive(w: Walk, call: Call) -> Any:
    """Pools to a size: over space alone, or over the window."""
    x: Task = call["self"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    space = len(call["output_size"])
    first = len(wire.dims) - space
    dims = with_sizes(wire.dims, first, sizes, wire.dim)
    if wire.dim < first:
        return w.positionwise(call, dims, wire)
    if sizes[wire.dim] != wire.n or not wire.alone:
        return _evenly(w, call, x, space)
    others = tuple(sized(s) for s in sizes[first:])
    target = Shape(tuple(wire.dims[wire.dim] if i == wire.dim - first else o for i, o in enumerate(others)))
    return w.positionwise(call, dims, wire, args=[x, target], kwargs={})


def _evenly(w: Walk, call: Call, x: Task, space: int) -> Any:
    """Pools of equal size that do not overlap are an ordinary pool."""
    wire, sizes = x.wire, w.result_shape(call)
    first = len(wire.dims) - space
    sizes_of_input = w.shape(x)[first:]
    target = sizes[first:]
    if not wire.alone or sizes[wire.dim] == 1 or any(g % t for g, t in zip(sizes_of_input, target, strict=True)):
        raise Unfollowed("over the window")
    size = [g // t for g, t in zip(sizes_of_input, target, strict=True)]
    dims = with_sizes(wire.dims, first, sizes, wire.dim)
    j = wire.dim - first
    args = [x, size, size, [0] * space, False, True]
    return sliding(w, call, dims, target=f"aten.avg_pool{space}d.default", args=args, extent=size[j], step=size[j], start=0)
