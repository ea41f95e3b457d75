"""Sums, means, maxima and their like."""

from __future__ import annotations

from typing import Any

from ..sizes import Unfollowed
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from .pointwise import alike, timed

REDUCTIONS = (
    "aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default", "aten.amin.default", "aten.std.correction", "aten.std.dim",
    "aten.var.correction", "aten.var.dim", "aten.logsumexp.default", "aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim",
    "aten.prod.dim_int", "aten.any.dim", "aten.all.dim", "aten.argmax.default", "aten.argmin.default", "aten.max.dim", "aten.min.dim",
    "aten.median.dim", "aten.var_mean.correction", "aten.std_mean.correction", "aten.var_mean.dim", "aten.std_mean.dim",
)  # fmt: skip


@rule(*REDUCTIONS)
def reduction(w: Walk, call: Call) -> Any:
    """Reduces other dimensions than time. Over time it needs the whole window."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    rank, dim, keep = len(wire.dims), call.get("dim"), bool(call.get("keepdim", False))
    dims = sorted({int(d) % rank for d in (dim if isinstance(dim, (list, tuple)) else [dim])}) if dim is not None else []
    if not dims or wire.dim in dims or any(isinstance(f, str) for d in dims for f in wire.dims[d]):
        raise Unfollowed("over the window")
    out = tuple(() if i in dims else d for i, d in enumerate(wire.dims) if keep or i not in dims)
    val = call.node.meta["val"]
    return w.positionwise(call, [out] * len(val) if isinstance(val, (list, tuple)) else out, wire)
