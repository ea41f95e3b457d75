"""Pooling over time. The first dimension of the kernel is time.

Every frame is pooled over space when it comes in, so that the window over time holds small frames. Nothing is ever added and
subtracted again: a result depends on the frames in its window alone, without drift, and a NaN leaves with its frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import NotStreamable, ShapeMismatch
from .local import named
from .module import PaddingMode
from .state import Frame
from .window import SlidingWindow, fill_name, per_dim

_AVG = (None, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAX = (None, F.max_pool1d, F.max_pool2d, F.max_pool3d)


class _Pool(SlidingWindow):
    """What average and maximum pooling share."""

    dims: int
    native_fill: str
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: bool

    def configure(self, temporal_fill: PaddingMode | str | None = None) -> None:
        """Derive the temporal geometry from the attributes of the ``torch.nn`` pooling layer."""
        if getattr(self, "return_indices", False):
            raise NotStreamable(f"{type(self).__name__}(return_indices=True): positions in the clip have no meaning in a stream")
        self.kernel_size = per_dim(self.kernel_size, self.dims, "kernel_size")
        self.stride = self.kernel_size if self.stride is None else per_dim(self.stride, self.dims, "stride")
        self.padding = per_dim(self.padding, self.dims, "padding")
        self.dilation = per_dim(getattr(self, "dilation", 1), self.dims, "dilation")
        self.temporal_fill = fill_name(temporal_fill)
        for k, p, d in zip(self.kernel_size, self.padding, self.dilation, strict=True):
            if p > ((k - 1) * d + 1) // 2:
                raise ValueError(
                    f"{type(self).__name__}: padding {self.padding} is more than half of the kernel {self.kernel_size}"
                )
        k, s, p, d = self.kernel_size[0], self.stride[0], self.padding[0], self.dilation[0]
        extent = d * (k - 1) + 1
        extra = min(p + s - 1, extent - 1) - p if self.ceil_mode else 0
        fill = self.temporal_fill or self.native_fill
        self.set_window(k, s, p, p, d, fill if p else self.native_fill, max(0, extra))
        self._native = not p or fill == self.native_fill
        self._over_space = any(
            k > 1 or s > 1 or p for k, s, p in zip(self.kernel_size[1:], self.stride[1:], self.padding[1:], strict=True)
        )
        self._last = self._over_space and self.dims == 3

    # ---- over space -------------------------------------------------------------------------------------------------

    def over_space(self, x: Tensor) -> Tensor:
        """Pool the frames ``(N, C, *S)`` over space."""
        raise NotStreamable(f"{type(self).__name__} defines no `over_space`")

    def enter(self, x: Tensor) -> Tensor:
        if not self._over_space:
            return x
        frames = x.movedim(2, 1).flatten(0, 1)
        return self.enter_step(frames).unflatten(0, (x.shape[0], x.shape[2])).movedim(1, 2)

    def enter_step(self, x: Tensor) -> Tensor:
        if not self._over_space:
            return x
        if x.ndim == 4:  # several times faster than on planes
            x = x.contiguous(memory_format=torch.channels_last)
        return self.over_space(x)

    def check(self, frame: Frame, path: str) -> Frame:
        if len(frame.shape) != self.dims + 1:
            dims = ", ".join(["B", "C", *"HW"[3 - self.dims :]])
            raise ShapeMismatch(f"{named(path, self)}: expects steps ({dims}), got {tuple(frame.shape)}")
        try:
            return self.kept(frame)
        except RuntimeError as error:
            raise ShapeMismatch(f"{named(path, self)}: can't pool steps {tuple(frame.shape)}: {error}") from error

    def kept(self, frame: Frame) -> Frame:
        return Frame.of(self.enter_step(frame.zeros())) if self._over_space else frame

    # ---- over time --------------------------------------------------------------------------------------------------

    def taps(self, frames: Tensor) -> list[Tensor]:
        """The frames at each tap of all windows: ``kernel`` tensors ``(B, C, windows, *S)``."""
        w = self._window
        windows = (frames.shape[2] - w.receptive_field) // w.stride + 1
        span = w.stride * (windows - 1) + 1
        return [frames[:, :, i * self._dilation : i * self._dilation + span : w.stride] for i in range(self._taps)]


class _MaxPool(_Pool):
    native_fill = "neg_inf"
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
        return pool(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)  # type: ignore[no-any-return]

    def over_space(self, x: Tensor) -> Tensor:
        pool: Any = _MAX[self.dims - 1]
        k, s, p, d = (v[1:] for v in (self.kernel_size, self.stride, self.padding, self.dilation))
        return pool(x, k, s, p, d, self.ceil_mode)  # type: ignore[no-any-return]

    def apply(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        if frames.requires_grad:  # ties pass their gradient to the first frame, as in torch.nn
            flat = frames.flatten(3) if frames.ndim > 3 else frames.unsqueeze(3)
            y = F.max_pool2d(flat, (self._taps, 1), (self._window.stride, 1), 0, (self._dilation, 1))
            return y.reshape(*y.shape[:3], *frames.shape[3:])
        first, *others = self.taps(frames)
        for tap in others:
            first = torch.maximum(first, tap)
        return first.clone() if not others else first

    def apply_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        largest = x
        for tap in parts:
            largest = torch.maximum(tap, largest)
        return largest

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(p[:, i] for p in pieces for i in range(p.shape[1]))


class _AvgPool(_Pool):
    native_fill = "zeros"
    count_include_pad: bool
    divisor_override: int | None

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
        if not self._native:
            return self.windows_of(input)
        pool: Any = _AVG[self.dims]
        override = () if self.dims == 1 else (self.divisor_override,)
        return pool(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, *override)  # type: ignore[no-any-return]

    def over_space(self, x: Tensor) -> Tensor:
        k, s, p = ((1,) * (3 - self.dims) + v[1:] for v in (self.kernel_size, self.stride, self.padding))
        p = (0,) * (3 - self.dims) + self.padding[1:]
        plane = x.unsqueeze(2) if self.dims == 2 else x
        override = None if self.divisor_override is None else 1
        y = F.avg_pool2d(plane, k, s, p, self.ceil_mode, self.count_include_pad, override)
        return y.squeeze(2) if self.dims == 2 else y

    def step_is_plain(self) -> bool:
        return self.count_include_pad or not self._window.start

    def apply(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        total: Tensor
        first, *others = self.taps(frames)
        total = first
        for tap in others:
            total = total + tap
        counts = self._counts(start, total.shape[2], ended)
        if isinstance(counts, list):
            return total / torch.tensor(counts, dtype=total.dtype, device=total.device).view(-1, *(1,) * (total.ndim - 3))
        return total / counts if counts != 1 or not others else total.clone()

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

    def apply_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        total = x
        for tap in parts:
            total = total + tap
        return total / (self.divisor_override or self._taps)

    arrange = _MaxPool.arrange


def _avg_init(dims: int) -> Callable[..., None]:
    """The constructor of ``AvgPoolNd``; only the 2D and 3D ones take a ``divisor_override``, as in ``torch.nn``."""

    def with_override(
        self: Any,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        dilation: int | Sequence[int] = 1,
        temporal_fill: PaddingMode | str | None = None,
    ) -> None:
        args = (kernel_size, stride, padding, ceil_mode, count_include_pad)
        super(_AvgPool, self).__init__(*args, *(() if dims == 1 else (divisor_override,)))
        self.dilation = dilation
        self.configure(temporal_fill)

    def without_override(
        self: Any,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        dilation: int | Sequence[int] = 1,
        temporal_fill: PaddingMode | str | None = None,
    ) -> None:
        with_override(self, kernel_size, stride, padding, ceil_mode, count_include_pad, None, dilation, temporal_fill)

    return without_override if dims == 1 else with_override


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
    __init__ = _avg_init(1)


class AvgPool2d(_AvgPool, nn.AvgPool2d):
    """Average pooling over time and one more axis: clips ``(B, C, T, S)``, steps ``(B, C, S)``; as :class:`AvgPool1d`.

    Args:
        divisor_override: divide by this number instead of the number of values.
    """

    dims = 2
    __init__ = _avg_init(2)


class AvgPool3d(_AvgPool, nn.AvgPool3d):
    """Average pooling over time and space: clips ``(B, C, T, H, W)``, steps ``(B, C, H, W)``; as :class:`AvgPool2d`."""

    dims = 3
    __init__ = _avg_init(3)


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
