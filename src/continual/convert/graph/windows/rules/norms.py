"""Norms."""

from __future__ import annotations

from typing import Any

from ..sizes import Unfollowed
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from .pointwise import alike, timed


@rule("aten.layer_norm.default", "aten.native_layer_norm.default", "aten.rms_norm.default")
def layer_norm(w: Walk, call: Call) -> Any:
    """Over the last dimensions."""
    x: Task = call["input"]
    wire = alike(timed([x]))
    first = len(wire.dims) - len(call["normalized_shape"])
    if call.op == "native_layer_norm":
        raise Unfollowed("with its statistics")
    return w.positionwise(call, wire.dims, wire) if wire.dim < first else w.window(call, wire.dims, wire)


@rule("aten.group_norm.default", "aten.instance_norm.default")
def group_norm(w: Walk, call: Call) -> Any:
    """Over groups of channels and all later dimensions."""
    x: Task = call["input"]
    wire = alike(timed([x]))
    return w.positionwise(call, wire.dims, wire) if wire.dim == 0 else w.window(call, wire.dims, wire)


@rule("aten._native_batch_norm_legit_no_training.default", "aten.batch_norm.default", "aten._native_batch_norm_legit.no_stats")
def batch_norm(w: Walk, call: Call) -> Any:
    """With the statistics of training: one factor and one shift for each channel."""
    x: Task = call["input"]
    wire = alike(timed([x]))
    several = isinstance(call.node.meta["val"], (list, tuple))
    if wire.dim == 1 or "no_stats" in call.name or (call.op == "batch_norm" and call["training"]):
        raise Unfollowed("over the window")
    if not several:
        return w.positionwise(call, wire.dims, wire)
    params = [call[n] for n in ("weight", "bias", "running_mean", "running_var")]
    args = [x, *params, False, call["momentum"], call["eps"], False]
    if any(user.args[1] for user in call.node.users):
        raise Unfollowed("with its statistics")
    return [w.positionwise(call, wire.dims, wire, target="aten.batch_norm.default", args=args, kwargs={})]
