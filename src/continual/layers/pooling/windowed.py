"""Pooling over time. The first dimension of the kernel is time.

Every frame is pooled over space when it comes in, so that the window over time holds small frames. Nothing is ever added and
subtracted again: a result depends on the frames in its window alone, without drift, and a NaN leaves with its frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.module import PaddingMode
from ...core.program.context import KernelContext
from ..memory_format import unwatched
from ..window_program import Windows
from .base import _Pool
from .maxima import max_over_axes
from .program import Divide, counts
from .van_herk import cumulative_max, cumulative_sum, older_max

FEW = 1 << 11  # numbers in a chunk's frames, up to which torch's own average of one dimension is the fastest
_AVG = (None, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAX = (None, F.max_pool1d, F.max_pool2d, F.max_pool3d)


class _MaxPool(_Pool):
    _native_fill = "neg_inf"
    nothing = -math.inf

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        temporal_fill: PaddingMode | str | None = None,
    ):
        super().__init__(kernel_size, stride, padding, dilation, False, ceil_mode)
        self.configure(temporal_fill)

    def forward(self, input: Tensor) -> Tensor:
        """The clip computation: that of the ``torch.nn`` layer."""
        if not self._native:
            return self.windows_of(input)
        pool: Any = _MAX[self.dims]
        return pool(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def over_space(self, x: Tensor) -> Tensor:
        pool: Any = _MAX[self.dims - 1]
        geometry = [v[1:] for v in (self.kernel_size, self.stride, self.padding, self.dilation)]
        if self._last and not self.ceil_mode and unwatched(x):
            by_axes = max_over_axes(x, *geometry)
            if by_axes is not None:
                return by_axes
        return pool(x, *geometry, self.ceil_mode)

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        if frames.ndim == 3 and frames.is_floating_point() and not torch.is_grad_enabled():
            return torch.max_pool1d(frames, self._taps, self._window.stride, 0, self._dilation)
        return super().over_time(frames, start, ended)

    def combine(self, older: Tensor, newer: Tensor) -> Tensor:
        return older_max(older, newer)

    def cumulate(self, x: Tensor, dim: int, reverse: bool) -> Tensor:
        return cumulative_max(x, dim, reverse)


class _AvgPool(_Pool):
    _native_fill = "zeros"
    count_include_pad: bool
    divisor_override: int | None

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        dilation: int | Sequence[int] = 1,
        temporal_fill: PaddingMode | str | None = None,
    ):
        init: Any = super().__init__  # of the torch.nn class; only the 2D and 3D ones take a divisor
        init(kernel_size, stride, padding, ceil_mode, count_include_pad, *([divisor_override] if self.dims > 1 else []))
        self.dilation = dilation
        self.configure(temporal_fill)

    def configure(self, temporal_fill: PaddingMode | str | None = None) -> None:
        self.divisor_override = getattr(self, "divisor_override", None)
        if self.divisor_override == 0:
            raise ValueError(f"{type(self).__name__}: divisor_override must not be zero")
        super().configure(temporal_fill)
        if not self.count_include_pad and self.divisor_override is None and self._fill != "zeros":
            self._fill, self._native = "zeros", True  # padding that is not counted does not matter
            self.set_window(
                self._taps,
                self._window.stride,
                self.padding[0],
                self.padding[0],
                self._dilation,
                "zeros",
                self._window.end - self.padding[0],
            )
        self._native = self._native and self.dilation == (1,) * self.dims

    def forward(self, input: Tensor) -> Tensor:
        """The clip computation: that of the ``torch.nn`` layer."""
        if not self._native or (self.dims == 3 and input.shape[-3] < self.kernel_size[0]):
            return self.windows_of(input)  # nn.AvgPool3d refuses clips shorter than the kernel, whatever the padding
        pool: Any = _AVG[self.dims]
        override = () if self.dims == 1 else (self.divisor_override,)
        return pool(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, *override)

    def over_space(self, x: Tensor) -> Tensor:
        ones = (1,) * (3 - self.dims)
        k, s, p = ones + self.kernel_size[1:], ones + self.stride[1:], (0,) * (3 - self.dims) + self.padding[1:]
        plane = x.unsqueeze(2) if self.dims == 2 else x
        divisor = None if self.divisor_override is None else 1
        y = F.avg_pool2d(plane, k, s, p, self.ceil_mode, self.count_include_pad, divisor)
        return y.squeeze(2) if self.dims == 2 else y

    def _step_is_plain(self) -> bool:
        return self.count_include_pad or not self._window.start

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        few = frames.ndim == 3 and frames.numel() <= FEW and frames.is_floating_point() and not torch.is_grad_enabled()
        if few and self._dilation == 1:
            windows = (frames.shape[2] - self._taps) // self._window.stride + 1
            if self._counts(start, windows, ended) == self._taps:
                return torch.avg_pool1d(frames, self._taps, self._window.stride)
        return super().over_time(frames, start, ended)

    def combine(self, older: Tensor, newer: Tensor) -> Tensor:
        return older + newer

    def cumulate(self, x: Tensor, dim: int, reverse: bool) -> Tensor:
        return cumulative_sum(x, dim, reverse)

    def finish(self, y: Tensor, start: int, ended: int | None) -> Tensor:
        counts = self._counts(start, y.shape[2], ended)
        if isinstance(counts, list):
            return y / torch.tensor(counts, dtype=y.dtype, device=y.device).view(-1, *(1,) * (y.ndim - 3))
        return y / counts

    def _finish_step(self, y: Tensor) -> Tensor:
        return y / (self.divisor_override or self._taps)

    def program_divisor(self, ctx: KernelContext, windows: Windows | None) -> Divide:
        counted = (
            None if windows is None or self.divisor_override is not None else counts(ctx, self, windows, self.count_include_pad)
        )
        return super().program_divisor(ctx, windows) if counted is None else lambda y, rows: y / counted(y, rows)

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        if not parts or torch.is_grad_enabled() or not x.is_floating_point():
            return super().over_time_step(parts, x)
        first, *others = (*parts, x)  # the same sum, in one tensor
        total = first + others[0]
        for other in others[1:]:
            total += other
        return total.div_(self.divisor_override or self._taps)

    def _counts(self, start: int, windows: int, ended: int | None) -> int | list[int]:
        """By what to divide: one number, or one for each window where some of them reach beyond the clip."""
        if self.divisor_override is not None:
            return self.divisor_override
        low, high = 0, math.inf if ended is None else ended
        if self.count_include_pad:
            low, high = low - self._window.start, high + self._padded_end
        w = self._window
        if start >= low and start + w.stride * (windows - 1) + w.receptive_field <= high:
            return self._taps
        return [sum(low <= start + w.stride * j + i * self._dilation < high for i in range(self._taps)) for j in range(windows)]


class AvgPool1d(_AvgPool, nn.AvgPool1d):
    """Average pooling over time, ``nn.AvgPool1d`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: as ``torch.nn.AvgPool1d``; ``stride`` defaults to the kernel.
        dilation: steps from tap to tap.
        temporal_fill: ``"zeros"`` (also for ``None``), ``"replicate"``, ``"reflect"`` or ``"neg_inf"``.

    Raises:
        ValueError: padding of more than half the kernel.

    Example:
        >>> pool = co.AvgPool1d(2)
        >>> [pool.forward_step(torch.full((1, 1), float(t))) for t in range(4)]
        [None, tensor([[0.5000]]), None, tensor([[2.5000]])]
    """

    dims = 1

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        dilation: int | Sequence[int] = 1,
        temporal_fill: PaddingMode | str | None = None,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, None, dilation, temporal_fill)


class AvgPool2d(_AvgPool, nn.AvgPool2d):
    """Average pooling over time and one more axis: clips ``(B, C, T, S)``, steps ``(B, C, S)``; as :class:`AvgPool1d`.

    Args:
        divisor_override: divide by this number instead of the number of values.
    """

    dims = 2


class AvgPool3d(_AvgPool, nn.AvgPool3d):
    """Average pooling over time and space: clips ``(B, C, T, H, W)``, steps ``(B, C, H, W)``; as :class:`AvgPool2d`."""

    dims = 3


class MaxPool1d(_MaxPool, nn.MaxPool1d):
    """Maximum pooling over time, ``nn.MaxPool1d`` on clips ``(B, C, T)`` and on steps ``(B, C)``. Pads with -inf.

    Args:
        kernel_size, stride, padding, dilation, ceil_mode: as ``torch.nn.MaxPool1d``; ``stride`` defaults to the kernel.
        temporal_fill: ``"neg_inf"`` (also for ``None``), ``"zeros"``, ``"replicate"`` or ``"reflect"``.

    Raises:
        ValueError: padding of more than half the kernel.

    Example:
        >>> co.MaxPool1d(3, stride=1, padding=1).forward_steps(torch.tensor([[[1.0, 5.0, 2.0, 0.0]]]), pad_end=True)
        tensor([[[5., 5., 5., 2.]]])
    """

    dims = 1


class MaxPool2d(_MaxPool, nn.MaxPool2d):
    """Maximum pooling over time and one more axis: clips ``(B, C, T, S)``, steps ``(B, C, S)``; as :class:`MaxPool1d`."""

    dims = 2


class MaxPool3d(_MaxPool, nn.MaxPool3d):
    """Maximum pooling over time and space: clips ``(B, C, T, H, W)``, steps ``(B, C, H, W)``; as :class:`MaxPool1d`."""

    dims = 3
