"""Maxima over time as one operation in an export.

torch computes the shape of `max_pool1d` of plain numbers (of 2D and 3D pools of symbols), so an export fixes the clip's length there.
Here it is an operation of this library, whose shape is a formula. The exported graph has torch's operation again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_library = torch.library.Library("continual", "FRAGMENT")
_library.define(
    "whole_max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, int[1] dilation=1, bool ceil_mode=False) "
    "-> Tensor"
)
Numbers = int | Sequence[int]


def _one(value: Numbers) -> int:
    return value[0] if isinstance(value, Sequence) else value


def _shaped(
    x: Tensor, kernel: Numbers, stride: Numbers = (), padding: Numbers = 0, dilation: Numbers = 1, ceil_mode: bool = False
) -> Tensor:
    """A tensor of the shape of the result."""
    step = _one(stride or kernel)
    before, extent = _one(padding), _one(dilation) * (_one(kernel) - 1) + 1
    room = x.shape[-1] + 2 * before - extent
    count = room // step + 1
    if ceil_mode:  # a last window that begins within the clip
        count = torch.sym_min(-(-room // step), (x.shape[-1] + before - 1) // step) + 1
    return x.new_empty((*x.shape[:-1], count))


_library.impl("whole_max_pool1d", _shaped, "Meta")  # only an export runs it, for shapes
_WHOLE = torch.ops.continual.whole_max_pool1d.default
TORCH_OPS: dict[Any, Any] = {_WHOLE: torch.ops.aten.max_pool1d.default}


def _maximum(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        return F.max_pool1d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)  # type: ignore[arg-type]
    options = ([_one(v)] for v in (kernel_size, stride or kernel_size, padding, dilation))
    return _WHOLE(input, *options, ceil_mode)


BY_FUNCTION: dict[Any, Callable[..., Any]] = {F.max_pool1d: _maximum, torch.max_pool1d: _maximum}
