"""Sliding windows in step programs: convolutions, pools, pads, and what else is a function of a window of frames."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...convert.graph.time_layers import ConstantPadTime, Windowed
from ...core.timing import Window
from ...layers.conv import _CONV, _Conv
from ...layers.delay import Shift
from ...layers.local import parameter
from ...layers.padding import _Pad
from ...layers.pooling.power_average import _LPPool
from ...layers.pooling.windowed import LONG, _AvgPool, _Pool
from ...layers.window import FILLS, SlidingWindow
from ..kernel_context import SUMMED, Rows, Run, Site, frames_at, kernel, over_frames

INSIDE = 1 << 40  # the place of a window that lies within the clip
SMALL = 1 << 15  # products of a convolution for an output, up to which calling a library for them costs more
MOVED = 256  # numbers that may be moved in every step before a ring costs less
LARGE = 512  # numbers in a frame from which a ring costs less


class Windows:
    """The windows of a layer in each call: which frames they need, kept and gated.

    Args:
        site: where the layer stands.
        window: its window.
        like: a frame as it is kept.
        fill: what padded frames hold: a number, or ``"replicate"`` or ``"reflect"``.
        counted: padded frames at the end; those after them hold ``nothing``.
        first: the first frame that call 0's windows see; by default where the window of its first output starts.
    """

    def __init__(self, site: Site, window: Window, like: Any, fill: float | str, counted: int, nothing: float = 0.0):
        self.site, self.window, self.fill, self.counted, self.nothing = site, window, fill, counted, nothing
        arrives, leaves = site.arrives, site.leaves
        self.mirrors = isinstance(fill, str)
        self.first = window.stride * leaves.first - window.start  # of call 0, an index on the input wire
        self.size = window.stride * (leaves.frames - 1) + window.receptive_field
        reach = window.end - window.receptive_field + 1 + (window.end if fill == "reflect" else 0)
        beyond = max(0, reach) if self.mirrors else 0  # frames before the window that are mirrored behind the end
        self.older = self.first - beyond
        if self.first + self.size > arrives.first + arrives.frames:
            raise site.refuse(
                "gives outputs before their inputs have come: padding beyond its window. Pad with a layer of its own before"
            )
        if self.mirrors and window.start:
            self._check_mirror()
        self.past = site.past("window", like, self.older - arrives.first, 0.0 if self.mirrors else float(fill))
        self.skipped = beyond

    def _check_mirror(self) -> None:
        """Refuse padding by frames that come later than the outputs that see them."""
        arrives, leaves, window = self.site.arrives, self.site.leaves, self.window
        moved = window.stride * leaves.frames  # frames from call to call
        for call in range(-self.site.plan.primed, max(0, -self.first) // moved + 1):
            low = max(self.first + moved * call, -window.start)
            needed = 0 if self.fill == "replicate" else -low
            emits = leaves.first + leaves.frames * (call + 1) > 0
            if low < 0 and emits and needed > arrives.first + arrives.frames * (call + 1) - 1:
                how = "repeating" if self.fill == "replicate" else "mirroring"
                raise self.site.refuse(
                    f"pads the start by {how} frames that come later than outputs that see them, so its first outputs come all at once. "
                    "Pad by zeros or a constant, or by the padding_mode of the layer behind"
                )

    def frames(self, rows: Rows, x: Tensor) -> Tensor:
        """All frames of the windows, ``(B, C, size, *S)``."""
        if self.mirrors:
            return self._mirrored(rows, self.past.extend(rows, x))[:, :, : self.size]
        return self.past.extend(rows, self._gated(rows, x))[:, :, : self.size]

    def _gated(self, rows: Rows, x: Tensor) -> Tensor:
        site, window, fill = self.site, self.window, self.fill
        differs = window.end > self.counted and self.nothing != fill
        x = site.gated(rows, x, fill, start=window.start > 0, end=window.end > 0 and not differs)  # type: ignore[arg-type]
        if differs and site.plan.flush:
            index, end = rows.index(site.arrives), rows.ended(site.before).unsqueeze(1)
            for limit, value in ((end, fill), (end + self.counted, self.nothing)):
                x = torch.where(over_frames(index < limit, x), x, value)  # type: ignore[arg-type]
        return x

    def _mirrored(self, rows: Rows, frames: Tensor) -> Tensor:
        """Frames with padding that is made of those at the ends, by a gather for each row."""
        site, low = self.site, self.older - self.site.arrives.first
        held = rows.index(site.arrives)[:, :1] + low  # the index of the first frame at hand
        index = held + self.skipped + torch.arange(self.size, device=held.device)
        last = rows.ended(site.before).unsqueeze(1) - 1
        if self.fill == "replicate":
            source = index.clamp(min=0).minimum(last)
        else:
            source = index.abs()
            source = torch.where(source > last, 2 * last - source, source)
        place = (source - held).clamp(0, frames.shape[2] - 1)
        return frames_at(frames, place)

    def outputs(self, rows: Rows) -> Tensor:
        """The index of the first frame of each window, ``(B, outputs)``."""
        return rows.index(self.site.leaves) * self.window.stride - self.window.start


def windows_of(site: Site, layer: Any) -> Windows:
    """The windows of a sliding-window layer."""
    fill = layer.fill_value if layer._fill in FILLS else layer._fill
    return Windows(site, layer._window, site.node.held, fill, layer._padded_end, layer.nothing)


@kernel(SlidingWindow)
def sliding(site: Site) -> Run:
    """Any function of a window of frames."""
    layer: Any = site.module
    if layer._memoryless:
        return lambda x, rows: layer.over_time(layer.enter(x), INSIDE, None)
    windows = windows_of(site, layer)
    return lambda x, rows: layer.over_time(windows.frames(rows, layer.enter(x)), INSIDE, None)


# ---- convolution ----------------------------------------------------------------------------------------------------------


@kernel(_Conv)
def convolution(site: Site) -> Run:
    """Convolutions: one matrix product or one convolution over space for a step."""
    layer: Any = site.module
    outputs = site.leaves.frames
    ring = _in_ring(site, layer) if site.plan.fused and layer.groups == outputs == site.arrives.frames == 1 else None
    if ring is not None:
        return ring
    windows = None if layer._memoryless else windows_of(site, layer)
    compute = _over_time_alone if layer._over_time_alone and layer.groups == 1 else _by_taps
    if compute is _by_taps and (layer.groups > 1 or outputs > 1):
        compute = _image_by_image if site.plan.flat and layer.dims == 3 else _whole
        compute = _depthwise if layer._depthwise else compute
    small = compute in (_by_taps, _whole) and _is_small(site, layer)

    def run(x: Tensor, rows: Rows) -> Tensor:
        frames = x if windows is None else windows.frames(rows, x)
        way = _written_out if small and x.shape[0] <= site.plan.few else compute
        return way(layer, frames, outputs, site.plan.few)

    return run


def _in_ring(site: Site, layer: Any) -> Run | None:
    """Convolutions whose frames are large, or whose taps lie far apart: taps are taken from a ring. ``None`` where that is no gain."""
    dilation, taps, window = layer._dilation, layer._taps, layer._window
    depth, size = dilation * (taps - 1), math.prod(site.node.held.shape[1:])
    whole = site.leaves.first - window.start == site.arrives.first - depth  # outputs are completed by the frame that comes
    moved = (depth - taps) * size  # frames that would only be moved
    if not whole or depth == 0 or layer._fill not in FILLS or (moved < MOVED and (layer.dims == 1 or size < LARGE)):
        return None
    ring = site.ring("window", site.node.held, depth, layer.fill_value)
    older = [dilation * i for i in range(taps - 1, 0, -1)]

    def run(x: Tensor, rows: Rows) -> Tensor:
        x = site.gated(rows, x, layer.fill_value, start=window.start > 0, end=window.end > 0).squeeze(2)
        seen = torch.cat([*(ring.before(rows, offset) for offset in older), x], 1)  # taps side by side
        ring.push(rows, x)
        weight = layer.weight.transpose(1, 2).flatten(1, 2)
        if layer._over_time_alone:
            y = _product(
                seen.flatten(2) if seen.ndim > 2 else seen.unsqueeze(2),
                weight.flatten(1),
                parameter(layer, "bias"),
                site.plan.few,
            )
            return y.unflatten(2, (1, *seen.shape[2:]))
        return _over_space(layer, seen, weight)

    return run


def _taps(layer: Any, frames: Tensor, outputs: int) -> Tensor:
    """The frames of each window, ``(B, C, outputs, k, *S)``."""
    stride = layer._window.stride
    if outputs == 1:
        return frames[:, :, :: layer._dilation].unsqueeze(2)
    return frames.unfold(2, layer._window.receptive_field, stride)[..., :: layer._dilation].movedim(-1, 3)


def _over_time_alone(layer: Any, frames: Tensor, outputs: int, few: int) -> Tensor:
    """A matrix product: channels and taps of each window with the weight as it lies in memory."""
    taps = _taps(layer, frames, outputs).movedim(3, 2).flatten(1, 2)  # (B, C * k, n, *S)
    y = _product(taps.flatten(2), layer.weight.flatten(1), parameter(layer, "bias"), few)
    return y.unflatten(2, taps.shape[2:])


def _product(flat: Tensor, weight: Tensor, bias: Tensor | None, few: int) -> Tensor:
    """The product of a weight ``(O, I)`` with ``(B, I, n)``; of a few columns as a sum, where that fuses with what is around."""
    if flat.shape[0] * flat.shape[2] <= few and weight.numel() <= SUMMED:
        y = (weight.unsqueeze(0).unsqueeze(2) * flat.transpose(1, 2).unsqueeze(1)).sum(3)
        return y if bias is None else y + bias.unsqueeze(1)
    if few == 0 and flat.shape[2] == 1:
        return F.linear(flat.squeeze(2), weight, bias).unsqueeze(2)
    if flat.shape[2] <= few:  # rows of a product that reads the weight once
        y = F.linear(flat.transpose(1, 2), weight).transpose(1, 2)
    else:
        y = torch.matmul(weight, flat)
    return y if bias is None else y + bias.unsqueeze(1)  # fused with what comes next


def _by_taps(layer: Any, frames: Tensor, outputs: int, few: int) -> Tensor:
    """One convolution over space, the taps among its channels."""
    return _over_space(layer, frames[:, :, :: layer._dilation].flatten(1, 2), layer.weight.flatten(1, 2))


def _over_space(layer: Any, window: Tensor, weight: Tensor) -> Tensor:
    window, pads = layer._pad_space(window)
    y: Tensor = _CONV[layer.dims - 1](window, weight, layer.bias, layer.stride[1:], pads, layer.dilation[1:], layer.groups)
    return y.unsqueeze(2)


def _image_by_image(layer: Any, frames: Tensor, outputs: int, few: int) -> Tensor:
    """A convolution over space for each output, the taps among its channels, which keeps groups together."""
    weight, window = layer.weight.flatten(1, 2), layer._window
    starts = range(0, outputs * window.stride, window.stride)
    taps = [frames[:, :, i : i + window.receptive_field : layer._dilation].flatten(1, 2) for i in starts]
    return torch.cat([_over_space(layer, t, weight) for t in taps], 2)


def _depthwise(layer: Any, frames: Tensor, outputs: int, few: int) -> Tensor:
    """Each channel on its own."""
    taps, bias = _taps(layer, frames, outputs), parameter(layer, "bias")
    weight = layer.weight.view(*layer.weight.shape[:3], *(1,) * (taps.ndim - 4))
    y = (taps * weight).sum(3)
    return y if bias is None else y + bias.view(-1, *(1,) * (y.ndim - 2))


def _is_small(site: Site, layer: Any) -> bool:
    """Whether a library's call for a convolution over space would cost more than its products."""
    out: Any = site.node.out
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    return (layer.groups == 1 or depthwise) and layer.weight.numel() * math.prod(out.shape[2:]) * site.leaves.frames <= SMALL


def _written_out(layer: Any, frames: Tensor, outputs: int, few: int) -> Tensor:
    """All products and their sums, which fuse with what is around."""
    frames, pads = layer._pad_space(frames)
    taps = F.pad(frames, [p for pad in reversed(pads) for p in (pad, pad)])
    for dim, (k, s, d) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), 2):
        taps = taps.unfold(dim, d * (k - 1) + 1, s)[..., ::d]  # (B, C, *outputs, *kernel)
    weight, dims = layer.weight, layer.dims
    weight = weight.view(1, *weight.shape[:2], *(1,) * dims, *weight.shape[2:])  # (1, O, C or 1, 1…, *kernel)
    taps = taps.unsqueeze(2 if layer.groups > 1 else 1)
    y = (taps * weight).sum((2, *range(-dims, 0)))
    return y if layer.bias is None else y + layer.bias.view(-1, *(1,) * dims)


def _whole(layer: Any, frames: Tensor, outputs: int, few: int) -> Tensor:
    """Torch's own operation."""
    frames, pads = layer._pad_space(frames)
    y: Tensor = _CONV[layer.dims](frames, layer.weight, layer.bias, layer.stride, (0, *pads), layer.dilation, layer.groups)
    return y


# ---- pools ----------------------------------------------------------------------------------------------------------------


@kernel(_Pool)
def pool(site: Site) -> Run:
    """Pools: windows taken together, and a divisor where they reach beyond the clip."""
    layer: Any = site.module
    windows = None if layer._memoryless else windows_of(site, layer)
    divide = _divisor(site, layer, windows)

    def run(x: Tensor, rows: Rows) -> Tensor:
        frames = layer.enter(x)
        if windows is None:
            return divide(frames, rows)
        return divide(_together(layer, windows.frames(rows, frames)), rows)

    return run


def _together(layer: Any, frames: Tensor) -> Tensor:
    """What the frames of each window make together."""
    if layer._taps <= LONG:
        first, *others = layer.taps(frames)
        y: Tensor = functools.reduce(layer.combine, others, first)
        return y
    windows = frames.unfold(2, layer._window.receptive_field, layer._window.stride)[..., :: layer._dilation]
    return windows.amax(-1) if layer.nothing < 0 else windows.sum(-1)


def _divisor(site: Site, layer: Any, windows: Windows | None) -> Callable[[Tensor, Rows], Tensor]:
    """What is left to do with the sums of windows."""
    whole = lambda y, rows: layer.finish(y, INSIDE, None)  # noqa: E731
    if windows is None or not isinstance(layer, (_AvgPool, _LPPool)) or getattr(layer, "_extreme", False):
        return whole
    w, average = windows.window, isinstance(layer, _AvgPool)
    padded = average and layer.count_include_pad
    beyond = w.end > (layer._padded_end if padded else 0) and site.plan.flush
    if (average and layer.divisor_override is not None) or not (beyond or (w.start and not padded)):
        return whole

    size, power = getattr(layer, "_size", 1), float(getattr(layer, "norm_type", 1.0))

    def root(y: Tensor) -> Tensor:
        return (y.sign() * y.abs().relu()).mul(size).pow(1 / power)

    def counted(y: Tensor, rows: Rows) -> Tensor:
        places = windows.outputs(rows).unsqueeze(2) + layer._dilation * torch.arange(layer._taps, device=y.device)
        low, high = (w.start, layer._padded_end) if padded else (0, 0)
        end = (rows.ended(site.before) + high).view(-1, 1, 1)
        counts = ((places >= -low) & (places < end)).sum(2).clamp(min=1)
        y = y / over_frames(counts, y).to(y.dtype)
        if average:
            return y
        return root(y)

    return counted


# ---- pads, delays, cuts ---------------------------------------------------------------------------------------------------


@kernel(_Pad)
def pad(site: Site) -> Run:
    """Padding over time: outputs are inputs, shifted; and over space."""
    layer: Any = site.module
    if layer._memoryless:
        return lambda x, rows: layer.over_time(x, 0, None)
    start, end = layer._pads[-2:]
    fill = layer.value if layer.mode == "constant" else layer.mode
    windows = Windows(site, Window(1, 1, start, max(0, end)), site.node.given, fill, max(0, end))
    return lambda x, rows: layer.over_time(windows.frames(rows, x), INSIDE, None)


@kernel(Shift)
def shift(site: Site) -> Run:
    """Delays and cuts."""
    layer: Any = site.module
    lag = site.lag("frames", site.node.out, site.leaves.first + layer.first - site.arrives.first)
    return lambda x, rows: lag.waited(rows, x, site.leaves.frames)


@kernel(ConstantPadTime)
def surround(site: Site) -> Run:
    """Constants before the first and after the last frame."""
    layer: Any = site.module
    windows = Windows(site, Window(1, 1, layer.first, layer.last), site.node.given, 0.0, layer.last)

    def run(x: Tensor, rows: Rows) -> Tensor:
        y = windows.frames(rows, x)
        index, end = windows.outputs(rows), rows.ended(site.before).unsqueeze(1)
        for frames, place in ((layer.before, index + layer.first), (layer.after, index - end)):
            if frames is not None:
                own = layer._piece(frames, y)
                found = frames_at(own, place.clamp(0, own.shape[2] - 1))
                y = torch.where(over_frames((place >= 0) & (place < own.shape[2]), y), found, y)
        return y

    return run


@kernel(Windowed)
def windowed(site: Site) -> Run:
    """Functions of whole windows, and of those that begin before the clip."""
    layer: Any = site.module
    windows = windows_of(site, layer)

    def run(x: Tensor, rows: Rows) -> Tensor:
        frames = windows.frames(rows, layer.enter(x)).unfold(2, layer.size, layer._window.stride)
        present = layer.size + windows.outputs(rows).clamp(max=0) if layer.trailing else None
        y: Tensor = layer.of_windows(frames, present)
        return y

    return run
