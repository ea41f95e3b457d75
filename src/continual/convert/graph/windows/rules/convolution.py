"""Convolutions and unfolding."""

from __future__ import annotations

from typing import Any

from ...axes import TIME
from ...exec_context import Ref
from ...values import Const
from ..sizes import Unfollowed
from ..sliding import Sliding, grain_of, sliding_wire
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Axis, resized, sized
from ..work import weight_of
from .pointwise import alike, timed


def spread(value: Any, count: int) -> list[int]:
    """One number for each dimension."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


def with_sizes(dims: Any, first: int, sizes: tuple[int, ...], keep: int) -> Any:
    """A layout with other sizes from a dimension on, but for that of time."""
    return tuple(d if i < first or i == keep else sized(sizes[i]) for i, d in enumerate(dims))


def sliding(
    w: Walk, call: Call, dims: Any, *, target: str, args: list[Any], extent: int, step: int, start: int, fill: float = 0.0
) -> Task:  # fmt: skip
    """A window over time: ``target`` with ``args`` has no padding of time; the operation itself has."""
    x: Task = next(iter(call.args.values()))
    wire = x.wire
    at, grain = Axis.of(dims).at, grain_of(wire, step)
    n, rest = divmod(w.result_shape(call)[at], grain[1])
    if rest:
        raise Unfollowed("groups of entries that are not full")
    dims = tuple((TIME, *sized(grain[1])) if i == at else d for i, d in enumerate(dims))
    made = sliding_wire(wire, dims, n, extent, step, start, grain)
    call_args, call_kwargs = w.call_args(call)
    inputs = [x]
    op, slots, _ = w.operation(call, target, args, {}, inputs)
    full, others, _ = w.operation(call, call.name, call_args, call_kwargs, inputs)
    full.rewire(tuple(moved_slots(a, others[0], slots[0]) for a in full.args), full.out)
    more = {"op": op, "full": full, "slots": slots, "entire": (False,), "macs": w.macs(call), "weight": weight_of(call)}
    return w.add(call, Sliding, inputs, made, extent=extent, step=step, start=start, fill=fill, grain=grain, **more)


def moved_slots(arg: Any, old: int, new: int) -> Any:
    """An argument that reads another slot."""
    if isinstance(arg, (list, tuple)):
        return type(arg)(moved_slots(a, old, new) for a in arg)
    return Ref(new) if isinstance(arg, Ref) and arg.slot == old else arg


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")
def conv(w: Walk, call: Call) -> Any:
    """A convolution; over time it slides."""
    x: Task = call["input"]
    if not isinstance(x, Task) or not isinstance(call["weight"], Const) or isinstance(call.get("bias"), Task):
        raise Unfollowed("weights that are computed of the window")
    wire, weight = alike(timed([x])), call["weight"].value
    space, rank = weight.ndim - 2, len(wire.dims)
    if call.get("transposed"):
        raise Unfollowed("transposed")
    first = rank - space
    dims = with_sizes(wire.dims, first - 1, w.result_shape(call), wire.dim)
    if wire.dim < first:
        if first < 2 or wire.dim == first - 1:
            raise Unfollowed("time is the channels")
        return w.positionwise(call, dims, wire)
    strides, dilations = spread(call["stride"], space), spread(call["dilation"], space)
    j = wire.dim - first
    extent = (weight.shape[2 + j] - 1) * dilations[j] + 1
    padding = call["padding"]
    if isinstance(padding, str):
        total = [(k - 1) * d if padding == "same" else 0 for k, d in zip(weight.shape[2:], dilations, strict=True)]
        if any(t % 2 for i, t in enumerate(total) if i != j):
            raise Unfollowed("uneven padding of space")
        start, pads = total[j] // 2, [t // 2 for t in total]
    else:
        pads = spread(padding, space)
        start = pads[j]
    if not wire.alone and extent == strides[j] == 1 and not start:
        return w.positionwise(call, dims, wire)
    pads[j] = 0
    args = [x, call["weight"], call.get("bias"), strides, pads, dilations, call["groups"]]
    made = sliding(w, call, dims, target=f"aten.conv{space}d.default", args=args, extent=extent, step=strides[j], start=start)
    if space == 1 and wire.dim == 2 and call["groups"] == 1 and isinstance(made, Sliding) and made.grain == (1, 1):
        _as_product(w, call, made, dilations[0])
    return made


def _as_product(w: Walk, call: Call, made: Sliding, dilation: int) -> None:
    """A convolution of sequences as a product of matrices."""
    flat = w.emit.const("aten.flatten.using_ints", [call["weight"], 1])
    x = made.inputs[0]
    op, slots, _ = w.operation(call, "aten.linear.default", [x, flat, call.get("bias")], {}, [x])
    op.rewire(tuple(moved_slots(a, slots[0], made.slots[0]) for a in op.args), op.out)
    made.product, made.dilation = op, dilation


@rule("aten.unfold.default")
def unfold(w: Walk, call: Call) -> Any:
    """Windows as a dimension."""
    x: Task = call["self"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    dim = call["dimension"] % len(wire.dims)
    if dim != wire.dim:
        if any(isinstance(f, str) for f in wire.dims[dim]):
            raise Unfollowed("over rows")
        dims = resized(wire.dims, {dim: sizes[dim]})
        return w.positionwise(call, (*dims, sized(sizes[-1])), wire)
    dims = (*wire.dims, sized(call["size"]))
    args = [x, dim, call["size"], call["step"]]
    return sliding(w, call, dims, target=call.name, args=args, extent=call["size"], step=call["step"], start=0)
