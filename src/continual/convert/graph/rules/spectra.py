"""Fourier transforms, of other axes than time."""

from __future__ import annotations

from ..axes import BATCH, TIME, fixed
from ..op_call import Call, Refused, hint, rule
from ..values import Stream
from ..walker import Builder


@rule("aten._fft_r2c.default", "aten._fft_c2c.default", "aten._fft_c2r.default")
def fft(b: Builder, call: Call) -> Stream:
    """A transform of other axes than time."""
    x: Stream = call["self"]
    chosen = call["dim"] if isinstance(call["dim"], (list, tuple)) else [call["dim"]]
    dims = [int(d) % len(x.dims) for d in chosen]
    if any(TIME in x.dims[d] for d in dims):
        raise Refused(
            "takes the spectrum of the whole clip, of which a stream has seen a part",
            "spectra of windows: torch.stft(…, center=False), or x.unfold(time, size, hop) and torch.fft.rfft over its last dimension",
        )
    if any(BATCH in x.dims[d] for d in dims):
        raise Refused(f"`{call.op}` mixes the rows of the batch", "transforms of other dimensions")
    shape = [hint(s) for s in call.node.meta["val"].shape]
    return b.local(call, tuple(fixed((shape[i],))[0] if i in dims else d for i, d in enumerate(x.dims)), x)


@rule("aten.col2im.default")
def fold(b: Builder, call: Call) -> Stream:
    """Patches are put together to images, frame by frame."""
    x: Stream = call["self"]
    if any(TIME in d or BATCH in d for d in x.dims[1:]):
        raise Refused(
            "adds overlapping patches over time", "nn.ConvTranspose2d over time; or fold frame by frame, with time in the batch"
        )
    shape = [hint(s) for s in call.node.meta["val"].shape]
    return b.local(call, (x.dims[0], *fixed(shape[1:])), x)


@rule("aten.istft.default")
def istft(b: Builder, call: Call) -> Stream:
    """Overlapping windows are added and divided by a sum that depends on where the clip ends."""
    raise Refused(
        "adds overlapping windows, and divides by how many there are, which depends on where the clip ends",
        "nn.ConvTranspose1d over time with the inverse transform as its weight; or istft outside of the stream",
    )
