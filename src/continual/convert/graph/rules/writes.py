"""Writes into parts of tensors."""

from __future__ import annotations

from dataclasses import replace

from ..axes import TIME
from ..op_call import OpCall, Refused, as_stream
from ..rule_context import RuleContext, rule
from ..values import Const, LengthDependent, Size, Stream
from .elementwise import lead
from .padding import pad_time
from .parts import is_time
from .slices import END, from_start

EVERY_OTHER = "writes every other frame of the clip", "torch.where, or transposed convolution"


@rule("aten.slice_scatter.default", "aten.select_scatter.default", keeps_length_dependent=True)
def scatter(ctx: RuleContext, call: OpCall) -> Stream:
    """A part of a tensor is written. Over time: frames remain at the ends."""
    x, src = call["self"], call["src"]
    if isinstance(x, LengthDependent) and isinstance(src, Stream):
        return _into_constant(ctx, call, x, src)
    if isinstance(x, Const) or not isinstance(src, Stream) or not isinstance(x, Stream):
        raise Refused("writes a stream into a constant, or a constant into a part of a stream", "torch.cat or torch.where")
    dim = call.dim(len(x.dims))
    length = ctx.shapes.size(x, dim)
    if call.op == "select_scatter":
        if is_time(ctx, call, x, dim, "writes a part of"):
            raise Refused("writes single frames of the clip", "torch.cat over time with constants, or torch.where")
        call = ctx.streams.align(call)
        return ctx.emit.local(call, x.dims, lead(call.streams))
    first, cut = _remaining(call, length)
    step = ctx.shapes.integer(call.get("step", 1))
    if not any(first.values) and not any(cut.values) and step == 1:
        return src
    if not is_time(ctx, call, x, dim, "writes a part of"):
        return _beside_time(ctx, call, x, (dim, first.now, length.now - cut.now))
    if step != 1:
        raise Refused(*EVERY_OTHER)
    if not first.constant or not cut.constant:
        raise Refused("writes frames into a part of another stream", "torch.cat over time with constants, or torch.where")
    if x.fill is not None:
        return pad_time(ctx, call, src, (first.now, cut.now), "constant", x.fill)
    return _between(ctx, call, x, src, (first.now, cut.now))


def _beside_time(ctx: RuleContext, call: OpCall, x: Stream, written: tuple[int, int, int]) -> Stream:
    """A slice of another dimension is written. Of a tensor of one value, the program remembers where."""
    dim, first, end = written
    call = ctx.streams.align(call)
    y = ctx.emit.local(call, x.dims, lead(call.streams))
    if x.fill is not None:
        return replace(y, patches=(x.fill, dim, ((first, end),)))
    if x.patches is not None and x.patches[1] == dim:
        return replace(y, patches=(x.patches[0], dim, (*x.patches[2], (first, end))))
    return y


def _between(ctx: RuleContext, call: OpCall, x: Stream, src: Stream, ends: tuple[int, int]) -> Stream:
    """Frames of one stream, between frames of another stream at the ends."""
    if src.dtype != x.dtype:
        src = as_stream(ctx.apply(call.other("aten.to.dtype", self=src, dtype=x.dtype)))
    ones = as_stream(ctx.apply(call.other("aten.ones_like.default", self=src)))
    mask, middle = (pad_time(ctx, call, s, ends, "constant", 0.0) for s in (ones, src))
    inside = ctx.apply(call.other("aten.gt.Scalar", self=mask, other=0.5))
    return as_stream(ctx.apply(call.other("aten.where.self", condition=inside, self=middle, other=x)))


def _remaining(call: OpCall, length: Size) -> tuple[Size, Size]:
    """How many elements of a dimension a slice leaves out at the start and at the end."""
    start = Size.of(call.get("start") or 0, len(length.values))
    end = Size.of(END if call.get("end") is None else call["end"], len(length.values))
    return from_start(start, length), length.combine(lambda n, e: n - e, from_start(end, length))


def _into_constant(ctx: RuleContext, call: OpCall, x: LengthDependent, src: Stream) -> Stream:
    """A stream is written into a tensor that depends on the clip's length alone: ``torch.zeros(b, c, t)``."""
    dim = call.dim(len(src.dims))
    single = call.op == "select_scatter"
    step = 1 if single else ctx.shapes.integer(call.get("step", 1))
    if step != 1 and src.dims[dim] == (TIME,):
        raise Refused(*EVERY_OTHER)
    if not single and step == 1 and not any(v for part in _remaining(call, ctx.lengths.size(x, dim)) for v in part.values):
        return src
    if single or src.dims[dim] != (TIME,):
        return scatter(ctx, call.with_args(self=ctx.lengths.beside(x, src)))
    value = ctx.lengths.concrete(x).flatten()
    first, cut = _remaining(call, ctx.lengths.size(x, dim))
    if not value.numel() or bool((value != value[0]).any()) or not first.constant or not cut.constant:
        raise Refused("writes frames into a part of a table", "torch.cat over time with constants, or torch.where")
    return pad_time(ctx, call, src, (first.now, cut.now), "constant", float(value[0]))
