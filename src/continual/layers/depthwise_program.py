"""Depthwise convolutions of images in compiled programs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.program.context import CallRows, Ring
from .local import parameter
from .native import depthwise
from .native.depthwise_operation import of_images


def compute(layer: Any, ring: Ring | None, rows: CallRows, x: Tensor) -> Tensor:
    """The window that ends with the frames ``(B, C, H, W)`` which come: ``(B, C, 1, H', W')``, channels last in memory.

    Args:
        layer: the convolution.
        ring: its older frames; ``None`` where it has one tap.
        rows: of the call.
        x: the newest frame of each row.
    """
    kept = None if ring is None else rows.state[ring.spec.index]
    if computes(layer, x):
        index = None if ring is None else rows.index(ring.wire)[:, 0]
        y = of_images(kept, index, x.movedim(1, -1), layer.weight, parameter(layer, "bias"), layer._geometry)
        y = y.movedim(-1, 1).unsqueeze(2)
    else:
        older = [] if ring is None else [ring.before(rows, back) for back in range(ring.depth, 0, -layer._dilation)]
        frames, pads = layer._pad_space(torch.stack((*older, x), 2))
        y = F.conv3d(frames, layer.weight, layer.bias, (1, *layer.stride[1:]), (0, *pads), 1, layer.groups)
    if ring is not None:
        ring.push(rows, x)
    return y


def computes(layer: Any, x: Tensor) -> bool:
    """Whether the kernel computes a convolution of frames like these."""
    if layer._geometry is None or x.dtype != torch.float32 or layer.weight.dtype != torch.float32 or not x.is_cpu:
        return False
    kernel = depthwise.library()
    return kernel is not None and layer.in_channels >= kernel.lanes
