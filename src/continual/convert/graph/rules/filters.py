"""Convolutions that code computes by Fourier transforms of the clip, with zeros behind it: ``irfft(rfft(x, n) * rfft(taps, n), n)``."""

from __future__ import annotations

import operator
from dataclasses import replace

from ....layers.conv import Conv1d
from ..axes import BATCH, TIME, fixed
from ..formulas import Formula, Lengths
from ..op_call import OpCall, Refused, RowsMixed, as_stream, result_shape
from ..rule_context import RuleContext, rule, spectrum_rule
from ..values import Const, LengthDependent, Size, Spectrum, Stream, Value
from .conv import LONG_KERNEL, absorb_padding

WHOLE = (
    "takes the spectrum of the whole clip, of which a stream has seen a part",
    "spectra of windows: torch.stft(…, center=False), or x.unfold(time, size, hop) and torch.fft.rfft over its last dimension",
)
FILTER = (
    "a filter of fixed length, irfft(rfft(x, n) * rfft(taps, n), n)[..., :x.shape[-1]] with n >= x.shape[-1] + taps.shape[-1] - 1"
)


@rule("aten.fft_rfft.default")
def rfft(ctx: RuleContext, call: OpCall) -> Stream | Spectrum:
    """The spectrum of another dimension than time; that of a clip with zeros behind it may be half of a convolution."""
    x, dim = call.stream("self"), call.dim(len(call.stream("self").dims), default=-1)
    if BATCH in x.dims[dim]:
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "transforms of other dimensions")
    if TIME not in x.dims[dim]:
        return ctx.emit.local(call, (*x.dims[:dim], *fixed(result_shape(call.node)[dim : dim + 1]), *x.dims[dim + 1 :]), x)
    n = call.get("n")
    if not isinstance(n, Size) or x.dims[-1] != (TIME,) or dim != len(x.dims) - 1 or call.get("norm") not in (None, "backward"):
        raise Refused(*WHOLE)
    return Spectrum(dims=x.dims, dtype=call.node.meta["val"].dtype, reason=WHOLE[0], remedy=WHOLE[1], of=x, length=n)


@spectrum_rule("mul")
def filtered(ctx: RuleContext, call: OpCall) -> Spectrum:
    """The spectrum times that of a filter of as many values."""
    pair = [call["self"], call["other"]]
    spectrum = next(v for v in pair if isinstance(v, Spectrum))
    other = next((v for v in pair if v is not spectrum), None)
    if isinstance(other, LengthDependent) and isinstance(other.args.get("self"), LengthDependent):
        raise Refused(*LONG_KERNEL)
    taps = _taps(other, spectrum.length)
    if taps is None or spectrum.taps is not None or spectrum.inverted:
        raise Refused(spectrum.reason, FILTER)
    return replace(spectrum, taps=taps)


def _taps(value: Value, length: Size) -> Const | None:
    """The filter whose spectrum a value is. It has as many values as the spectrum of the clip."""
    if not isinstance(value, LengthDependent) or value.name != "aten.fft_rfft.default":
        return None
    taps, n = value.args["self"], value.args.get("n")
    alike = isinstance(n, Size) and n.values == length.values and value.args.get("norm") in (None, "backward")
    last = isinstance(taps, Const) and value.args.get("dim", -1) in (-1, taps.value.ndim - 1)
    return taps if isinstance(taps, Const) and alike and last else None


@spectrum_rule("fft_irfft")
def irfft(ctx: RuleContext, call: OpCall) -> Spectrum:
    """The inverse transform: the convolution, of which a slice takes the frames."""
    spectrum = call["self"]
    if not isinstance(spectrum, Spectrum) or spectrum.taps is None or spectrum.inverted:
        raise Refused(*WHOLE)
    n = ctx.shapes.sized(call.get("n") or 0)
    if (
        n.values != spectrum.length.values
        or call.get("dim", -1) not in (-1, len(spectrum.dims) - 1)
        or call.get("norm") not in (None, "backward")
    ):
        raise Refused(spectrum.reason, FILTER)
    return replace(spectrum, inverted=True, dtype=call.node.meta["val"].dtype)


@spectrum_rule("slice", "narrow")
def taken(ctx: RuleContext, call: OpCall) -> Value:
    """A slice of the convolution with as many frames as the clip: a convolution over time."""
    spectrum, sized = call["self"], ctx.shapes.sized
    if not isinstance(spectrum, Spectrum) or not spectrum.inverted or call.get("step", 1) != 1:
        raise Refused(*WHOLE)
    first, last = sized(call.get("start") or 0), call["length"] if "length" in call.args else call["end"]
    last = first.combine(operator.add, sized(last)) if "length" in call.args else sized(last)
    time = call.dim(len(spectrum.dims)) == len(spectrum.dims) - 1
    whole = spectrum.length.values if time else ctx.shapes.size(spectrum.of, call.dim(len(spectrum.dims))).values
    if not any(first.values) and all(e >= n for e, n in zip(last.values, whole, strict=True)):
        return spectrum
    frames = ctx.shapes.length(spectrum.of.wire)
    if not time or first.varies or first.now < 0 or [e - first.now for e in last.values] != [*frames.values]:
        raise Refused(spectrum.reason, FILTER)
    return _convolution(ctx, call, spectrum, first.now)


def _convolution(ctx: RuleContext, call: OpCall, spectrum: Spectrum, first: int) -> Stream:
    """A convolution of each channel with the filter, or with one of its own."""
    x, taps, rank = spectrum.of, spectrum.taps, len(spectrum.dims)
    lead = () if taps is None else tuple(taps.value.shape[:-1])
    if (
        taps is None
        or rank not in (2, 3)
        or x.dims[0] != (BATCH,)
        or len(lead) >= rank
        or (len(lead) == rank - 1 and lead[0] > 1)
    ):
        raise Refused(
            "filters by Fourier transforms, but not each channel of (B, C, T) by taps of its own", "taps (C, K) or (K,)"
        )
    count = taps.value.shape[-1]
    _check_length(ctx, spectrum, count, first)
    y = x if rank == 3 else ctx.emit.unsqueeze(call, x, 1)
    channels = ctx.shapes.shape(y)[1]
    weight = ctx.emit.const("aten.flip.default", [taps, [-1]])
    weight = ctx.emit.const("aten.reshape.default", [weight, [-1, 1, count]])
    weight = ctx.emit.const("aten.expand.default", [weight, [channels, 1, count]])
    y = as_stream(ctx.apply(call.other("aten.pad.default", self=y, pad=[count - 1 - first, first], mode="constant", value=0.0)))
    layer = Conv1d(channels, channels, count, groups=channels, bias=False, device="meta")
    y = absorb_padding(ctx, call, y, layer)
    y = ctx.emit.layer(call, y, layer, y.dims, weights={"weight": weight}, label=f"filter of {count} taps")
    return y if rank == 3 else ctx.emit.squeeze(call, y, [1])


def _check_length(ctx: RuleContext, spectrum: Spectrum, count: int, first: int) -> None:
    """Refuse transforms that are so short for some clips that the end of the convolution lies over its start."""
    length, formula, frames = spectrum.length, spectrum.length.formula, ctx.shapes.length(spectrum.of.wire)
    rows, wire = ctx.shapes.batches[0], spectrum.of.wire
    pairs = [*zip(length.values, frames.values, strict=True)]
    if formula is not None and formula.wires <= {wire}:
        pairs += [(_at(formula, rows, t), t) for t in range(frames.now, 0, -1)]
    short = next(((n, t) for n, t in pairs if n < t + max(first, count - 1 - first)), None)
    if short is not None:
        raise Refused(
            f"filters by a Fourier transform of {short[0]} values for a clip of {short[1]} frames: with {count} taps, its end comes at the "
            "start again",
            FILTER,
        )


def _at(formula: Formula, rows: int, frames: int) -> int:
    return int(formula(Lengths(rows, lambda wire: frames)))
