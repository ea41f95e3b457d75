"""Patches of images as tall or as wide as the clip is long, which keep its length open in an export.

``F.unfold(x, (3, x.shape[-1]))`` takes bands of three frequencies of all frames. torch's operation has plain numbers for the size of a
patch, so that an export fixes the clip's length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .decomposition import im2col

Numbers = int | Sequence[int]


def _two(value: Numbers) -> list[int]:
    return list(value) if isinstance(value, Sequence) else [value, value]


def _patches(input: Tensor, kernel_size: Numbers, dilation: Numbers = 1, padding: Numbers = 0, stride: Numbers = 1) -> Tensor:
    if any(isinstance(k, torch.SymInt) for k in _two(kernel_size)) and input.ndim == 4:
        return im2col(input, *map(_two, (kernel_size, dilation, padding, stride)))
    return F.unfold(input, kernel_size, dilation, padding, stride)  # type: ignore[arg-type]


BY_FUNCTION: dict[Any, Callable[..., Any]] = {F.unfold: _patches}
