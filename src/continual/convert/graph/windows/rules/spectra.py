"""Spectra: of windows of time, and over other dimensions."""

from __future__ import annotations

from typing import Any

from ...axes import TIME
from ...values import Const
from ..sizes import Unfollowed
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import resized, sized
from .convolution import sliding
from .pointwise import alike, timed


@rule("aten.fft_rfft.default", "aten.fft_irfft.default", "aten.fft_fft.default", "aten.fft_ifft.default", "aten.fft_hfft.default")
def fft(w: Walk, call: Call) -> Any:
    """Over another dimension than time."""
    x: Task = call["self"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    dim = call.get("dim", -1) % len(wire.dims)
    if any(isinstance(f, str) for f in wire.dims[dim]):
        raise Unfollowed("over time")
    return w.positionwise(call, resized(wire.dims, {dim: sizes[dim]}), wire)


@rule("aten.view_as_real.default", "aten.view_as_complex.default")
def real_and_imaginary(w: Walk, call: Call) -> Any:
    """Complex numbers as real and imaginary parts in a last dimension, and back."""
    x: Task = call["self"]
    wire = alike(timed([x]))
    dims = (*wire.dims, (2,)) if call.op == "view_as_real" else wire.dims[:-1]
    return w.positionwise(call, dims, wire)


@rule("aten.stft.default")
def stft(w: Walk, call: Call) -> Any:
    """Spectra of windows that slide over the signal."""
    x: Task = call["self"]
    wire, sizes = alike(timed([x])), w.result_shape(call)
    if len(wire.dims) != 2 or wire.dim != 1 or not wire.alone or isinstance(call.get("window"), Task):
        raise Unfollowed("no rows beside time")
    if call.get("window") is not None and not isinstance(call["window"], Const):
        raise Unfollowed("a window that is computed")
    size = call["n_fft"]
    hop = call.get("hop_length") or size // 4
    dims = (wire.dims[0], sized(sizes[1]), (TIME,), *(sized(s) for s in sizes[3:]))
    args, _ = w.call_args(call)
    return sliding(w, call, dims, target=call.name, args=args, extent=size, step=hop, start=0)
