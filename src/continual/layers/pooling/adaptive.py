"""Adaptive pooling over space with a window over time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.module import PaddingMode
from .base import _Pool, quick
from .windowed import _AvgPool, _MaxPool

Size = int | None | Sequence[int | None]


class AdaptivePool(_Pool):
    """What the adaptive layers share. Over time they are a pool with a kernel; over space they pool to a given size."""

    output_size: Any
    _short = True

    def __init__(
        self,
        output_size: Size,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        temporal_fill: PaddingMode | str | None = None,
    ):
        nn.Module.__init__(self)
        self.output_size = output_size
        self.configure(temporal_fill, kernel_size, stride, padding, dilation)

    def configure(
        self,
        temporal_fill: PaddingMode | str | None = None,
        kernel_size: int | None = None,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
    ) -> None:
        name = type(self).__name__
        if kernel_size is None:
            raise ValueError(f"{name} needs kernel_size, the number of steps that the window over time holds")
        sizes = self.output_size if isinstance(self.output_size, (tuple, list)) else (self.output_size,) * self.dims
        if len(sizes) != self.dims or sizes[0] != 1:
            raise ValueError(f"{name}: output_size is 1 over time, (1, …) with {self.dims} entries, got {self.output_size}")
        self.output_size = tuple(sizes)
        space = (1,) * (self.dims - 1)
        self.kernel_size, self.stride = (kernel_size, *space), (stride, *space)
        self.padding, self.dilation = (padding, *(0 for _ in space)), (dilation, *space)
        self.ceil_mode, self.return_indices = False, False
        super().configure(temporal_fill)
        self._native, self._over_space = False, self.dims > 1
        self._last = False

    def forward(self, input: Tensor) -> Tensor:
        """All windows of the clip; a clip as long as the window, or shorter, gives what ``torch.nn`` gives."""
        return self.windows_of(input)

    def reaching_back(self) -> Self:
        """This pool with a window for every frame: the last ``kernel_size`` frames, or at the start those that there are."""
        if (self.stride[0], self.padding[0], self.dilation[0]) != (1, 0, 1):
            return self
        made = copy.copy(self)
        made.set_window(self._taps, 1, self._taps - 1, fill=self._native_fill)
        made.__dict__["count_include_pad"] = False
        return made

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, kernel_size={self.kernel_size[0]}, stride={self.stride[0]}"


class _AdaptiveAvg(AdaptivePool, _AvgPool):
    count_include_pad = True
    divisor_override = None

    def over_space(self, x: Tensor) -> Tensor:
        pool: Any = F.adaptive_avg_pool2d if self.dims == 3 else F.adaptive_avg_pool1d
        return pool(quick(x), self.output_size[1:] if self.dims == 3 else self.output_size[1])


class _AdaptiveMax(AdaptivePool, _MaxPool):
    def over_space(self, x: Tensor) -> Tensor:
        pool: Any = F.adaptive_max_pool2d if self.dims == 3 else F.adaptive_max_pool1d
        return pool(quick(x), self.output_size[1:] if self.dims == 3 else self.output_size[1])


class AdaptiveAvgPool1d(_AdaptiveAvg, nn.AdaptiveAvgPool1d):
    """Average over a window in time: what a global pooling at the end of a clip network is in a stream.

    A clip that is shorter than the window has one output, the average of what there is; so has a stream that ends so early.

    Args:
        output_size: 1.
        kernel_size: steps in the window, in general the length of the clips that the network was trained on.
        stride, padding, dilation: of the window, in steps.
        temporal_fill: what pads time.

    Example:
        >>> pool = co.AdaptiveAvgPool1d(1, kernel_size=10)
        >>> clip = torch.randn(2, 4, 10)
        >>> torch.allclose(pool(clip), nn.AdaptiveAvgPool1d(1)(clip), atol=1e-6), pool.delay
        (True, 9)
    """

    dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvg, nn.AdaptiveAvgPool2d):
    """:class:`AdaptiveAvgPool1d` for clips ``(B, C, T, S)``; ``output_size`` is ``(1, S')``, or 1 for ``(1, 1)``."""

    dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvg, nn.AdaptiveAvgPool3d):
    """:class:`AdaptiveAvgPool1d` for clips ``(B, C, T, H, W)``; ``output_size`` is ``(1, H', W')``, or 1 for ``(1, 1, 1)``."""

    dims = 3


class AdaptiveMaxPool1d(_AdaptiveMax, nn.AdaptiveMaxPool1d):
    """Maximum over a window in time; arguments as :class:`AdaptiveAvgPool1d`."""

    dims = 1


class AdaptiveMaxPool2d(_AdaptiveMax, nn.AdaptiveMaxPool2d):
    """Maximum over a window in time, adaptive over space: clips ``(B, C, T, S)``."""

    dims = 2


class AdaptiveMaxPool3d(_AdaptiveMax, nn.AdaptiveMaxPool3d):
    """Maximum over a window in time, adaptive over space: clips ``(B, C, T, H, W)``."""

    dims = 3
