"""Pooling over time. The first dimension of the kernel is time.

Every frame is pooled over space when it comes in, so that the window over time holds small frames. Nothing is ever added and
subtracted again: a result depends on the frames in its window alone, without drift, and a NaN leaves with its frame.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.module import CoModule, PaddingMode
from ...core.naming import named
from ...core.registry import Twin
from ...core.ring_buffer import ring_zeros
from ...core.state import Call, Frame, Node
from ...errors import NotStreamable, ShapeMismatch
from ..memory_format import MANY, channels_last, unwatched
from ..window import FILLS, SlidingWindow, fill_name, padding, per_dim
from .maxima import max_over_axes
from .van_herk import cumulative_max, cumulative_sum, older_max, windows

LONG = 8  # taps; with more, windows are computed by blocks
_AVG = (None, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAX = (None, F.max_pool1d, F.max_pool2d, F.max_pool3d)


class _Pool(Twin, SlidingWindow):
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

    # ---- long windows: by blocks ------------------------------------------------------------------------------------

    @property
    def _by_blocks(self) -> bool:
        return self._taps > LONG and self._dilation == 1 and self._fill in FILLS

    def cold(self, held: Frame) -> dict[str, Tensor]:
        if not self._by_blocks:
            return super().cold(held)
        ring = ring_zeros(held, self._taps, self.fill_value, last=self._last)
        return {"blocks": ring, "prefix": ring_zeros(held, 1, self.nothing, last=self._last)[:, 0]}

    def advance(self, x: Tensor | None, node: Node, e: int, call: Call) -> tuple[Tensor | None, int]:
        if not self._by_blocks:
            return super().advance(x, node, e, call)
        w, seen = self._window, node.seen
        n, sent, ended = self.count(x, node, e, call)
        chunk = [] if x is None else [self.enter(x)]
        if call.final:
            beyond = max(0, w.stride * (sent - 1) - w.start + w.receptive_field - n)
            chunk += [padding(node.held, min(beyond, self._padded_end), self.fill_value)]
            chunk += [padding(node.held, beyond - self._padded_end, self.nothing)]
        frames = torch.cat(chunk, 2) if len(chunk) > 1 else chunk[0] if chunk else None
        if frames is None or frames.shape[2] == 0:
            return None, ended
        y, ring, prefix = windows(node.tensors[0], frames, seen, self._taps, self.nothing, self.combine, self.cumulate)
        call.put(node, 0, ring)
        call.put(node, 1, prefix)
        if sent <= node.sent:
            return None, ended
        first = w.stride * node.sent - w.start
        last = first + w.receptive_field - 1 - seen
        y = y[:, :, last : last + w.stride * (sent - node.sent - 1) + 1 : w.stride]
        return self.finish(y, first, e if call.final else None), ended

    def advance_step(self, x: Tensor, node: Node, call: Call) -> Tensor | None:
        if not self._by_blocks:
            return super().advance_step(x, node, call)
        if node.seen < self._taps and not self.step_is_plain():
            return CoModule.advance_step(self, x, node, call)
        seen, size = node.seen, self._taps
        ring, held = node.tensors
        entered, at = self.enter_step(x), seen % size
        prefix = entered if at == 0 else self.combine(held, entered)
        late = seen - node.delay
        emits = late >= 0 and (node.stride == 1 or late % node.stride == 0)
        call.ticks.append((node, seen + 1, node.sent + emits))
        call.slots.append((held, prefix))
        if at < size - 1:
            call.slots.append((ring[:, at], entered))
            return self.finish_step(self.combine(ring[:, at + 1], prefix)) if emits else None
        block = torch.cat((ring[:, :at], entered.unsqueeze(1)), 1)
        call.slots.append((ring, self.cumulate(block, 1, True)))
        return self.finish_step(prefix) if emits else None

    # ---- over space -------------------------------------------------------------------------------------------------

    def over_space(self, x: Tensor) -> Tensor:
        """Pool the frames ``(N, C, *S)`` over space."""
        raise NotStreamable(f"{type(self).__name__} defines no `over_space`")

    def enter(self, x: Tensor) -> Tensor:
        if not self._over_space:
            return x
        if self._last and x.shape[2] > 1 and unwatched(x) and x[:, :, 0].numel() >= MANY:  # what is in a cache is pooled faster
            frames = [self.enter_step(frame).movedim(1, -1) for frame in x.unbind(2)]
            return torch.stack(frames, 1).movedim(-1, 1)
        together = x.movedim(2, 1).flatten(0, 1)
        return self.enter_step(together).unflatten(0, (x.shape[0], x.shape[2])).movedim(1, 2)

    def enter_step(self, x: Tensor) -> Tensor:
        if not self._over_space:
            return x
        if x.ndim == 4:  # several times faster than on planes
            x = channels_last(x)
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

    def combine(self, older: Tensor, newer: Tensor) -> Tensor:
        """The result of two neighbouring stretches of frames."""
        raise NotStreamable(f"{type(self).__name__} defines no `combine`")

    def cumulate(self, x: Tensor, dim: int, reverse: bool) -> Tensor:
        """The results of all beginnings along a dimension, or of all endings."""
        raise NotStreamable(f"{type(self).__name__} defines no `cumulate`")

    def finish(self, y: Tensor, start: int, ended: int | None) -> Tensor:
        """What is left to do for windows of which the first starts at frame ``start``."""
        return y

    def finish_step(self, y: Tensor) -> Tensor:
        """The same for a window that lies inside the clip."""
        return y

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        first, *others = self.taps(frames)
        total = functools.reduce(self.combine, others, first)
        return self.finish(total if others else total.clone(), start, ended)

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        total = functools.reduce(self.combine, (*parts[1:], x), parts[0]) if parts else x
        return self.finish_step(total)

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(p[:, i] for p in pieces for i in range(p.shape[1]))


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
        return pool(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def over_space(self, x: Tensor) -> Tensor:
        pool: Any = _MAX[self.dims - 1]
        geometry = [v[1:] for v in (self.kernel_size, self.stride, self.padding, self.dilation)]
        if self._last and not self.ceil_mode and unwatched(x):
            by_axes = max_over_axes(x, *geometry)
            if by_axes is not None:
                return by_axes
        return pool(x, *geometry, self.ceil_mode)

    def combine(self, older: Tensor, newer: Tensor) -> Tensor:
        return older_max(older, newer)

    def cumulate(self, x: Tensor, dim: int, reverse: bool) -> Tensor:
        return cumulative_max(x, dim, reverse)


class _AvgPool(_Pool):
    native_fill = "zeros"
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

    def step_is_plain(self) -> bool:
        return self.count_include_pad or not self._window.start

    def combine(self, older: Tensor, newer: Tensor) -> Tensor:
        return older + newer

    def cumulate(self, x: Tensor, dim: int, reverse: bool) -> Tensor:
        return cumulative_sum(x, dim, reverse)

    def finish(self, y: Tensor, start: int, ended: int | None) -> Tensor:
        counts = self._counts(start, y.shape[2], ended)
        if isinstance(counts, list):
            return y / torch.tensor(counts, dtype=y.dtype, device=y.device).view(-1, *(1,) * (y.ndim - 3))
        return y / counts

    def finish_step(self, y: Tensor) -> Tensor:
        return y / (self.divisor_override or self._taps)

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
