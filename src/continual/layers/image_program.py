"""Convolutions of images in compiled programs, whose older frames lie in a ring."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.program.context import CallRows, Ring
from .local import parameter
from .native import convolution, depthwise
from .native.image_operations import convolution_of, depthwise_of


def depthwise_images(layer: Any, ring: Ring | None, rows: CallRows, x: Tensor) -> Tensor:
    """The window that ends with the frames ``(B, C, H, W)`` which come: ``(B, C, 1, H', W')``, channels last in memory.

    Args:
        layer: the convolution.
        ring: its older frames; ``None`` where it has one tap.
        rows: of the call.
        x: the newest frame of each row.
    """
    kernel = depthwise.library() if layer._geometry is not None and _plain(layer, x) else None
    if kernel is not None and layer.in_channels >= kernel.lanes:
        kept, index = _places(ring, rows)
        y = depthwise_of(kept, index, x.movedim(1, -1), layer.weight, parameter(layer, "bias"), layer._geometry)
        y = y.movedim(-1, 1).unsqueeze(2)
    else:
        older = [] if ring is None else [ring.before(rows, back) for back in range(ring.depth, 0, -layer._dilation)]
        frames, pads = layer._pad_space(torch.stack((*older, x), 2))
        y = F.conv3d(frames, layer.weight, layer.bias, (1, *layer.stride[1:]), (0, *pads), 1, layer.groups)
    if ring is not None:
        ring.push(rows, x)
    return y


def images(layer: Any, ring: Ring, rows: CallRows, x: Tensor) -> Tensor | None:
    """The same of a dense convolution, ``(B, O, 1, H', W')``; ``None`` where oneDNN's is the faster one, or the only one."""
    geometry = convolution.Geometry.of(layer)
    if geometry is None or not _plain(layer, x) or convolution.library() is None:
        return None
    kept, index = _places(ring, rows)
    bias = parameter(layer, "bias")
    y = convolution_of(kept, index, x.movedim(1, -1), layer.weight, bias, geometry, layer._dilation).movedim(-1, 1).unsqueeze(2)
    ring.push(rows, x)
    return y


def _plain(layer: Any, x: Tensor) -> bool:
    return x.dtype == torch.float32 and layer.weight.dtype == torch.float32 and x.is_cpu


def _places(ring: Ring | None, rows: CallRows) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if ring is None else (rows.state[ring.spec.index], rows.index(ring.wire)[:, 0])
