"""Transposed convolutions and interpolation, of time and of space."""

from __future__ import annotations

from typing import Any

from ...axes import TIME, Dims
from ...exec_context import Shape
from ...values import Const
from ..raised import Raise, Raised
from ..sizes import Unfollowed
from ..sliding import grain_of
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Wire, sized
from ..work import weight_of
from .convolution import moved_slots, spread, with_sizes
from .pointwise import alike, timed

AROUND = {"nearest": 0, "linear": 1, "bilinear": 1, "trilinear": 1, "bicubic": 2}  # entries beside one that it is interpolated of


@rule("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def transposed(w: Walk, call: Call) -> Any:
    """A transposed convolution."""
    x: Task = call["input"]
    if not isinstance(x, Task) or not isinstance(call["weight"], Const) or isinstance(call.get("bias"), Task):
        raise Unfollowed("weights that are computed of the window")
    wire, weight, sizes = alike(timed([x])), call["weight"].value, w.result_shape(call)
    space = weight.ndim - 2
    first = len(wire.dims) - space
    if first < 2 or wire.dim == first - 1:
        raise Unfollowed("time is the channels")
    dims = with_sizes(wire.dims, first - 1, sizes, wire.dim)
    if wire.dim < first:
        return w.positionwise(call, dims, wire)
    strides, pads, more, dilations = (spread(call[n], space) for n in ("stride", "padding", "output_padding", "dilation"))
    j = wire.dim - first
    by = Raise(strides[j], (weight.shape[2 + j] - 1) * dilations[j] + 1, pads[j], _entries_of(wire))
    if by.extent < by.factor:
        raise Unfollowed("entries that depend on nothing")
    pads[j] = more[j] = 0
    args = [x, call["weight"], call.get("bias"), strides, pads, more, call["groups"], dilations]
    return _raised(w, call, by, dims, args)


@rule(
    *(
        f"aten.upsample_{kind}.vec"
        for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d", "bicubic2d")
    )
)
def interpolated(w: Walk, call: Call) -> Any:
    """Interpolation to a multiple of the length, or of space alone."""
    x: Task = call["input"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    first = 2
    if wire.dim == 1:
        raise Unfollowed("time is the channels")
    dims = with_sizes(wire.dims, first, sizes, wire.dim)
    corners = [call["align_corners"]] if "align_corners" in call.args else []
    rest = [*corners, None]
    if wire.dim < first:
        return w.positionwise(call, dims, wire, args=[x, list(sizes[first:]), *rest], kwargs={})
    frames = w.shape(x)[wire.dim]
    factor, kind = sizes[wire.dim] // frames, call.op.removeprefix("upsample_")[:-2]
    if sizes[wire.dim] != factor * frames or factor < 2 or any(corners):
        raise Unfollowed("another length than a multiple")
    around = AROUND[kind] * factor
    by = Raise(factor, 2 * around + 1, around, _entries_of(wire), clipped=True)
    own = tuple((TIME, factor) if i == wire.dim else sized(s) for i, s in enumerate(sizes))
    return _raised(w, call, by, dims, [x, Shape(own[first:]), *rest])


def _entries_of(wire: Wire) -> int:
    """Entries of a position."""
    return grain_of(wire, 1)[0]


def _raised(w: Walk, call: Call, by: Raise, dims: Dims, args: list[Any]) -> Task:
    x, total = args[0], w.result_shape(call)[args[0].wire.dim]
    n, rest = divmod(total, by.own)
    if rest:
        raise Unfollowed("a length that is not a multiple of the factor")
    dims = tuple((TIME, by.own) if i == x.wire.dim else d for i, d in enumerate(dims))
    own, kwargs = w.call_args(call)
    op, slots, _ = w.operation(call, call.name, args, {}, [x])
    full, others, _ = w.operation(call, call.name, own, kwargs, [x])
    full.rewire(tuple(moved_slots(a, others[0], slots[0]) for a in full.args), full.out)
    more = {"op": op, "full": full, "slots": slots, "entire": (False,), "macs": w.macs(call), "weight": weight_of(call)}
    return w.add(call, Raised, [x], by.wire(x.wire, dims, n), by=by, **more)
