"""Average pools without the options that runtimes ignore or interpret differently from torch.

torch's ONNX exporter ignores ``divisor_override``, and OpenVINO counts values beyond the padding in ``ceil_mode``: both give wrong results
without an error. Explicit zeros and explicit divisors have only one interpretation.
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
    """Compute ``aten.avg_pool1d`` to ``aten.avg_pool3d`` by a pool without padding and options."""
    kernel = per_dim(kernel_size, dims, "kernel_size")
    stride, padding = per_dim(stride or kernel, dims, "stride"), per_dim(padding, dims, "padding")
    pads: list[int] = []
    counts = x.new_ones(())  # torch's divisor of each window
    for size, k, s, p in zip(x.shape[-dims:], kernel, stride, padding, strict=True):
        windows = _windows(size, k, s, p, ceil_mode)
        starts = s * torch.arange(windows, device=x.device) - p
        low, high = (-p, size + p) if count_include_pad else (0, size)
        counts = counts.unsqueeze(-1) * ((starts + k).clamp(max=high) - starts.clamp(min=low))
        pads = [p, max(p, s * (windows - 1) - p + k - size), *pads]  # F.pad takes the last dimension first
    sums = _POOLS[dims - 1](F.pad(x, pads), kernel, stride) * math.prod(kernel)
    return sums / (counts if divisor_override is None else divisor_override)


def _windows(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """The number of windows along a dimension: with ``ceil_mode`` all that start inside, or in the padding before it."""
    room = size + 2 * padding - kernel
    number = (-(-room // stride) if ceil_mode else room // stride) + 1
    return number - 1 if ceil_mode and (number - 1) * stride >= size + padding else number
