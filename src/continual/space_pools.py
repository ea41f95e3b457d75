"""Average pools over images whose last window may reach beyond the image, without the options that runtimes disagree on.

torch's ONNX exporter ignores ``divisor_override``, and OpenVINO counts what lies beyond the padding in ``ceil_mode``: both give wrong
numbers without an error. Windows of zeros that are really there, and divisors that are numbers, leave nothing to read differently.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def averages(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil: bool,
    include_pad: bool,
    undivided: bool,
) -> Tensor:
    """As ``F.avg_pool2d`` on images ``(B, C, H, W)``; ``undivided``: sums, as with a divisor of 1."""
    if not ceil and not undivided:
        return F.avg_pool2d(x, kernel, stride, padding, False, include_pad)
    y = _sums(x, kernel, stride, padding, ceil)
    return y if undivided else y / _counts(x, kernel, stride, padding, ceil, include_pad)


def _sums(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil: bool) -> Tensor:
    """The sums of all windows of images ``(B, C, H, W)``."""
    pads: list[int] = []
    for i in (1, 0):  # F.pad takes the last dimension first
        size, k, s, p = x.shape[2 + i], kernel[i], stride[i], padding[i]
        pads += [p, p + max(0, (_windows(size, k, s, p, ceil) - 1) * s + k - size - 2 * p)]
    return F.avg_pool2d(F.pad(x, pads), kernel, stride) * (kernel[0] * kernel[1])


def _counts(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil: bool, include_pad: bool
) -> Tensor:
    """How many values torch divides each window of such images by, ``(H', W')``: those inside, or also those of the padding."""
    found = []
    for size, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True):
        low, high = (-p, size + p) if include_pad else (0, size)
        starts = [s * i - p for i in range(_windows(size, k, s, p, ceil))]
        found.append([min(start + k, high) - max(start, low) for start in starts])
    return torch.tensor([[h * w for w in found[1]] for h in found[0]], dtype=x.dtype, device=x.device)


def _windows(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> int:
    """How many windows there are along a dimension: all that begin inside, or in the padding before it."""
    room = size + 2 * padding - kernel
    number = (-(-room // stride) if ceil else room // stride) + 1
    return number - 1 if ceil and (number - 1) * stride >= size + padding else number
