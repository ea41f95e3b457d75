"""Operations on every element by itself, with broadcasting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..axes import BATCH, TIME, Dims, joined_dims, where, with_size
from ..exec_context import CurrentDevice, Ref, Shape
from ..instructions import resolve
from ..op_call import BANDED, COMPARES, Misfit, OpCall, Refused, results_of
from ..rule_context import RuleContext, rule
from ..values import STATIC, Const, LengthDependent, Stream, Value, exchanged


def lead(streams: list[Stream]) -> Stream:
    """The stream whose timing a result has: the first with frames, if there is one."""
    return next((s for s in streams if s.wire != STATIC), streams[0])


# ---- windows of the clip beside frames ----------------------------------------------------------------------------------


def explicit(ctx: RuleContext, call: OpCall, streams: list[Stream]) -> dict[int, Stream]:
    """Streams of windows, whose time is merged with the batch, with time in the dimension where other streams have it. By slots."""
    frames = [s for s in streams if not s.windows and s.wire != STATIC]
    if not frames or not any(s.windows for s in streams):
        return {}
    at = where(frames[0].dims, TIME)
    if at is None or frames[0].dims[at] != (TIME,):
        raise Misfit(
            "frames that are merged with another dimension meet a value for the whole clip", "keep time a dimension of its own"
        )
    right = len(frames[0].dims) - at
    return {s.slot: _windows_in_dim(ctx, call, s, len(s.dims) - right) for s in streams if s.windows}


def _windows_in_dim(ctx: RuleContext, call: OpCall, s: Stream, dim: int) -> Stream:
    batch = where(s.dims, BATCH)
    if batch is None or not 0 <= dim < len(s.dims) or s.dims[dim] != () or dim == batch:
        raise Misfit(
            f"a value for the whole clip meets frames in `{call.op}`, and has no dimension of size 1 where these have time",
            "keepdim=True",
        )
    rest = tuple(f for f in s.dims[batch] if f not in (BATCH, TIME))
    dims = tuple((BATCH, *rest) if i == batch else (TIME,) if i == dim else d for i, d in enumerate(s.dims))
    args = Ref(s.slot), batch, Shape(((BATCH,), (TIME,), rest)), dim
    return ctx.emit.local(call, dims, s, target="helper_ops:spread", args=args, inputs=[s], windows=False, dtype=s.dtype)


def with_explicit(ctx: RuleContext, call: OpCall) -> OpCall:
    """A call whose streams all have time in the same dimension."""
    new = explicit(ctx, call, call.streams)
    return call if not new else call.with_args(**{n: exchanged(v, new) for n, v in call.args.items()})


# ---- broadcasting -------------------------------------------------------------------------------------------------------


def broadcast(ctx: RuleContext, call: OpCall) -> Dims:
    """The layout of an elementwise result."""
    tensors = [v for v in call.leaves if isinstance(v, (Stream, Const))]
    dims = joined_dims([v.dims for v in tensors])
    if dims is not None:
        return dims
    largest = max((v for v in tensors if isinstance(v, Stream)), key=lambda v: len(v.dims))
    for v in tensors:
        if isinstance(v, Const):
            _check_constant(ctx, call, v, largest)
    raise Misfit(
        f"`{call.op}` joins tensors whose dimensions do not fit: {' and '.join(map(ctx.shapes.described, tensors))}",
        "reshape one",
    )


def _check_constant(ctx: RuleContext, call: OpCall, v: Const, stream: Stream) -> None:
    """Refuse a constant that has as many elements as the example has frames or rows."""
    for own, other in zip(reversed(v.dims), reversed(stream.dims), strict=False):
        size = ctx.shapes.size(v, v.dims.index(own)).now if own else 1
        if TIME in other and size > 1:
            raise Refused(
                f"`{call.op}` has a constant with a value for each of {size} frames: it is defined for clips of one length alone",
                "positions that go on (co.RecyclingPositionalEncoding, rotary, ALiBi); a constant of one frame; for a weighted sum "
                "over the clip torch.einsum('bct,t->bc', x, weights)",
            )
        if BATCH in other and size > 1:
            raise Misfit(
                f"`{call.op}` has a constant with {size} rows, as many as the example clip", "x.shape[0] for the batch size"
            )


@rule(
    "pointwise", "aten.where.self", "aten.masked_fill", "aten.to", "aten._to_copy.default",
    "aten.detach.default", "aten.float_power", "aten.lerp",
    "aten.prelu.default", "aten.fill", "aten.log_sigmoid.default", "aten.polar.default",
    "aten.complex.default", "aten.real.default", "aten.imag.default", "aten.conj.default", "aten._conj.default",
    "aten.resolve_conj.default", "aten.resolve_neg.default", "aten.fake_quantize_per_tensor_affine", "aten.positive.default",
)  # fmt: skip
def elementwise(ctx: RuleContext, call: OpCall) -> Value:
    """The operation on the current frames."""
    call = with_explicit(ctx, call)
    if joined_dims([v.dims for v in call.leaves if isinstance(v, (Stream, Const))]) is None:
        call = ctx.lengths.restored(call, lead(call.streams))
    if call.op == "prelu":
        return _prelu(ctx, call)
    y = ctx.emit.local(call, broadcast(ctx, call), lead(call.streams), fill=_one_value(call))
    return y if isinstance(call.node.meta["val"], Tensor) else items(ctx, call, y)


@rule("aten.type_as.default", keeps_length_dependent=True)
def type_as(ctx: RuleContext, call: OpCall) -> Value:
    """The dtype of another tensor, which may have any shape."""
    other = call.node.all_input_nodes[-1].meta["val"]
    return ctx.apply(call.other("aten.to.dtype", self=call["self"], dtype=other.dtype))


def _one_value(call: OpCall) -> float | None:
    """The value of all elements of a result for all frames, where each of its inputs has one value."""
    streams = call.streams
    if any(s.fill is None or s.wire != STATIC for s in streams):
        return None
    if not all(isinstance(v, (Stream, int, float, torch.dtype, type(None))) for v in call.leaves):
        return None
    values: dict[int, Any] = {s.slot: torch.full((), s.fill or 0.0, dtype=s.dtype) for s in streams}
    args = {n: exchanged(v, values) for n, v in call.args.items()}
    found = resolve(call.name)(*(args[n] for n in call.positional), **{n: v for n, v in args.items() if n not in call.positional})
    return float(found) if isinstance(found, Tensor) and not found.is_complex() else None


def _prelu(ctx: RuleContext, call: OpCall) -> Stream:
    x = call.stream("self")
    if len(x.dims) > 1 and x.dims[1] == (TIME,) and ctx.shapes.shape(call.tensor("weight")) != (1,):
        raise Refused("PReLU has a slope for every frame of the clip", "one slope, or slopes for channels in dim 1")
    return ctx.emit.local(call, x.dims, x)


def items(ctx: RuleContext, call: OpCall, results: Stream) -> list[Stream]:
    """The results of an operation that gives several of one layout."""
    return [
        ctx.emit.op(call, "helper_ops:item", results, results.dims, i, dtype=v.dtype) for i, v in enumerate(results_of(call.node))
    ]


@rule("aten.view_as_real.default", "aten.view_as_complex.default")
def complex_parts(ctx: RuleContext, call: OpCall) -> Stream:
    """Real and imaginary parts in a last dimension of size 2, and back."""
    x = call.stream("self")
    if call.op == "view_as_real":
        return ctx.emit.local(call, (*x.dims, (2,)), x)
    return ctx.emit.op(call, "helper_ops:as_complex", x, x.dims[:-1])


@rule("aten.bucketize.Tensor", "aten.searchsorted.Tensor")
def bucketize(ctx: RuleContext, call: OpCall) -> Stream:
    """The index of the interval that holds each value."""
    borders = call.get("boundaries", call.get("sorted_sequence"))
    if not isinstance(borders, Const) or len(borders.dims) != 1:
        raise Refused(f"`{call.op}` in borders that depend on the stream", "a constant list of borders")
    x = call.stream("self")
    return ctx.emit.local(call, x.dims, x)


@rule("aten.fake_quantize_per_channel_affine.default")
def quantised(ctx: RuleContext, call: OpCall) -> Stream:
    """Rounding with a scale for each index of one dimension."""
    x = call.stream("self")
    if any(f in x.dims[call.integer("axis")] for f in (TIME, BATCH)):
        raise Refused(f"`{call.op}` has a scale for every frame or row", "scales of channels")
    return ctx.emit.local(call, x.dims, x)


@rule("aten.glu.default")
def glu(ctx: RuleContext, call: OpCall) -> Stream:
    """One half of a dimension gates the other half."""
    x = call.stream("self")
    dim = call.dim(len(x.dims))
    if TIME in x.dims[dim] or BATCH in x.dims[dim]:
        raise Refused(
            "`glu` gates a half of the clip (or of its rows) with the other", "glu over channels: dim=1, or dim=-1 of (B, T, C)"
        )
    return ctx.emit.local(call, with_size(x.dims, dim, ctx.shapes.shape(x)[dim] // 2), x)


@rule("aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.lift_fresh_copy.default")
def passed_on(ctx: RuleContext, call: OpCall) -> Value:
    """The tensor itself, since the program never writes into tensors. Only complex views depend on the memory layout."""
    if any("view_as_complex" in str(user.target) for user in call.node.users):
        return elementwise(ctx, replace(call, name="aten.contiguous.default"))
    return call["self"]


@rule("aten.copy.default", keeps_length_dependent=True)
def copy(ctx: RuleContext, call: OpCall) -> Value:
    """The source replaces the tensor into which it is written."""
    x, src = call["self"], call["src"]
    if isinstance(src, Stream) and (not isinstance(x, Stream) or src.dims == x.dims):
        return src
    if not isinstance(x, Stream):
        raise Refused("writes into a constant", "torch.cat or torch.where")
    call = ctx.streams.align(call)
    if isinstance(src, (Stream, Const)):
        args = Ref(src.slot), Shape(x.dims)
        return ctx.emit.local(call, x.dims, lead(call.streams), target="aten.expand.default", args=args, inputs=call.streams)
    return ctx.emit.op(call, "aten.full_like.default", x, x.dims, ctx.emit.template(src))


# ---- dropout, and tensors of one value ----------------------------------------------------------------------------------


@rule("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout", "aten.native_dropout")
def dropout(ctx: RuleContext, call: OpCall) -> Value:
    """The identity, in eval mode."""
    refuse_dropout(call)
    return call.get("input", call.get("self"))


def refuse_dropout(call: OpCall) -> None:
    """Refuse dropout that ignores eval mode."""
    if call.get("train"):
        raise Refused("dropout is active although the module is in eval mode", "pass training=self.training")


def _fill(call: OpCall) -> float | None:
    """The value with which a creation function fills a tensor."""
    value = call.get("fill_value")
    known = {"zeros": 0.0, "ones": 1.0}.get(call.op.removeprefix("new_").removesuffix("_like"))
    return known if known is not None else value if isinstance(value, (int, float)) else None


@rule("aten.zeros_like", "aten.ones_like", "aten.full_like", "aten.empty_like")
def filled_like(ctx: RuleContext, call: OpCall) -> Stream:
    """Frames of one value."""
    x = call.stream("self")
    return ctx.emit.local(call, x.dims, x, fill=_fill(call))


@rule("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty")
def filled_new(ctx: RuleContext, call: OpCall) -> Stream | LengthDependent:
    """A constant of a fixed size, or frames of one value: of the stream, or of another with whose length it is made."""
    like, fill = call.stream("self"), _fill(call)
    try:
        dims = ctx.shapes.layout(call.sequence("size"), like.wire)
    except Misfit:
        made: dict[str, Value] = {"size": call["size"], "fill_value": call.get("fill_value", fill or 0.0)}
        options: dict[str, Value] = {"dtype": ctx.emit.dtype(call), "device": call.node.meta["val"].device}
        return LengthDependent(call.node, "aten.full.default", made | options, tuple(made), frozenset(options))
    if any(TIME in d for d in dims):
        if sum(TIME in d for d in dims) > 1:
            raise Refused(f"`{call.op}` {COMPARES}", BANDED)
        args, kwargs = ctx.emit.arguments(call.with_args(size=[]))
        args[call.positional.index("size")] = Shape(dims)
        return ctx.emit.local(call, dims, like, args=args, kwargs=kwargs, inputs=[like], fill=fill)
    dtype, full = ctx.emit.dtype(call), OpCall(call.node, "aten.full.default", {})
    value = ctx.emit.template(call["fill_value"]) if "fill_value" in call.args else fill or 0.0
    return ctx.emit.static(full, dims, (Shape(dims), value), {"dtype": dtype, "device": CurrentDevice()}, dtype, fill)


def joined(call: OpCall, layouts: list[Dims], reason: str) -> Dims:
    """The layout after broadcasting.

    Raises:
        Misfit: the layouts do not fit, for the reason given.
    """
    dims = joined_dims(layouts)
    if dims is None:
        raise Misfit(reason, "reshape one of them")
    return dims
