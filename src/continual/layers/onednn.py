"""Convolutions over images, and linear maps of many rows, by oneDNN on weights that are laid out for it once.

Torch's own ``conv3d`` lays a weight out again in every call, and on small inputs or one thread does without oneDNN: 2 to 8 times
slower on short chunks (measured in docs/performance.md).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

MANY_ROWS = 64  # from which a linear map on a packed weight may be faster; below, a call costs more
CLEARLY = 0.8  # of the time
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


@functools.cache
def packed_is_faster() -> bool:
    """Whether products of many rows are clearly faster on packed weights here, measured once (1 ms): twice on an AMD EPYC, not on a Xeon.

    torch's own products are MKL's, which is slower on other processors than Intel's.
    """
    if not HAS_PACKED:
        return False
    with torch.inference_mode():
        x, weight = torch.ones(2 * MANY_ROWS, 256, device="cpu"), torch.ones(256, 256, device="cpu")
        packed, spent = pack_linear(weight), [float("inf")] * 2
        for _ in range(8):
            for i, run in enumerate((lambda: torch.mm(x, weight), lambda: linear(x, packed, None))):
                start = time.perf_counter()
                run()
                spent[i] = min(spent[i], time.perf_counter() - start)
    return spent[1] < CLEARLY * spent[0]


def is_wide(x: Tensor, weight: Tensor) -> bool:
    """Whether a linear map of ``x`` by a weight ``(O, I)`` has many rows, and is faster on a packed weight."""
    return x.numel() >= MANY_ROWS * weight.shape[1] and packs(x, weight) and packed_is_faster()


def pack_linear(weight: Tensor) -> Tensor:
    """A weight ``(O, I)`` as oneDNN wants it for many rows."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 2 * MANY_ROWS)
    return packed


def linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """The linear map of ``(…, I)``."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y
