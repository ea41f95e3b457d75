"""Sums, means and maxima. Over time they see the whole clip, and become windows of its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....layers import pooling
from ..axes import BATCH, TIME, Dims, View, where
from ..instructions import Ref, Shape
from ..op_call import Call, Misfit, Refused, rule
from ..time_layers import Reduction
from ..values import Stream, Value
from ..walker import Builder
from .elementwise import items

AVG: Any = (None, pooling.AvgPool1d, pooling.AvgPool2d, pooling.AvgPool3d)
MAX: Any = (None, pooling.MaxPool1d, pooling.MaxPool2d, pooling.MaxPool3d)


POOLED = ("mean", "amax")  # what `time_pooling` knows another form of


def in_rows(dims: Dims, time: int) -> Dims:
    """A layout without its time dimension, windows in the rows."""
    return tuple((*d, TIME) if BATCH in d else d for i, d in enumerate(dims) if i != time)


def settled(b: Builder, call: Call, y: Stream) -> Stream:
    """Windows that lie behind what else is in the rows, ``(B·M·n, …)``, right behind the batch: ``(B·n·M, …)``."""
    batch = where(y.dims, BATCH)
    if batch is None or y.dims[batch][:2] == (BATCH, TIME):
        return y
    rest = tuple(f for f in y.dims[batch] if f not in (BATCH, TIME))
    if y.dims[batch] != (BATCH, *rest, TIME):
        raise Misfit(
            "the rows of the batch are not the first in the dimension that they are merged in",
            "(batch, others), not (others, batch)",
        )
    dims = tuple((BATCH, TIME, *rest) if i == batch else d for i, d in enumerate(y.dims))
    args = (Ref(y.slot), batch, Shape(((BATCH,), rest, (TIME,))))
    return b.local(call, dims, y, target="helper_ops:settled", args=args, kwargs={}, inputs=[y])


def unmerged(b: Builder, call: Call, x: Stream, dim: int) -> tuple[Stream, list[int]]:
    """A stream whose time dimension is time alone, and the places of what was merged there."""
    own = x.dims[dim]
    if TIME not in own or own == (TIME,):
        return x, [dim]
    at = own.index(TIME)
    pieces = [p for p in (own[:at], (TIME,), own[at + 1 :]) if p]
    dims = (*x.dims[:dim], *pieces, *x.dims[dim + 1 :])
    x = b.local(call, dims, x, target="aten.reshape.default", args=(Ref(x.slot), Shape(dims)), kwargs={}, inputs=[x])
    return x, list(range(dim, dim + len(pieces)))


def needs_rows(call: Call, x: Stream) -> None:
    """Refuse what is made of positions alone, all of which a clip has and a stream has not."""
    if where(x.dims, BATCH) is None:
        raise Refused(
            f"`{call.op}` over positions depends on the length of the clip", "make it a fixed number: a stream has no length"
        )


def at_frame(b: Builder, call: Call, x: Stream, dim: int, index: int, keep: bool) -> Stream:
    """One frame of a window of the clip's length."""
    needs_rows(call, x)
    size = b.length(x.wire).now
    out = in_rows(x.dims, dim)
    if size > 1:
        b.window_note(call, f"takes frame {index} of the {size} of a clip; in a stream that of a sliding window")
    y = b.layer(call, x, b.trim(index, size - 1 - index), out, label=f"frame {index} of {size}", windows=True)
    y = b.reduced(settled(b, call, y), call, "the last frame" if index == size - 1 else f"frame {index}")
    return _kept(b, call, y, dim) if keep else y


def _kept(b: Builder, call: Call, y: Stream, dim: int) -> Stream:
    dims = (*y.dims[:dim], (), *y.dims[dim:])
    return b.local(call, dims, y, target="aten.unsqueeze.default", args=(Ref(y.slot), dim), kwargs={}, inputs=[y])


def only_frame(b: Builder, call: Call, x: Stream, others: list[int]) -> Stream:
    """The only frame of the example, whose dimension goes."""
    dim = x.dims.index((TIME,))
    y = at_frame(b, call, x, dim, 0, keep=False)
    gone = [i - (i > dim) for i in others]
    if not gone:
        return y
    dims = tuple(d for i, d in enumerate(y.dims) if i not in gone)
    return b.local(call, dims, y, target="aten.squeeze.dims", args=(Ref(y.slot), gone), kwargs={}, inputs=[y])


def over_clip(
    b: Builder, call: Call, x: Stream, dim: int, what: str, options: dict[str, Any] | None = None, pick: int | None = None,
    others: Sequence[int] = (),
) -> Stream:  # fmt: skip
    """A reduction over the clip's frames: over a sliding window of as many, or as `time_pooling` says.

    Args:
        b, call, x: the operation on a stream.
        dim: where time is.
        what: the reduction.
        options: its other arguments.
        pick: which of its results is meant, if it gives several.
        others: dimensions over which it goes at the same time; they are left with a size of 1.
    """
    needs_rows(call, x)
    size, out = b.length(x.wire).now, in_rows(x.dims, dim)
    middle = call.node.name in b.middle
    if middle and b.time_pooling == "frame":
        b.window_note(call, "over each frame alone, where the module takes the whole clip: the twin is another function")
        batch = where(x.dims, BATCH)
        return b.local(
            call, out, x, target="helper_ops:gathered", args=(Ref(x.slot), batch, dim), kwargs={}, inputs=[x], windows=True
        )
    if middle:
        b.note(
            call,
            f"over the last {size} frames, those present at the start, where the module takes the whole clip: another function",
        )
        layer: Any = Reduction(size, f"aten.{what}.{'dim' if what == 'mean' else 'default'}", {}, trailing=True)
        return settled(b, call, b.layer(call, x, layer, out, label=f"{what} of the last {size}", windows=True))
    b.window_note(call, f"over the {size} frames of a clip; in a stream over a sliding window of as many")
    n = max(1, len(View(x.dims).order) - 2)
    pools = {"mean": AVG, "sum": AVG, "amax": MAX}.get(what)
    if pools is not None and n <= 3 and x.dtype.is_floating_point and pick in (None, 0):
        kernel = (size, *(1,) * (n - 1))
        layer = pools[n](kernel, (1,) * n)
        y = b.layer(call, x, layer, out, label=f"{what} over {size} frames", windows=True)
        if what == "sum":
            y = b.local(call, y.dims, y, target="aten.mul.Scalar", args=(Ref(y.slot), size), kwargs={}, inputs=[y])
    else:
        order = View(x.dims).order
        chunk = [order.index(d) for d in others]  # where they are in a chunk
        layer = Reduction(size, call.name, options or {}, pick=pick, others=chunk)
        out = in_rows(tuple(() if i in others else d for i, d in enumerate(x.dims)), dim)
        y = b.layer(call, x, layer, out, label=f"{what} over {size} frames", windows=True)
    return b.reduced(settled(b, call, y), call, f"`{call.op}`", what in POOLED)


def chosen_dims(call: Call, rank: int, name: str = "dim") -> list[int]:
    """Which dimensions are reduced."""
    given = call.get(name)
    if given is None or given == []:
        return list(range(rank))
    return sorted({int(d) % rank for d in (given if isinstance(given, (list, tuple)) else [given])})


def local_reduction(b: Builder, call: Call, x: Stream, dims: list[int], keep: bool) -> Stream:
    """A reduction over other axes than time."""
    if any(BATCH in x.dims[d] for d in dims):
        raise Refused(f"`{call.op}` mixes the rows of the batch", "dim=… without the batch's")
    out = tuple(() if i in dims else d for i, d in enumerate(x.dims) if keep or i not in dims)
    given = {n: b.template(v) for n, v in call.args.items()}
    given["self"] = Ref(x.slot)
    given["dim"] = dims if isinstance(call.get("dim"), (list, tuple)) or call.get("dim") is None else dims[0]
    if "keepdim" in given:
        given["keepdim"] = keep
    elif keep:
        given["keepdim"] = True
    kwargs = {n: v for n, v in given.items() if n != "self"}
    return b.local(call, out, x, args=(Ref(x.slot),), kwargs=kwargs, inputs=[x])


KINDS = {
    "aten.mean.dim": "mean", "aten.sum.dim_IntList": "sum", "aten.amax.default": "amax", "aten.amin.default": "amin",
    "aten.std.correction": "std", "aten.std.dim": "std", "aten.var.correction": "var", "aten.var.dim": "var",
    "aten.logsumexp.default": "logsumexp", "aten.linalg_vector_norm.default": "norm", "aten.norm.ScalarOpt_dim": "norm",
    "aten.prod.dim_int": "prod", "aten.any.dim": "any", "aten.all.dim": "all", "aten.any.dims": "any", "aten.all.dims": "all",
    "aten.argmax.default": "argmax", "aten.argmin.default": "argmin", "aten.nansum.default": "nansum", "aten.nanmean.default": "nanmean",
    "aten.count_nonzero.dim_IntList": "count", "aten.quantile.scalar": "quantile", "aten.nanquantile.scalar": "quantile",
    "aten.count_nonzero.default": "count",
}  # fmt: skip
LIMITS = ("amax", "amin", "max", "min")
IN_TURN = ("mean", "sum", "amax", "amin")  # one dimension after the other gives the same as all at once


@rule(*KINDS)
def reduce(b: Builder, call: Call) -> Stream:
    """A reduction over any axes."""
    x: Stream = call["self"]
    dims, keep, what = chosen_dims(call, len(x.dims)), bool(call.get("keepdim", False)), KINDS[call.name]
    if any(BATCH in x.dims[d] for d in dims):
        return _of_rows(call, tuple(x.dims[d] for d in dims))
    if not any(TIME in x.dims[d] for d in dims):
        return local_reduction(b, call, x, dims, keep)
    return with_time(b, call, x, dims, keep, what)


def with_time(b: Builder, call: Call, x: Stream, dims: list[int], keep: bool, what: str, pick: int | None = None) -> Stream:
    """A reduction over time, and perhaps over other dimensions too."""
    time, places = next(d for d in dims if TIME in x.dims[d]), list(dims)
    x, parts = unmerged(b, call, x, time)
    new = [d if d < time else d + len(parts) - 1 for d in dims if d != time] + parts
    at = next(d for d in new if x.dims[d] == (TIME,))
    others = [d for d in new if d != at]
    if others and call.name == "aten.max.dim" and pick == 0:
        left = tuple(() if i in others else d for i, d in enumerate(x.dims))
        x = b.local(
            call, left, x, target="aten.amax.default", args=(Ref(x.slot), others, True), kwargs={}, inputs=[x], dtype=x.dtype
        )
    elif others and what in IN_TURN:
        x = local_reduction(b, call, x, others, keep=True)
    elif others and isinstance(call.get("dim"), int):  # torch takes one dimension: what is merged there stays so
        raise Misfit(f"`{call.op}` over time merged with another dimension", "do it before the dimensions are merged")
    options = {n: b.template(v) for n, v in call.args.items() if n in call.positional or n in call.node.kwargs}
    options = {n: v for n, v in options.items() if n not in ("self", "dim", "keepdim")}
    y = over_clip(b, call, x, at, what, options, pick, others if what not in IN_TURN else [])
    gone = [d - (d > at) for d in others]
    out = tuple(d for i, d in enumerate(y.dims) if i not in gone)
    if gone:
        y = b.local(call, out, y, target="aten.squeeze.dims", args=(Ref(y.slot), gone), kwargs={}, inputs=[y])
    for d in places if keep else []:
        y = _kept(b, call, y, d)
    return y


def _of_rows(call: Call, over: Dims) -> Stream:
    """Refuse a reduction over rows, and perhaps over the whole clip too."""
    if any(TIME in d for d in over):
        bound = "; a fixed bound where it limits a range (top_db=None in audio front ends)" if call.op in LIMITS else ""
        raise Refused(
            f"`{call.op}` is taken over the whole clip and over the rows of the batch, which are streams of their own",
            f"dim=… without the batch's, at the end of the network{bound}",
        )
    raise Refused(f"`{call.op}` mixes the rows of the batch", "dim=… without the batch's: every row is a stream of its own")


@rule("aten.mean.default", "aten.sum.default", "aten.max.default", "aten.min.default", "aten.norm.Scalar", "aten.any.default",
      "aten.all.default", "aten.var.default", "aten.std.default", "aten.prod.default", "aten.median.default",
      "aten.std_mean.default", "aten.var_mean.default")  # fmt: skip
def of_everything(b: Builder, call: Call) -> Stream:
    """Reductions over all that there is."""
    needs_rows(call, call["self"])
    return _of_rows(call, call["self"].dims)


@rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.nanmedian.dim", "aten.mode.default", "aten.kthvalue.default",
      "aten.std_mean.correction", "aten.var_mean.correction", "aten.std_mean.dim", "aten.var_mean.dim", "aten.aminmax.default")  # fmt: skip
def several(b: Builder, call: Call) -> list[Value]:
    """Reductions that give two results: maxima and where they are, standard deviations and means."""
    x: Stream = call["self"]
    dims, keep = chosen_dims(call, len(x.dims)), bool(call.get("keepdim", False))
    if any(BATCH in x.dims[d] for d in dims):
        return [_of_rows(call, tuple(x.dims[d] for d in dims))]
    if any(TIME in x.dims[d] for d in dims):
        used = {user.args[1] for user in call.node.users if user.users}
        what = ["amax" if call.op == "max" and pick == 0 else call.op for pick in (0, 1)]
        return [with_time(b, call, x, dims, keep, what[i], i) if i in used else None for i in (0, 1)]
    out = tuple(() if i in dims else d for i, d in enumerate(x.dims) if keep or i not in dims)
    return items(b, call, b.local(call, out, x))
