"""Concatenation, stacking, padding, shifts, and writing into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..rotated import Rotated, Rotation
from ..sizes import Unfollowed
from ..sliding import grain_of
from ..tasks import Concat, OpTask, Padded, Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Wire, resized
from .convolution import sliding
from .pointwise import alike, grouped, positioned, timed
from .slices import bounds, sliced


def in_a_row(w: Walk, call: Call, parts: Sequence[Any], dim: int) -> Task:
    """Tensors one after another in time."""
    moving = timed(parts)
    best = max(moving, key=lambda t: t.wire.clean)
    wire = best.wire
    if not wire.alone or any(not t.wire.alone or t.wire.dim != dim or t.wire.stride != wire.stride for t in moving):
        raise Unfollowed("merged time")
    tasks = [p for p in parts if isinstance(p, Task)]
    sizes = [w.shape(p)[dim] for p in parts]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    n, at = starts[-1] + sizes[-1], next(i for i, p in enumerate(parts) if p is best)
    if len(tasks) < len(parts):
        raise Unfollowed("a constant that has no rows")
    margins = (starts[at] + wire.a, n - starts[at] - sizes[at] + wire.b)
    return w.add(call, Concat, tasks, Wire(wire.dims, n, wire.stride, *margins), parts=tuple(starts), sizes=tuple(sizes))


@rule("aten.cat.default")
def cat(w: Walk, call: Call) -> Any:
    """One after another."""
    moving = timed(call["tensors"])
    if moving and call["dim"] % len(moving[0].wire.dims) != moving[0].wire.dim:
        call = grouped(w, positioned(w, call))
    tensors = [p for p in call["tensors"] if 0 not in w.shape(p) or len(w.shape(p)) > 1]
    moving = timed(tensors)
    wire = alike(moving[:1])
    rank = len(wire.dims)
    dim = call["dim"] % rank
    if dim == wire.dim:
        return in_a_row(w, call, tensors, dim)
    alike(moving)
    if len(moving) < len(tensors):
        raise Unfollowed("beside a value of the window")
    for part in moving:
        if any(a != b for i, (a, b) in enumerate(zip(part.wire.dims, wire.dims, strict=True)) if i != dim):
            raise Unfollowed("time lies differently")
    if any(isinstance(f, str) for f in wire.dims[dim]):
        raise Unfollowed("rows one after another")
    size = w.result_shape(call)[dim]
    dims = resized(wire.dims, {dim: size})
    return w.positionwise(call, dims, wire, args=[tensors, dim], kwargs={})


@rule("aten.stack.default")
def stack(w: Walk, call: Call) -> Any:
    """Side by side in a new dimension."""
    tensors = call["tensors"]
    moving = timed(tensors)
    wire = alike(moving)
    if len(moving) != len(tensors) or any(t.wire.dims != wire.dims for t in moving):
        raise Unfollowed("beside a value of the window")
    dim = call["dim"] % (len(wire.dims) + 1)
    size = (len(tensors),) if len(tensors) > 1 else ()
    return w.positionwise(call, (*wire.dims[:dim], size, *wire.dims[dim:]), wire)


@rule("aten.constant_pad_nd.default", "aten.pad.default",
      *(f"aten.{kind}_pad{n}d.default" for kind in ("reflection", "replication") for n in (1, 2, 3)))  # fmt: skip
def pad(w: Walk, call: Call) -> Any:
    """Padding."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    amounts = list(call.get("pad", call.get("padding")))
    rank = len(wire.dims)
    per = {rank - 1 - i: (amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2)}
    if any(p != (0, 0) and any(isinstance(f, str) for f in wire.dims[d]) for d, p in per.items() if d != wire.dim):
        raise Unfollowed("more rows")
    left, right = per.get(wire.dim, (0, 0))
    sizes = w.result_shape(call)
    if (left, right) == (0, 0):
        return w.positionwise(call, resized(wire.dims, {d: sizes[d] for d, p in per.items() if p != (0, 0)}), wire)
    constant = call.op == "constant_pad_nd" or (call.op == "pad" and call.get("mode", "constant") == "constant")
    others = any(p != (0, 0) for d, p in per.items() if d != wire.dim)
    if not wire.alone:  # groups of entries
        if not constant or others:
            raise Unfollowed("pads merged time")
        filled = float(call.get("value", 0.0) or 0.0)
        own = [x, [0] * 2 * (rank - 1 - wire.dim) + [0, 0], 0.0]
        return sliding(
            w, call, wire.dims, target="aten.constant_pad_nd.default", args=own, extent=1, step=1, start=left, fill=filled
        )
    n = wire.n + left + right
    made = Wire(wire.dims, n, wire.stride, max(0, wire.a + left), max(0, wire.b + right))
    if constant and not others:
        value = call.get("value", 0.0)
        return w.add(call, Padded, [x], made, start=left, fill=float(value or 0.0))
    if constant:
        raise Unfollowed("pads time and other dimensions")
    return _mirrored(w, call, x, left, right, others)


def _mirrored(w: Walk, call: Call, x: Task, left: int, right: int, others: bool) -> Task:
    """Reflected, replicated or circular padding of time: the frames at the edges joined with the positions."""
    if others or left < 0 or right < 0:
        raise Unfollowed("pads time and other dimensions")
    n, reflect = x.wire.n, "reflect" in call.op or call.get("mode") == "reflect"
    if not reflect and call.get("mode") == "circular":
        before, behind = list(range(n - left, n)), list(range(right))
    elif reflect:
        before, behind = list(range(left, 0, -1)), list(range(n - 2, n - 2 - right, -1))
    else:
        before, behind = [0] * left, [n - 1] * right
    parts = [sliced(w, call, x, i, 1) for i in before] + [x] + [sliced(w, call, x, i, 1) for i in behind]
    return in_a_row(w, call, parts, x.wire.dim)


@rule("aten.roll.default")
def roll(w: Walk, call: Call) -> Any:
    """A shift of dimensions, around the edges."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    dims = [d % len(wire.dims) for d in call["dims"]]
    if not dims or any(isinstance(f, str) for d in dims for f in wire.dims[d] if d != wire.dim):
        raise Unfollowed("all elements")
    if wire.dim not in dims:
        return w.positionwise(call, wire.dims, wire)
    shifts = dict(zip(dims, call["shifts"], strict=True))
    if len(shifts) < len(dims):
        raise Unfollowed("a dimension twice")
    shift, size = shifts.pop(wire.dim), grain_of(wire, 1)[0]
    if shifts:  # the others position by position
        args = [x, list(shifts.values()), list(shifts)]
        x = w.positionwise(call, wire.dims, wire, target=call.name, args=args, kwargs={})
    entries = wire.n * size
    shift = (shift + entries // 2) % entries - entries // 2  # the shorter way round
    by = Rotation(shift, size)
    return w.add(call, Rotated, [x], by.wire(wire, wire.dims), by=by) if shift else x


@rule("aten.slice_scatter.default")
def slice_scatter(w: Walk, call: Call) -> Any:
    """A slice of a tensor is replaced by another tensor."""
    x, y = call["self"], call["src"]
    rank = len(w.result_shape(call))
    dim = call["dim"] % rank
    size = w.result_shape(call)[dim]
    (i, j), step = bounds(size, call["start"], call["end"]), call["step"]
    if (i, j, step) == (0, size, 1) and isinstance(y, Task):
        return y
    moving = timed([x, y])
    wire = alike(moving[:1])
    plain = isinstance(x, Task) and x.uniform is not None and not x.wire.timed
    if dim == wire.dim and plain:
        if step != 1 or not wire.alone or j - i != wire.n:
            raise Unfollowed("every so many positions")
        made = Wire(wire.dims, size, wire.stride, wire.a + i, wire.b + size - j)
        return w.add(call, Padded, [y], made, start=i, fill=float(x.uniform))
    if dim == wire.dim:
        if step != 1 or not wire.alone or not (isinstance(x, Task) and x.wire.timed):
            raise Unfollowed("every so many positions")
        if not isinstance(y, Task) or w.shape(y)[dim] != j - i:
            raise Unfollowed("a constant in the window")
        parts = [sliced(w, call, x, 0, i)] if i else []
        parts += [y, *([sliced(w, call, x, j, size - j)] if j < size else [])]
        return in_a_row(w, call, parts, dim)
    call = positioned(w, call)
    x, y = call["self"], call["src"]
    if not all(isinstance(v, Task) and v.wire.timed for v in (x, y)):
        raise Unfollowed("beside a value of the window")
    alike(moving)
    if any(a != b for d, (a, b) in enumerate(zip(x.wire.dims, y.wire.dims, strict=True)) if d != dim):
        raise Unfollowed("time lies differently")
    return w.positionwise(call, x.wire.dims, x.wire)


@rule("aten.select_scatter.default")
def select_scatter(w: Walk, call: Call) -> Any:
    """One entry of a dimension is replaced by a tensor."""
    x, y = call["self"], call["src"]
    wire = alike(timed([x]))
    dim = call["dim"] % len(wire.dims)
    if dim != wire.dim:
        y = y if isinstance(y, Task) and y.wire.timed else None
        if y is None or any(a != b for a, b in zip(y.wire.dims, [d for i, d in enumerate(wire.dims) if i != dim], strict=True)):
            raise Unfollowed("beside a value of the window")
        alike([x, y])
        return w.positionwise(call, wire.dims, wire)
    if not isinstance(y, Task) or y.wire.timed or not wire.alone:
        raise Unfollowed("merged time")
    at = call["index"] % wire.n
    op, slots, _ = w.operation(call, "aten.unsqueeze.default", [y, dim], {}, [y])
    own = replace(y.wire, dims=(*y.wire.dims[:dim], (), *y.wire.dims[dim:]))
    one = w.add(call, OpTask, [y], own, op=op, slots=slots, entire=(True,), inner=True)
    parts = [sliced(w, call, x, 0, at)] if at else []
    parts += [one, *([sliced(w, call, x, at + 1, wire.n - at - 1)] if at + 1 < wire.n else [])]
    return in_a_row(w, call, parts, dim)


@rule("aten.copy.default")
def copied(w: Walk, call: Call) -> Any:
    """The elements of another tensor."""
    y = call["src"]
    if not isinstance(y, Task) or w.shape(y) != w.result_shape(call) or y.dtype != call.node.meta["val"].dtype:
        raise Unfollowed("of another shape or type")
    return y
