"""Convolutions over time: `Conv1d`, `Conv2d`, `Conv3d`. The first dimension of the kernel is time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ..core.module import PaddingMode
from ..core.naming import named
from ..core.program.context import KernelContext, Run
from ..core.registry import TorchLayer
from ..core.state import StateNode, StepSpec
from ..errors import NotStreamable, ShapeMismatch
from ..layers.conv_program import convolution
from .folds_norms import FoldsNorms
from .local import parameter
from .memory_format import channels_last, is_channels_last
from .native import product
from .native.conditions import usable
from .native.depthwise import Depthwise, Geometry
from .onednn import convolve, convolve_onto, pack, packs
from .tap_sums import are_few, depthwise, depthwise_step, few_windows, is_light, whole_frames
from .weight_cache import FoldedWeight, check_images
from .window import SlidingWindow, fill_name, per_dim

_CONV: Any = (None, F.conv1d, F.conv2d, F.conv3d)
FEW_CHANNELS = 8  # below, laying images out channels-last costs more than the convolution gains
LARGE = 1 << 17  # numbers in a step, from which joining a window costs more than a convolution for each of its frames


class _Conv(TorchLayer, FoldedWeight, FoldsNorms, SlidingWindow):
    """What the three convolutions share; their number of dimensions is data."""

    dims: int
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: Any
    bias: Tensor | None
    _pads: list[tuple[int, int]]
    _geometry: Geometry | None = None  # for the compiled kernel, where it computes such a layer

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        temporal_fill: PaddingMode | str | None = None,
    ):
        init: Any = super().__init__  # of the torch.nn class
        init(
            in_channels,
            out_channels,
            per_dim(kernel_size, self.dims, "kernel_size"),
            per_dim(stride, self.dims, "stride"),
            padding if isinstance(padding, str) else per_dim(padding, self.dims, "padding"),
            per_dim(dilation, self.dims, "dilation"),
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self.configure(temporal_fill)

    def configure(self, temporal_fill: PaddingMode | str | None = None) -> None:
        """Derive the temporal geometry from the attributes of the ``torch.nn`` convolution."""
        self.temporal_fill = fill_name(temporal_fill)
        if isinstance(self.padding, str):
            spans = [d * (k - 1) if self.padding == "same" else 0 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            self._pads = [(span // 2, span - span // 2) for span in spans]
            self.padding = tuple(left for left, _ in self._pads)
        elif not hasattr(self, "_pads"):
            self._pads = [(p, p) for p in self.padding]
        start, end = self._pads[0]
        fill = self.temporal_fill or self.padding_mode
        if fill == "circular":
            if start or end:
                raise NotStreamable(
                    f"{type(self).__name__}(padding_mode='circular') pads time with frames from the other end of the clip, which "
                    "a stream has not seen. Remedies: padding=(0, …) over time, or temporal_fill='zeros' (another function)"
                )
            fill = "zeros"
        self.set_window(self.kernel_size[0], self.stride[0], start, end, self.dilation[0], fill)
        plain = self.padding_mode == "zeros" and all(a == b for a, b in self._pads[1:])
        self._space_pads = tuple(a for a, _ in self._pads[1:]) if plain else None
        alone = all(k == s == 1 for k, s in zip(self.kernel_size[1:], self.stride[1:], strict=True))
        alone = alone and not any(map(sum, self._pads[1:]))
        self._one_frame = self._memoryless and not any(map(sum, self._pads[1:])) and math.prod(self.kernel_size[1:]) > 1
        self._over_time_alone = alone and self.groups == 1
        self._depthwise = alone and 1 < self.groups == self.in_channels == self.out_channels  # over time alone
        self._images = self.dims == 3 and self.groups == 1 and not self._over_time_alone and self.in_channels >= FEW_CHANNELS
        self._last = self._images or (self.groups > 1 and self.dims > 1)
        self._geometry = Geometry.of(self) if self.dims > 1 else None
        self._plain_forward = fill == self.padding_mode and all(a == b for a, b in self._pads)

    # ---- clip -------------------------------------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        """The clip computation: that of the ``torch.nn`` convolution."""
        if input.ndim == self.dims + 1 and input.shape[0] != self.in_channels and input.shape[1] == self.in_channels:
            self._refuse_step(input)
        if self._plain_forward and self.padding_mode == "zeros":
            return _CONV[self.dims](input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if input.ndim == self.dims + 1:
            return self.windows_of(input.unsqueeze(0)).squeeze(0)
        return self.windows_of(input)

    def _refuse_step(self, input: Tensor) -> None:
        raise ShapeMismatch(
            f"{type(self).__name__}({self.in_channels}, …): a clip is (B, {self.in_channels}, T{', *S' * (self.dims > 1)}), got "
            f"{tuple(input.shape)}, which is a step: write net.forward_step(x), or for a clip of one step net(x.unsqueeze(2))"
        )

    def _pad_space(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Pad space where the convolution itself can't; the rest is left to it."""
        if self._space_pads is not None:
            return x, self._space_pads
        pads = self._pads[1:]
        if any(a or b for a, b in pads):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            flat = [p for pad in reversed(pads) for p in pad]
            if mode != "constant" and x.ndim == self.dims + 2:  # frames (B, C, n, *S)
                flat += [0, 0]
            x = F.pad(x, flat, mode)
        return x, (0,) * len(pads)

    # ---- kernels ----------------------------------------------------------------------------------------------------

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        name = named(path, self)
        check_images(self, frame, name)
        space = frame.shape[2:]
        out = []
        for size, k, s, d, (a, b) in zip(
            space, self.kernel_size[1:], self.stride[1:], self.dilation[1:], self._pads[1:], strict=True
        ):
            out.append((size + a + b - d * (k - 1) - 1) // s + 1)
            if out[-1] < 1:
                raise ShapeMismatch(
                    f"{name}: a frame of {tuple(space)} is too small for the spatial kernel {self.kernel_size[1:]}"
                )
        return frame.resized(frame.shape[0], self.out_channels, *out)

    def kept(self, frame: StepSpec) -> StepSpec:
        return frame

    def enter_step(self, x: Tensor) -> Tensor:
        if self._last and (self._kept or not self._images):  # once, for the window and for the ring
            return channels_last(x)
        return x

    def enter(self, x: Tensor) -> Tensor:
        if (self._geometry or (self._images and self._kept)) and x.is_cpu and not torch.is_grad_enabled():
            return channels_last(x)
        return x

    def over_pieces(self, pieces: list[Tensor], start: int, ended: int | None) -> Tensor:
        native = None if self._geometry is None else self._native(pieces[0])
        y = None if native is None else native.windows(pieces, parameter(self, "bias"))
        return super().over_pieces(pieces, start, ended) if y is None else y

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        if frames.is_cpu and not torch.is_grad_enabled():
            if self._covers(frames.shape[3:]):
                return whole_frames(frames, self.weight, parameter(self, "bias"), self.groups)
            if self._images and self._packs(frames):
                return self._over_images(frames, self._dilation)
            if self._last and not self._images:  # measured 2 to 5 times faster
                frames = channels_last(frames)
                if self._depthwise and not is_in_torch_dispatch_mode():  # torch has no fast kernel for it on one thread
                    by_time, bias = frames.movedim(1, -1), parameter(self, "bias")
                    return depthwise(by_time, self._window, self._dilation, self._folded(), bias).movedim(-1, 1)
            elif self.dims == 1 and self.groups == 1:
                return self._over_sequences(frames)
        frames, pads = self._pad_space(frames)
        return _CONV[self.dims](frames, self.weight, self.bias, self.stride, (0, *pads), self.dilation, self.groups)

    def _over_sequences(self, frames: Tensor) -> Tensor:
        """All windows of frames without space, ``(B, C, n)``, in one group."""
        weight, bias = parameter(self, "weight"), parameter(self, "bias")
        if self._dilation > 1 or not is_light(frames, weight):
            if are_few(frames, self._window):
                return few_windows(frames, self._window, self._dilation, weight, bias)
            if self._dilation > 1 or frames.shape[0] > 1:
                return self._product(torch.cat(self.taps(frames), 1))  # torch's own loop is slow for dilations and batches
        return _CONV[1](frames, weight, bias, self.stride, 0, self.dilation)

    def _product(self, windows: Tensor) -> Tensor:
        """The convolution of windows ``(B, k*I, n)``, side by side, as one matrix product."""
        return product.multiply(self._folded(), windows, parameter(self, "bias"))

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        if self._images and pieces[0][0, 0].numel() >= LARGE and self._space_pads is not None:
            return tuple(p[:, i] for p in pieces for i in range(p.shape[1]))
        if self._last or (self.groups > 1 and self.dims == 1):
            return tuple(p.movedim(2, -1) for p in pieces)
        if self._dilation == 1:
            return tuple(p.flatten(1, 2) for p in pieces)
        return tuple(p[:, i] for p in pieces for i in range(p.shape[1]))

    def _covers(self, space: Sequence[int]) -> bool:
        """Whether the kernel is one frame and covers all of its space."""
        return self._one_frame and tuple(space) == self.kernel_size[1:] and not is_in_torch_dispatch_mode()

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        if self._one_frame and self._covers(x.shape[2:]):
            return whole_frames(x.unsqueeze(2), self.weight, parameter(self, "bias"), self.groups).squeeze(2)
        if self.groups > 1:
            return self._grouped_step(parts, x)
        if self._images and parts:
            if self._packs(x):
                return self._image_by_image(parts, x) if parts[0].ndim == 4 else self._joined(parts, x)
            if parts[0].ndim > 4:
                parts = [f.movedim(-1, 1) for p in parts for f in p.unbind(1)]
        window = torch.cat((*parts, x), 1) if parts else x
        if self.dims == 1:
            return product.linear(window, self._folded(), parameter(self, "bias"))
        if self._over_time_alone:  # a matrix product, 1.1 to 4 times as fast as a convolution with a kernel of 1
            if not parts and is_channels_last(x):
                return self._pixel_by_pixel(x)
            return self._product(window.flatten(2)).unflatten(2, x.shape[2:])
        window, pads = self._pad_space(window)
        stride, dilation = self.stride[1:], self.dilation[1:]
        if self.dims == 3 and self._packs(window):
            packed = self._laid_out("step", self.weight, lambda w: pack(self._fold(w), window, pads, stride, dilation))
            return convolve(window, packed, parameter(self, "bias"), pads, stride, dilation)
        return _CONV[self.dims - 1](window, self._folded(), self.bias, stride, pads, dilation)

    # ---- images, channels-last --------------------------------------------------------------------------------------

    def _packs(self, x: Tensor) -> bool:
        """Whether oneDNN's convolution is used; not with a weight that is computed by a parametrisation."""
        weight = self._parameters.get("weight")
        return weight is not None and packs(x, weight)

    def _over_images(self, frames: Tensor, dilation: int) -> Tensor:
        """All windows of frames ``(B, C, n, H, W)``."""
        frames, pads = self._pad_space(frames)
        pads, dilations = (0, *pads), (dilation, *self.dilation[1:])
        packed = self._laid_out("clip", self.weight, lambda w: pack(w, frames, pads, self.stride, dilations))
        return convolve(frames, packed, parameter(self, "bias"), pads, self.stride, dilations)

    def _pixel_by_pixel(self, x: Tensor) -> Tensor:
        """A convolution with a kernel of 1, channels last: 1.5 times as fast as oneDNN's of an image."""
        pixels, weight, bias = x.movedim(1, -1), self._parameters.get("weight"), parameter(self, "bias")
        if weight is None or not product.runs(x, weight, bias):
            if not self._packs(x):
                return F.linear(pixels, self._folded(), bias).movedim(-1, 1)
            packed = self._laid_out("packed pixel", self.weight, lambda w: pack(w.squeeze(2), x, (0, 0), (1, 1), (1, 1)))
            return convolve(x, packed, bias, (0, 0), (1, 1), (1, 1))
        panels = self._laid_out("pixel", weight, lambda w: product.packed(w.flatten(1)))
        return product.by_panels(pixels, panels, bias, self.out_channels).movedim(-1, 1)

    def _joined(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        """One window, as a clip of its frames."""
        window = torch.cat((*parts, x.movedim(1, -1).unsqueeze(1)), 1).movedim(-1, 1)
        return self._over_images(window, 1).squeeze(2)

    def _image_by_image(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        """One window of large frames, without joining them: a sum of convolutions."""
        geometry: Any = self._space_pads, self.stride[1:], self.dilation[1:]
        *older, newest = self._laid_out("tap", self.weight, lambda w: [pack(tap, x, *geometry) for tap in w.unbind(2)])
        y = convolve(x, newest, parameter(self, "bias"), *geometry)
        for frame, packed in zip(parts, older, strict=True):
            convolve_onto(y, frame, packed, *geometry)
        return y

    # ---- groups -----------------------------------------------------------------------------------------------------

    def _grouped_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        """Grouped convolutions run on the window as it is, channels-last: folding time into their channels is slow."""
        if (native := self._native(x)) is not None:
            y = native.step(parts, x, parameter(self, "bias"))
            if y is not None:
                return y
        if self._depthwise and not is_in_torch_dispatch_mode():  # a counter of operations is shown a convolution
            return depthwise_step(parts, x.movedim(1, -1), self._folded(), parameter(self, "bias")).movedim(-1, 1)
        window = x.movedim(1, -1).unsqueeze(1)
        if parts:
            window = torch.cat((*parts, window), 1)
        window, pads = self._pad_space(window.movedim(-1, 1))
        dilation = (1, *self.dilation[1:])
        y = _CONV[self.dims](window, self.weight, self.bias, (1, *self.stride[1:]), (0, *pads), dilation, self.groups)
        return y.squeeze(2)

    def _native(self, x: Tensor) -> Depthwise | None:
        """The compiled kernel, where there is one for frames like these."""
        geometry, weight = self._geometry, self._parameters.get("weight")
        if geometry is None or weight is None or not usable(x, weight, parameter(self, "bias")):
            return None
        native: Depthwise | None = self._laid_out("native", weight, lambda w: Depthwise.prepared(geometry, w))
        return native

    def _fold(self, weight: Tensor) -> Tensor:
        """The weight with time folded into the input channels, ``(O, k*I, *K)``, in the order of the window."""
        if self.groups > 1:
            return weight.flatten(1).t().contiguous()  # depthwise over time alone: (k, C)
        by_time = weight.transpose(1, 2).flatten(1, 2)
        folded = by_time.flatten(1) if self._over_time_alone else by_time
        return folded.contiguous(memory_format=torch.channels_last if folded.ndim == 4 else torch.contiguous_format)

    def open(self, frame: StepSpec, init: Any) -> StateNode:
        self._forget_layouts()
        return super().open(frame, init)

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return math.prod(frame.shape[2:]) * self.weight.numel()

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        return 0 if self.bias is None else math.prod(frame.shape[1:])

    def extra_repr(self) -> str:
        fill = "" if self.temporal_fill is None else f", temporal_fill='{self.temporal_fill}'"
        return super().extra_repr() + fill

    def program(self, ctx: KernelContext) -> Run:
        return convolution(ctx)


class Conv1d(_Conv, nn.Conv1d):  # type: ignore[misc]  # padding is no word here
    """1D convolution over time, ``nn.Conv1d`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as
            ``torch.nn.Conv1d``. ``padding`` may exceed the kernel, or be ``"same"`` or ``"valid"``.
        temporal_fill: ``"zeros"``, ``"replicate"``, ``"reflect"`` or ``"neg_inf"``: what pads time, in all three forward modes.
            ``None``: as ``padding_mode``.

    Raises:
        NotStreamable: circular padding over time.
        ShapeMismatch: when run on a step of another shape or dtype.

    Example:
        >>> conv = co.Conv1d(4, 8, kernel_size=3, padding=1)
        >>> conv.receptive_field, conv.delay, conv.forward_steps(torch.randn(2, 4, 10)).shape
        (3, 1, torch.Size([2, 8, 9]))
    """

    dims = 1


class Conv2d(_Conv, nn.Conv2d):  # type: ignore[misc]  # padding is no word here
    """2D convolution over time and one more axis: clips ``(B, C, T, S)``, steps ``(B, C, S)``. Kernel, stride … are (time, space).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as
            ``torch.nn.Conv2d``; ``padding_mode="circular"`` over space alone.
        temporal_fill: as in :class:`Conv1d`.

    Example:
        >>> conv = co.Conv2d(3, 8, kernel_size=(9, 1), padding=(4, 0))  # a skeleton's joints
        >>> conv.forward_steps(torch.randn(2, 3, 20, 25)).shape
        torch.Size([2, 8, 16, 25])
    """

    dims = 2


class Conv3d(_Conv, nn.Conv3d):  # type: ignore[misc]  # padding is no word here
    """3D convolution over time and space: clips ``(B, C, T, H, W)``, steps ``(B, C, H, W)``. Kernel, stride … are (time, H, W).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as
            ``torch.nn.Conv3d``; ``padding_mode="circular"`` over space alone.
        temporal_fill: as in :class:`Conv1d`.

    Example:
        >>> conv = co.Conv3d(3, 8, kernel_size=3, padding=1)
        >>> with torch.no_grad():
        ...     conv.forward_step(torch.randn(1, 3, 8, 8)), conv.forward_step(torch.randn(1, 3, 8, 8)).shape
        (None, torch.Size([1, 8, 8, 8]))
    """

    dims = 3
