"""Average pools without the options that runtimes read otherwise than torch, or not at all.

torch's ONNX exporter ignores ``divisor_override``, and OpenVINO counts what lies beyond the padding in ``ceil_mode``: both give wrong
numbers without an error. Windows of zeros that are really there, and divisors that are numbers, leave nothing to read differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.window import per_dim

_POOLS: tuple[Any, ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def averages(
    dims: int,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """As ``aten.avg_pool1d`` to ``aten.avg_pool3d``, by a pool that has no padding and no options."""
    kernel = per_dim(kernel_size, dims, "kernel_size")
    stride, padding = per_dim(stride or kernel, dims, "stride"), per_dim(padding, dims, "padding")
    pads: list[int] = []
    counts = x.new_ones(())  # of values that torch divides each window by
    for size, k, s, p in zip(x.shape[-dims:], kernel, stride, padding, strict=True):
        windows = _windows(size, k, s, p, ceil_mode)
        starts = s * torch.arange(windows, device=x.device) - p
        low, high = (-p, size + p) if count_include_pad else (0, size)
        counts = counts.unsqueeze(-1) * ((starts + k).clamp(max=high) - starts.clamp(min=low))
        pads = [p, max(p, s * (windows - 1) - p + k - size), *pads]  # F.pad takes the last dimension first
    sums = _POOLS[dims - 1](F.pad(x, pads), kernel, stride) * math.prod(kernel)
    return sums / (counts if divisor_override is None else divisor_override)


def _windows(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """How many windows there are along a dimension: with ``ceil_mode`` all that begin inside, or in the padding before it."""
    room = size + 2 * padding - kernel
    number = (-(-room // stride) if ceil_mode else room // stride) + 1
    return number - 1 if ceil_mode and (number - 1) * stride >= size + padding else number
