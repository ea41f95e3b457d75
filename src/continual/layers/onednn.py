"""Convolutions over images, and linear maps of many rows, by oneDNN on weights that are laid out for it once.

Torch's own ``conv3d`` lays a weight out again in every call, and on small inputs or one thread does without oneDNN: 2 to 8 times
slower on short chunks (measured in docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

MANY_ROWS = 64  # from which a linear map takes half of the time of torch's own on an AMD EPYC; below 32 it takes more
HAS_PACKED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")


def packs(x: Tensor, weight: Tensor) -> bool:
    """Whether it can be used: without gradients, in float32 on a CPU that has it, and where no mode observes which operations run."""
    return (
        HAS_PACKED
        and x.dtype == weight.dtype == torch.float32
        and x.is_cpu
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not is_in_torch_dispatch_mode()
    )


def pack(weight: Tensor, x: Tensor, pads: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """A weight ``(O, C, *K)`` as oneDNN wants it for inputs like ``x``; others are right, too, but may be slower."""
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, pads, stride, dilation, 1, list(x.shape))
    return packed


def convolve(
    x: Tensor, packed: Tensor, bias: Tensor | None, pads: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The convolution, in the memory format of ``x``."""
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, packed, bias, pads, stride, dilation, 1, "none", [], "")
    return y


def convolve_onto(
    y: Tensor, x: Tensor, packed: Tensor, pads: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> None:
    """Add the convolution of ``x`` to ``y``, without a tensor in between."""
    add: Any = torch.ops.mkldnn._convolution_pointwise_.binary
    add(y, x, packed, None, pads, stride, dilation, 1, "add", 1.0, None, [], "")


def is_wide(x: Tensor, weight: Tensor) -> bool:
    """Whether a linear map of ``x`` by a weight ``(O, I)`` has many rows, and may run on a packed weight."""
    return x.numel() >= MANY_ROWS * weight.shape[1] and packs(x, weight)


def pack_linear(weight: Tensor) -> Tensor:
    """A weight ``(O, I)`` as oneDNN wants it for many rows."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, MANY_ROWS)
    return packed


def linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """The linear map of ``(…, I)``."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y
