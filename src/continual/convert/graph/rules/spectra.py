"""Fourier transforms of other dimensions than time."""

from __future__ import annotations

from ..axes import BATCH, TIME, fixed
from ..op_call import OpCall, Refused, RowsMixed, result_shape
from ..rule_context import RuleContext, rule
from ..values import Stream


@rule("aten._fft_r2c.default", "aten._fft_c2c.default", "aten._fft_c2r.default")
def fft(ctx: RuleContext, call: OpCall) -> Stream:
    """A transform of other dimensions than time."""
    x = call.stream("self")
    dims = [d % len(x.dims) for d in call.integers("dim")]
    if any(TIME in x.dims[d] for d in dims):
        raise Refused(
            "takes the spectrum of the whole clip, of which a stream has seen a part",
            "spectra of windows: torch.stft(…, center=False), or x.unfold(time, size, hop) and torch.fft.rfft over its last dimension",
        )
    if any(BATCH in x.dims[d] for d in dims):
        raise RowsMixed(f"`{call.op}` mixes the rows of the batch", "transforms of other dimensions")
    sizes = fixed(result_shape(call.node))
    return ctx.emit.local(call, tuple(sizes[i] if i in dims else d for i, d in enumerate(x.dims)), x)


@rule("aten.col2im.default")
def fold(ctx: RuleContext, call: OpCall) -> Stream:
    """Patches become images, frame by frame."""
    x = call.stream("self")
    if any(TIME in d or BATCH in d for d in x.dims[1:]):
        raise Refused(
            "adds overlapping patches over time", "nn.ConvTranspose2d over time; or fold frame by frame, with time in the batch"
        )
    return ctx.emit.local(call, (x.dims[0], *fixed(result_shape(call.node)[1:])), x)


@rule("aten.istft.default")
def istft(ctx: RuleContext, call: OpCall) -> Stream:
    """Overlapping windows are added and divided by a sum that depends on the end of the clip."""
    raise Refused(
        "adds overlapping windows, and divides by how many there are, which depends on where the clip ends",
        "nn.ConvTranspose1d over time with the inverse transform as its weight; or istft outside of the stream",
    )
