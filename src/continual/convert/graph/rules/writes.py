"""Parts of tensors that are written."""

from __future__ import annotations

from dataclasses import replace

from ..axes import TIME
from ..op_call import Call, Refused, rule
from ..values import Clocked, Const, Size, Stream
from ..walker import Builder
from .elementwise import lead
from .padding import pad_time
from .parts import alone
from .slices import END

EVERY_OTHER = "writes every other frame of the clip", "torch.where, or transposed convolution"


@rule("aten.slice_scatter.default", "aten.select_scatter.default", keeps_clocked=True)
def scatter(b: Builder, call: Call) -> Stream:
    """A part of a tensor is written. Over time: frames of one value are left at the ends."""
    x, src = call["self"], call["src"]
    if isinstance(x, Clocked) and isinstance(src, Stream):
        return _into_constant(b, call, x, src)
    if isinstance(x, Const) or not isinstance(src, Stream) or not isinstance(x, Stream):
        raise Refused("writes a stream into a constant, or a constant into a part of a stream", "torch.cat or torch.where")
    dim = int(call["dim"]) % len(x.dims)
    length = b.size(x, dim)
    if call.op == "select_scatter":
        if alone(b, call, x, dim, "writes a part of"):
            raise Refused("writes single frames of the clip", "torch.cat over time with constants, or torch.where")
        call = b.together(call)
        return b.local(call, x.dims, lead(call.streams))
    first, cut = _ends(call, length)
    step = b.number(call.get("step", 1))
    if not any(first.values) and not any(cut.values) and step == 1:
        return src
    if not alone(b, call, x, dim, "writes a part of"):
        value, stretches = (x.fill, ()) if x.fill is not None else (x.patches[0], x.patches[2]) if x.patches else (None, ())
        call = b.together(call)
        y = b.local(call, x.dims, lead(call.streams))
        return y if value is None else replace(y, patches=(value, dim, (*stretches, (first.now, length.now - cut.now))))
    if step != 1:
        raise Refused(*EVERY_OTHER)
    if not first.steady or not cut.steady:
        raise Refused("writes frames into a part of another stream", "torch.cat over time with constants, or torch.where")
    ends = first.now, cut.now
    return pad_time(b, call, src, ends, "constant", x.fill) if x.fill is not None else _between(b, call, x, src, ends)


def _between(b: Builder, call: Call, x: Stream, src: Stream, ends: tuple[int, int]) -> Stream:
    """Frames of one stream, and of another at the ends."""
    if src.dtype != x.dtype:
        src = b.apply_named(call.node, "aten.to.dtype", {"self": src, "dtype": x.dtype}, ("self", "dtype"))
    within = b.apply_named(call.node, "aten.ones_like.default", {"self": src}, ("self",))
    mask, middle = (pad_time(b, call, s, ends, "constant", 0.0) for s in (within, src))
    inside = b.apply_named(call.node, "aten.gt.Scalar", {"self": mask, "other": 0.5}, ("self", "other"))
    chosen = {"condition": inside, "self": middle, "other": x}
    return b.apply_named(call.node, "aten.where.self", chosen, tuple(chosen))


def _ends(call: Call, length: Size) -> tuple[Size, Size]:
    """How much a slice leaves at the start and at the end of a dimension."""
    start = Size.of(call.get("start") or 0, len(length.values))
    end = Size.of(END if call.get("end") is None else call["end"], len(length.values))
    first = start.combine(lambda s, n: min(max(s + n, 0) if s < 0 else s, n), length)
    return first, end.combine(lambda e, n: n - min(max(e + n, 0) if e < 0 else e, n), length)


def _into_constant(b: Builder, call: Call, x: Clocked, src: Stream) -> Stream:
    """A stream is written into what depends on the clip's length alone: ``torch.zeros(b, c, t)``."""
    dim = int(call["dim"]) % len(src.dims)
    step = 1 if call.op == "select_scatter" else b.number(call.get("step", 1))
    if step != 1 and src.dims[dim] == (TIME,):
        raise Refused(*EVERY_OTHER)
    if (
        call.op == "slice_scatter"
        and step == 1
        and not any(v for part in _ends(call, b.size_of_clocked(x, dim)) for v in part.values)
    ):
        return src
    if call.op == "select_scatter" or src.dims[dim] != (TIME,):
        made = b.clocked_stream(x, src)
        return scatter(b, replace(call, args=call.args | {"self": made}))
    value = b.concrete(x).flatten()
    first, cut = _ends(call, b.size_of_clocked(x, dim))
    if not value.numel() or bool((value != value[0]).any()) or not first.steady or not cut.steady:
        raise Refused("writes frames into a part of a table", "torch.cat over time with constants, or torch.where")
    return pad_time(b, call, src, (first.now, cut.now), "constant", float(value[0]))
