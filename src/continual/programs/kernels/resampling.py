"""Transposed convolution and interpolation in step programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...core.program.context import Rows, Run, Site, frames_at, kernel
from ...core.resampling import Interpolation
from ...layers.transposed import _ConvTranspose
from ...layers.upsample import Upsample


@kernel(_ConvTranspose)
def transposed(site: Site) -> Run:
    """All frames that the outputs of a call see, in one operation; frames that are none add nothing."""
    layer: Any = site.module
    rate, extent, arrives, leaves = layer.rate, layer._extent, site.arrives, site.leaves
    start = leaves.first + layer.padding[0]  # positions before the crop, of call 0
    stop = start + leaves.frames
    last = min(arrives.first + arrives.frames - 1, (stop - 1) // rate)
    first = min(last, start // rate, -((extent - 1 - start) // rate))
    beyond = max(0, stop - last * rate - extent)
    past = site.past("frames", site.node.given, first - arrives.first)
    apart = site.plan.fused and layer._over_time_alone and layer.groups == 1 and layer.kernel_size[0] == extent == rate

    def run(x: Tensor, rows: Rows) -> Tensor:
        frames = past.extend(rows, site.gated(rows, x, 0.0))[:, :, : last - first + 1]
        y: Tensor = _apart(layer, frames) if apart else layer._transposed(frames, 0, beyond)
        return y.narrow(2, start - first * rate, leaves.frames)

    return run


def _apart(layer: Any, frames: Tensor) -> Tensor:
    """Outputs that see one frame each, as one product for all of them."""
    given = frames.flatten(2).transpose(1, 2)  # (B, n * S, I)
    y = torch.matmul(given, layer.weight.flatten(1)).unflatten(2, (layer.out_channels, -1))  # (B, n * S, O, k)
    y = y.unflatten(1, frames.shape[2:]).movedim((-2, -1), (1, 3)).flatten(2, 3)
    return y if layer.bias is None else y + layer.bias.view(-1, *(1,) * layer.dims)


@kernel(Upsample)
def upsample(site: Site) -> Run:
    """Weighted sums of frames. Beyond the ends the first and the last frame are repeated."""
    layer: Any = site.module
    interpolation: Interpolation | None = layer._interpolation
    if interpolation is None:
        return lambda x, rows: layer.enter(x)
    period, inputs = interpolation.factor.numerator, interpolation.factor.denominator
    outputs = range(site.leaves.first, site.leaves.first + site.leaves.frames)
    sources = torch.tensor([[i + j // period * inputs for i in layer._indices[j % period]] for j in outputs])
    weights = torch.tensor([layer._weights[j % period] for j in outputs], dtype=torch.float64)
    low = int(sources.min())
    past = site.past("frames", site.node.out, low - site.arrives.first)
    clamps = interpolation.kind in ("linear", "cubic")

    def run(x: Tensor, rows: Rows) -> Tensor:
        frames = past.extend(rows, layer.enter(x))
        first, *others = (
            _clamped(frames, tap.to(x.device), rows) if clamps else frames.index_select(2, (tap - low).to(x.device))
            for tap in sources.unbind(1)
        )
        if not others:
            return first
        own, *shares = (w.to(x.device, x.dtype).view(-1, *(1,) * (x.ndim - 3)) for w in weights.unbind(1))
        y = first * own
        for found, share in zip(others, shares, strict=True):
            y = torch.addcmul(y, found, share)
        return y

    def _clamped(frames: Tensor, tap: Tensor, rows: Rows) -> Tensor:
        held = rows.index(site.arrives)[:, :1] + (low - site.arrives.first)  # the index of the first frame at hand
        index = (held - low + tap).clamp(min=0)
        index = index.minimum(rows.ended(site.before).unsqueeze(1) - 1) if site.plan.flush else index
        return frames_at(frames, (index - held).clamp(0, frames.shape[2] - 1))

    return run
