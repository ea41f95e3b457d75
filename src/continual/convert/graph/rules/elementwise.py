"""Operations that work on every element on its own, with broadcasting."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..axes import BATCH, TIME, Dims, joined_dims, where
from ..instructions import Home, Ref, Shape
from ..op_call import Call, Misfit, Refused, exchanged, leaves, rule
from ..values import Const, Stream, Value
from ..walker import Builder


def explicit(b: Builder, call: Call, streams: list[Stream]) -> dict[int, Stream]:
    """Streams whose time is beside their rows (windows), with time where the others have it. By slots."""
    plain = [s for s in streams if not s.windows and s.wire >= 0]
    if not plain or not any(s.windows for s in streams):
        return {}
    at = where(plain[0].dims, TIME)
    if at is None or plain[0].dims[at] != (TIME,):
        raise Misfit(
            "frames that are merged with another dimension meet a value for the whole clip", "keep time a dimension of its own"
        )
    right = len(plain[0].dims) - at
    return {s.slot: _spread(b, call, s, len(s.dims) - right) for s in streams if s.windows}


def _spread(b: Builder, call: Call, s: Stream, dim: int) -> Stream:
    batch = where(s.dims, BATCH)
    if batch is None or not 0 <= dim < len(s.dims) or s.dims[dim] != () or dim == batch:
        raise Misfit(
            f"a value for the whole clip meets frames in `{call.op}`, and has no dimension of size 1 where these have time",
            "keepdim=True",
        )
    rest = tuple(f for f in s.dims[batch] if f not in (BATCH, TIME))
    dims = tuple((BATCH, *rest) if i == batch else (TIME,) if i == dim else d for i, d in enumerate(s.dims))
    shape = Shape(((BATCH,), (TIME,), rest))
    return b.local(
        call, dims, s, target="helper_ops:spread", args=(Ref(s.slot), batch, shape, dim), kwargs={}, inputs=[s], windows=False,
        dtype=s.dtype,
    )  # fmt: skip


def with_explicit(b: Builder, call: Call) -> Call:
    """A call whose streams all have time where frames have it."""
    new = explicit(b, call, call.streams)
    return call if not new else replace(call, args={n: exchanged(v, new) for n, v in call.args.items()})


def broadcast(b: Builder, call: Call, values: list[Value]) -> Dims:
    """The layout of an elementwise result."""
    given = [v for v in values if isinstance(v, (Stream, Const))]
    dims = joined_dims([v.dims for v in given])
    if dims is not None:
        return dims
    lead = max((v for v in given if isinstance(v, Stream)), key=lambda v: len(v.dims))
    for v in given:
        if not isinstance(v, Const):
            continue
        for own, other in zip(reversed(v.dims), reversed(lead.dims), strict=False):
            size = b.size(v, v.dims.index(own)).now if own else 1
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
    raise Misfit(
        f"`{call.op}` joins tensors whose dimensions do not fit: {' and '.join(b.described(v) for v in given)}", "reshape one"
    )


@rule(
    "pointwise", "aten.where.self", "aten.masked_fill", "aten.to", "aten._to_copy.default",
    "aten.detach.default", "aten.type_as.default", "aten.float_power", "aten.lerp",
    "aten.prelu.default", "aten.fill", "aten.log_sigmoid.default", "aten.polar.default",
    "aten.complex.default", "aten.real.default", "aten.imag.default", "aten.conj.default", "aten._conj.default",
    "aten.resolve_conj.default", "aten.resolve_neg.default", "aten.fake_quantize_per_tensor_affine", "aten.positive.default",
)  # fmt: skip
def elementwise(b: Builder, call: Call) -> Value:
    """The operation on the frames that have come."""
    call = with_explicit(b, call)
    values = leaves(list(call.args.values()))
    if joined_dims([v.dims for v in values if isinstance(v, (Stream, Const))]) is None:
        call = b.revived(call, lead(call.streams))
        values = leaves(list(call.args.values()))
    dims = _prelu(call) if call.op == "prelu" else broadcast(b, call, values)
    if call.op == "prelu":
        return _per_channel(b, call, dims)
    y = b.local(call, dims, lead(call.streams))
    return y if isinstance(call.node.meta["val"], Tensor) else items(b, call, y)


def items(b: Builder, call: Call, both: Stream) -> list[Stream]:
    """The results of an operation that gives several of one layout."""
    return [
        b.local(
            call, both.dims, both, target="helper_ops:item", args=(Ref(both.slot), i), kwargs={}, inputs=[both], dtype=v.dtype
        )
        for i, v in enumerate(call.node.meta["val"])
    ]


@rule("aten.view_as_real.default", "aten.view_as_complex.default")
def complex_parts(b: Builder, call: Call) -> Stream:
    """Real and imaginary parts in a last dimension of two, and back."""
    x: Stream = call["self"]
    if call.op == "view_as_real":
        return b.local(call, (*x.dims, (2,)), x)
    return b.local(call, x.dims[:-1], x, target="helper_ops:as_complex", args=(Ref(x.slot),), kwargs={}, inputs=[x])


@rule("aten.bucketize.Tensor", "aten.searchsorted.Tensor")
def bucketize(b: Builder, call: Call) -> Stream:
    """The number of the interval in which each value lies."""
    borders = call.get("boundaries", call.get("sorted_sequence"))
    if not isinstance(borders, Const) or len(borders.dims) != 1:
        raise Refused(f"`{call.op}` in borders that depend on the stream", "a constant list of borders")
    return b.local(call, call["self"].dims, call["self"])


@rule("aten.fake_quantize_per_channel_affine.default")
def quantised(b: Builder, call: Call) -> Stream:
    """Rounding with a scale for each index of one axis."""
    x: Stream = call["self"]
    if any(f in x.dims[int(call["axis"])] for f in (TIME, BATCH)):
        raise Refused(f"`{call.op}` has a scale for every frame or row", "scales of channels")
    return b.local(call, x.dims, x)


@rule("aten.glu.default")
def glu(b: Builder, call: Call) -> Stream:
    """Half of a dimension gates the other half."""
    x: Stream = call["self"]
    dim = int(call["dim"]) % len(x.dims)
    if TIME in x.dims[dim] or BATCH in x.dims[dim]:
        raise Refused(
            "`glu` gates a half of the clip (or of its rows) with the other", "glu over channels: dim=1, or dim=-1 of (B, T, C)"
        )
    half = b.shape(x)[dim] // 2
    return b.local(call, (*x.dims[:dim], (half,) if half != 1 else (), *x.dims[dim + 1 :]), x)


def lead(streams: list[Stream]) -> Stream:
    """The stream whose timing a result has: one that moves, if there is one."""
    return next((s for s in streams if s.wire >= 0), streams[0])


def _prelu(call: Call) -> Dims:
    return call["self"].dims


def _per_channel(b: Builder, call: Call, dims: Dims) -> Stream:
    if len(dims) > 1 and dims[1] == (TIME,) and b.shape(call["weight"]) != (1,):
        raise Refused("PReLU has a slope for every frame of the clip", "one slope, or slopes for channels in dim 1")
    return b.local(call, dims, call["self"])


@rule("aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.lift_fresh_copy.default")
def handed_on(b: Builder, call: Call) -> Value:
    """What is handed on as it is: nothing here writes into tensors. Complex numbers alone are particular about memory."""
    if any("view_as_complex" in str(user.target) for user in call.node.users):
        return elementwise(b, replace(call, name="aten.contiguous.default"))
    return call["self"]


@rule("aten.copy.default", keeps_clocked=True)
def copy(b: Builder, call: Call) -> Value:
    """What is written into a tensor takes its place."""
    x, src = call["self"], call["src"]
    if isinstance(src, Stream) and (not isinstance(x, Stream) or src.dims == x.dims):
        return src
    if isinstance(x, Stream):
        call = b.together(call)
        given = [Ref(src.slot), Shape(x.dims)] if isinstance(src, (Stream, Const)) else None
        if given:
            return b.local(
                call, x.dims, lead(call.streams), target="aten.expand.default", args=given, kwargs={}, inputs=call.streams
            )
        return b.local(call, x.dims, x, target="aten.full_like.default", args=(Ref(x.slot), src), kwargs={}, inputs=[x])
    raise Refused("writes into a constant", "torch.cat or torch.where")


IDENTITIES = ("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout", "aten.native_dropout")


@rule(*IDENTITIES)
def dropout(b: Builder, call: Call) -> Value:
    """Nothing, in eval mode."""
    if call.get("train"):
        raise Refused("dropout is active although the module is in eval mode", "pass training=self.training")
    return call.get("input", call.get("self"))


@rule("aten.zeros_like", "aten.ones_like", "aten.full_like", "aten.empty_like")
def filled_like(b: Builder, call: Call) -> Stream:
    """Frames of one value."""
    fill = {"zeros_like": 0.0, "ones_like": 1.0}.get(call.op, call.get("fill_value"))
    return b.local(call, call["self"].dims, call["self"], fill=fill)


@rule("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty")
def filled_new(b: Builder, call: Call) -> Value:
    """A constant of a fixed size, or frames of one value."""
    like: Stream = call["self"]
    dims = b.layout(call["size"], like.wire)
    args = [Shape(dims) if n == "size" else b.template(call[n]) for n in call.positional]
    kwargs = {n: b.template(v) for n, v in call.args.items() if n not in call.positional}
    fill = {"new_zeros": 0.0, "new_ones": 1.0}.get(call.op, call.get("fill_value"))
    if any(TIME in d for d in dims):
        return b.local(call, dims, like, args=args, kwargs=kwargs, inputs=[like], fill=fill)
    args = [Shape(dims), 0.0 if fill is None else fill]
    kwargs = {"dtype": b.dtype(call), "device": Home()}
    return replace(b.still(replace(call, name="aten.full.default"), dims, args, kwargs, b.dtype(call)), fill=fill)
