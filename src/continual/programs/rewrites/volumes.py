"""3D operations on ``(…, C, D, H, W)`` by 2D operations, for runtimes without 3D ones.

They run tap by tap along the first dimension, or one dimension after the other where the operation is separable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.window import per_dim
from .average_pools import averages


def _batched(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The operation, also for one volume without a batch."""

    @functools.wraps(operation)
    def run(x: Tensor, *args: Any, **options: Any) -> Tensor:
        return operation(x, *args, **options) if x.ndim == 5 else operation(x.unsqueeze(0), *args, **options).squeeze(0)

    return run


@_batched
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Compute ``F.conv3d`` as the sum of one 2D convolution per tap."""
    stride, dilation = per_dim(stride, 3, "stride"), per_dim(dilation, 3, "dilation")
    kernel = weight.shape[2:]
    if isinstance(padding, str):
        beyond = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        pads = [side for b in reversed(beyond) for side in (b // 2, b - b // 2)]
        return convolution(F.pad(x, pads), weight, bias, stride, 0, dilation, groups)
    first, *others = per_dim(padding, 3, "padding")
    x = F.pad(x, (0, 0, 0, 0, first, first))
    step, far = stride[0], dilation[0]
    last = (x.shape[2] - far * (kernel[0] - 1) - 1) // step * step
    taps = [
        F.conv2d(
            _images(x[:, :, far * i : far * i + last + 1 : step]),
            weight[:, :, i],
            None if i else bias,
            stride[1:],
            others,
            dilation[1:],
            groups,
        )
        for i in range(kernel[0])
    ]
    return _volumes(functools.reduce(torch.add, taps), x.shape[0])


@_batched
def transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Compute ``F.conv_transpose3d`` as the sum of the contributions of each tap."""
    (step, *strides), (cut, *cuts) = per_dim(stride, 3, "stride"), per_dim(padding, 3, "padding")
    (more, *mores), (far, *dilations) = per_dim(output_padding, 3, "output_padding"), per_dim(dilation, 3, "dilation")
    frames, kernel = _images(x), weight.shape[2]
    reach = step * (x.shape[2] - 1) + 1  # from the position of the first frame to that of the last one
    length = reach + far * (kernel - 1) + more
    taps = []
    for i in range(kernel):
        y = _volumes(F.conv_transpose2d(frames, weight[:, :, i], None, strides, cuts, mores, groups, dilations), x.shape[0])
        spread = F.pad(y.unsqueeze(3), (0, 0, 0, 0, 0, step - 1)).flatten(2, 3)[:, :, :reach]
        taps.append(F.pad(spread, (0, 0, 0, 0, far * i, length - reach - far * i)))
    total = functools.reduce(torch.add, taps)[:, :, cut : length - cut]
    return total if bias is None else total + bias.view(-1, 1, 1, 1)


def average_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Compute ``F.avg_pool3d`` over height and width, then over depth."""
    kernel, padded = per_dim(kernel_size, 3, "kernel_size"), per_dim(padding, 3, "padding")
    if ceil_mode or divisor_override is not None or (any(padded) and not count_include_pad):
        return averages(3, x, kernel, stride, padded, ceil_mode, count_include_pad, divisor_override)
    return _one_after_the_other(x, F.avg_pool2d, kernel, per_dim(stride or kernel, 3, "stride"), padded)


def maximum_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Compute ``F.max_pool3d`` over height and width, then over depth."""
    kernel, padded = per_dim(kernel_size, 3, "kernel_size"), per_dim(padding, 3, "padding")
    pool = functools.partial(F.max_pool2d, ceil_mode=ceil_mode)
    return _one_after_the_other(x, pool, kernel, per_dim(stride or kernel, 3, "stride"), padded, per_dim(dilation, 3, "dilation"))


def _one_after_the_other(x: Tensor, pool: Callable[..., Tensor], *geometry: tuple[int, ...]) -> Tensor:
    """Pool over height and width, then over depth. ``geometry``: kernel, stride, padding, and dilation if there is one."""
    y = pool(x.flatten(0, -4), *(g[1:] for g in geometry))
    over_depth = [(g[0], none) for g, none in zip(geometry, (1, 1, 0, 1), strict=False)]
    z = pool(y.flatten(2).unsqueeze(1), *over_depth)
    return z.reshape(*x.shape[:-3], z.shape[2], *y.shape[2:])


def adaptive_average_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Compute ``F.adaptive_avg_pool3d``."""
    return _binned(x, output_size, torch.mean)


def adaptive_maximum_pool(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute ``F.adaptive_max_pool1d`` to ``3d``, without the indices of the maxima."""
    return _binned(x, output_size, torch.amax), x.new_empty(0, dtype=torch.int64)


def _binned(x: Tensor, sizes: Sequence[int], reduce: Callable[..., Tensor]) -> Tensor:
    """Reduce the bins of one dimension after the other. Neighbouring bins may overlap."""
    for dim, wanted in enumerate(sizes, x.ndim - len(sizes)):
        size = x.shape[dim]
        if wanted == size:
            continue
        bounds = [(size * i // wanted, -(-size * (i + 1) // wanted)) for i in range(wanted)]
        x = torch.stack([reduce(x.narrow(dim, a, b - a), dim) for a, b in bounds], dim)
    return x


def _images(x: Tensor) -> Tensor:
    """``(B, C, D, H, W)`` as images ``(B·D, C, H, W)``."""
    return x.transpose(1, 2).flatten(0, 1)


def _volumes(x: Tensor, batch: int) -> Tensor:
    """Images ``(B·D, C, H, W)`` as volumes again."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)
