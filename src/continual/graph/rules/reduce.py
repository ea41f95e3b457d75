"""Sums, means and maxima. Over time they see the whole clip, and become windows of its length."""

from __future__ import annotations

from typing import Any

from ... import cumulative, pooling
from ..builder import Builder
from ..call import Call, Refused, hint, rule
from ..layers import Reduction
from ..layout import BATCH, TIME, Dims, View, where
from ..program import Ref, Shape
from ..values import Stream, Value

AVG: Any = (None, pooling.AvgPool1d, pooling.AvgPool2d, pooling.AvgPool3d)
MAX: Any = (None, pooling.MaxPool1d, pooling.MaxPool2d, pooling.MaxPool3d)


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
        raise Refused(
            "the rows of the batch are not the first in the dimension that they are merged in",
            "(batch, others), not (others, batch)",
        )
    dims = tuple((BATCH, TIME, *rest) if i == batch else d for i, d in enumerate(y.dims))
    args = (Ref(y.slot), batch, Shape(((BATCH,), rest, (TIME,))))
    return b.local(call, dims, y, target="operators:settled", args=args, kwargs={}, inputs=[y])


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


def at_frame(b: Builder, call: Call, x: Stream, dim: int, index: int, keep: bool) -> Stream:
    """One frame of a window of the clip's length."""
    size = b.length(x.wire).now
    out = in_rows(x.dims, dim)
    if size > 1:
        b.window_note(call, f"takes frame {index} of the {size} of a clip; in a stream that of a sliding window")
    y = b.layer(call, x, b.trim(index, size - 1 - index), out, label=f"frame {index} of {size}", windows=True)
    y = b.reduced(settled(b, call, y), call)
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
    b: Builder, call: Call, x: Stream, dim: int, what: str, options: dict[str, Any] | None = None, pick: int | None = None
) -> Stream:
    """A reduction over the clip's frames: over a sliding window of as many, or as `time_pooling` says."""
    size, out = b.length(x.wire).now, in_rows(x.dims, dim)
    middle = call.node.name in b.middle
    if middle and what not in ("mean", "amax"):
        raise Refused(f"`{call.op}` over the clip in the middle of the network", "a mean or a maximum, which time_pooling knows")
    if middle and b.time_pooling == "frame":
        b.window_note(call, "over each frame alone, where the module takes the whole clip: the twin is another function")
        batch = where(x.dims, BATCH)
        return b.local(
            call, out, x, target="operators:gathered", args=(Ref(x.slot), batch, dim), kwargs={}, inputs=[x], windows=True
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
    if pools is not None and n <= 3 and x.dtype.is_floating_point:
        kernel = (size, *(1,) * (n - 1))
        layer = pools[n](kernel, (1,) * n)
        y = b.layer(call, x, layer, out, label=f"{what} over {size} frames", windows=True)
        if what == "sum":
            y = b.local(call, y.dims, y, target="aten.mul.Scalar", args=(Ref(y.slot), size), kwargs={}, inputs=[y])
    else:
        layer = Reduction(size, call.name, options or {}, pick=pick)
        y = b.layer(call, x, layer, out, label=f"{what} over {size} frames", windows=True)
    return b.reduced(settled(b, call, y), call)


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
    "aten.prod.dim_int": "prod", "aten.any.dim": "any", "aten.all.dim": "all", "aten.argmax.default": "argmax",
    "aten.argmin.default": "argmin",
}  # fmt: skip


@rule(*KINDS)
def reduce(b: Builder, call: Call) -> Stream:
    """A reduction over any axes."""
    x: Stream = call["self"]
    dims, keep, what = chosen_dims(call, len(x.dims)), bool(call.get("keepdim", False)), KINDS[call.name]
    time = next((d for d in dims if TIME in x.dims[d]), None)
    if any(BATCH in x.dims[d] for d in dims):
        return _of_rows(call)
    if time is None:
        return local_reduction(b, call, x, dims, keep)
    places, shape = list(dims), len(x.dims)
    x, parts = unmerged(b, call, x, time)
    new = [d if d < time else d + len(parts) - 1 for d in dims if d != time] + parts
    at = next(d for d in new if x.dims[d] == (TIME,))
    others = [d for d in new if d != at]
    if others and what not in ("mean", "sum", "amax", "amin", "any", "all"):
        return _all_at_once(b, call, x, at, others, what, keep, (places, shape))
    if others:
        x = local_reduction(b, call, x, others, keep=True)
    options = {n: b.template(v) for n, v in call.args.items() if n not in ("self", "dim", "keepdim", "dtype")}
    y = over_clip(b, call, x, at, what, options | _dim(call))
    gone = [d - (d > at) for d in others]
    out = tuple(d for i, d in enumerate(y.dims) if i not in gone)
    if gone:
        y = b.local(call, out, y, target="aten.squeeze.dims", args=(Ref(y.slot), gone), kwargs={}, inputs=[y])
    for d in places if keep else []:
        y = _kept(b, call, y, d)
    return y


def _dim(call: Call) -> dict[str, Any]:
    given = call.get("dim")
    return {"dim": -1 if isinstance(given, int) else [-1]}


def _of_rows(call: Call) -> Stream:
    raise Refused(f"`{call.op}` mixes the rows of the batch", "dim=… without the batch's: every row is a stream of its own")


def _all_at_once(b: Builder, call: Call, x: Stream, at: int, others: list[int], what: str, keep: bool, before: Any) -> Stream:
    raise Refused(
        f"`{call.op}` over time and other dimensions at once", "one after the other: a mean over space first, then over time"
    )


@rule("aten.mean.default", "aten.sum.default", "aten.max.default", "aten.min.default", "aten.norm.Scalar", "aten.any.default",
      "aten.all.default", "aten.var.default", "aten.std.default", "aten.prod.default")  # fmt: skip
def of_everything(b: Builder, call: Call) -> Stream:
    """Reductions over all that there is."""
    return _of_rows(call)


@rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.mode.default", "aten.kthvalue.default")
def with_indices(b: Builder, call: Call) -> list[Value]:
    """Maxima, and where they are."""
    x: Stream = call["self"]
    dim, keep = int(call["dim"]) % len(x.dims), bool(call.get("keepdim", False))
    if BATCH in x.dims[dim]:
        return [_of_rows(call)]
    used = {user.args[1] for user in call.node.users if user.users}
    if TIME in x.dims[dim]:
        found: list[Value] = []
        for pick in (0, 1):
            if pick not in used:
                found.append(None)
                continue
            what = "amax" if call.op == "max" and pick == 0 else call.op
            options = {n: b.template(v) for n, v in call.args.items() if n not in ("self", "dim", "keepdim")} | {"dim": -1}
            y = over_clip(b, call, x, dim, what, options, pick)
            found.append(_kept(b, call, y, dim) if keep else y)
        return found
    out = tuple(() if i == dim else d for i, d in enumerate(x.dims) if keep or i != dim)
    both = b.local(call, out, x)
    vals = call.node.meta["val"]
    return [
        b.local(call, out, both, target="operators:item", args=(Ref(both.slot), i), kwargs={}, inputs=[both], dtype=vals[i].dtype)
        for i in (0, 1)
    ]


@rule("aten.softmax.int", "aten.log_softmax.int", "aten._softmax.default", "aten._log_softmax.default", "aten.softmin.int")
def softmax(b: Builder, call: Call) -> Stream:
    """Softmax over other axes than time."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if TIME in x.dims[dim]:
        raise Refused("softmax over time sees the whole clip", "softmax over channels; or causal attention (is_causal=True)")
    if BATCH in x.dims[dim]:
        return _of_rows(call)
    return b.local(call, x.dims, x)


@rule("aten.cumsum.default", "aten.cumprod.default", "aten.cummax.default", "aten.cummin.default", "aten.logcumsumexp.default")
def cumulate(b: Builder, call: Call) -> Value:
    """Running reductions."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if BATCH in x.dims[dim]:
        return _of_rows(call)
    if TIME in x.dims[dim]:
        if x.dims[dim] != (TIME,) or call.op not in ("cumsum",):
            raise Refused(f"`{call.op}` over time has no streaming rule", "cumsum over time alone")
        return b.layer(call, x, cumulative.CumulativeSum(), x.dims)
    if call.op in ("cummax", "cummin"):
        both = b.local(call, x.dims, x)
        return [
            b.local(call, x.dims, both, target="operators:item", args=(Ref(both.slot), i), kwargs={}, inputs=[both])
            for i in (0, 1)
        ]
    return b.local(call, x.dims, x)


@rule("aten.sort.default", "aten.topk.default", "aten.argsort.default", "aten.sort.stable")
def sort(b: Builder, call: Call) -> Value:
    """Order over other axes than time."""
    x: Stream = call["self"]
    dim = int(call.get("dim", -1)) % len(x.dims)
    if TIME in x.dims[dim] or BATCH in x.dims[dim]:
        raise Refused(
            f"`{call.op}` orders the frames of the clip: each output sees all of them",
            "order channels, or take maxima over windows",
        )
    vals = call.node.meta["val"]
    first = vals[0] if isinstance(vals, (list, tuple)) else vals
    size = hint(first.shape[dim])
    out = tuple(((size,) if size != 1 else ()) if i == dim else d for i, d in enumerate(x.dims))
    if not isinstance(vals, (list, tuple)):
        return b.local(call, out, x)
    both = b.local(call, out, x)
    return [b.local(call, out, both, target="operators:item", args=(Ref(both.slot), i), kwargs={}, inputs=[both], dtype=v.dtype)
            for i, v in enumerate(vals)]  # fmt: skip
