"""Ways to compute the windows of a convolution in a step program."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.program.context import SUMMED, CallRows, KernelContext, Run
from .image_program import depthwise_images, images
from .local import parameter
from .native.product import computes_products
from .window_program import FILLS, windows_of

_CONV: Any = (None, F.conv1d, F.conv2d, F.conv3d)
SMALL = 1 << 15  # products of a convolution for an output, up to which calling a library for them costs more
MOVED = 256  # numbers that may be moved in every step before a ring costs less
KERNEL_ROWS = 12  # of one product, up to which they are its rows and not its columns
LARGE = 512  # numbers in a frame from which a ring costs less


def convolution(ctx: KernelContext) -> Run:
    """Convolutions: one matrix product or one convolution over space for a step."""
    layer: Any = ctx.module
    outputs = ctx.out_schedule.frames
    if ctx.target.compiler_fuses and outputs == ctx.in_schedule.frames == 1:
        ring = _in_ring(ctx, layer) if layer.groups == 1 else _depthwise_images(ctx, layer)
        if ring is not None:
            return ring
    windows = None if layer._memoryless else windows_of(ctx, layer)
    compute = _over_time_alone if layer._over_time_alone and layer.groups == 1 else _by_taps
    if compute is _by_taps and (layer.groups > 1 or outputs > 1):
        compute = _image_by_image if ctx.target.conv3d_as_2d and layer.dims == 3 else _whole
        compute = _depthwise if layer._depthwise else compute
    small = compute in (_by_taps, _whole) and _is_small(ctx, layer)

    def run(x: Tensor, rows: CallRows) -> Tensor:
        frames = x if windows is None else windows.frames(rows, x)
        way = _written_out if small and x.shape[0] <= ctx.target.inline_rows else compute
        return way(layer, frames, outputs, ctx.target.inline_rows)

    return run


def _in_ring(ctx: KernelContext, layer: Any) -> Run | None:
    """Convolutions whose frames are large, or whose taps lie far apart: taps are taken from a ring. ``None`` where that is no gain."""
    dilation, taps = layer._dilation, layer._taps
    depth, size = dilation * (taps - 1), math.prod(ctx.node.kept_spec.shape[1:])
    moved = (depth - taps) * size  # frames that would only be moved
    if not _comes_last(ctx, layer) or depth == 0 or (moved < MOVED and (layer.dims == 1 or size < LARGE)):
        return None
    ring = ctx.ring("window", ctx.node.kept_spec, depth, layer.fill_value)
    older = [dilation * i for i in range(taps - 1, 0, -1)]

    def run(x: Tensor, rows: CallRows) -> Tensor:
        x = _entered(ctx, layer, rows, x)
        if layer.dims == 3 and not layer._over_time_alone and (y := images(layer, ring, rows, x)) is not None:
            return y
        stacked = torch.cat([*(ring.before(rows, offset) for offset in older), x], 1)  # taps side by side
        ring.push(rows, x)
        weight = layer.weight.transpose(1, 2).flatten(1, 2)
        if layer._over_time_alone:
            y = _product(
                stacked.flatten(2) if stacked.ndim > 2 else stacked.unsqueeze(2),
                weight.flatten(1),
                parameter(layer, "bias"),
                ctx.target.inline_rows,
            )
            return y.unflatten(2, (1, *stacked.shape[2:]))
        return _over_space(layer, stacked, weight)

    return run


def _depthwise_images(ctx: KernelContext, layer: Any) -> Run | None:
    """Depthwise convolutions of images, for the kernel that reads frames where a ring holds them; ``None`` where that is no gain."""
    depth, size = layer._dilation * (layer._taps - 1), math.prod(ctx.node.kept_spec.shape[1:])
    if layer.dims < 3 or layer._geometry is None or not _comes_last(ctx, layer) or size < LARGE or _is_small(ctx, layer):
        return None
    ring = ctx.ring("window", ctx.node.kept_spec, depth, layer.fill_value) if depth else None
    return lambda x, rows: depthwise_images(layer, ring, rows, _entered(ctx, layer, rows, x))


def _comes_last(ctx: KernelContext, layer: Any) -> bool:
    """Whether the frame that comes completes an output of each call."""
    depth = layer._dilation * (layer._taps - 1)
    return layer._fill in FILLS and ctx.out_schedule.first - layer._window.start == ctx.in_schedule.first - depth


def _entered(ctx: KernelContext, layer: Any, rows: CallRows, x: Tensor) -> Tensor:
    """The frame that comes, ``(B, C, *S)``, or padding in its place."""
    window = layer._window
    return ctx.gated(rows, x, layer.fill_value, start=window.start > 0, end=window.end > 0).squeeze(2)


def _taps(layer: Any, frames: Tensor, outputs: int) -> Tensor:
    """The frames of each window, ``(B, C, outputs, k, *S)``."""
    stride = layer._window.stride
    if outputs == 1:
        return frames[:, :, :: layer._dilation].unsqueeze(2)
    return frames.unfold(2, layer._window.receptive_field, stride)[..., :: layer._dilation].movedim(-1, 3)


def _over_time_alone(layer: Any, frames: Tensor, outputs: int, inline_rows: int) -> Tensor:
    """A matrix product: channels and taps of each window with the weight as it lies in memory; of images pixel by pixel."""
    bias = parameter(layer, "bias")
    if (
        layer.dims == 3
        and layer._taps == 1
        and inline_rows > 0
        and frames[:, 0].numel() > KERNEL_ROWS
        and computes_products(frames)
    ):
        return F.linear(frames.movedim(1, -1), layer.weight.flatten(1), bias).movedim(-1, 1)  # channels last, as around it
    taps = _taps(layer, frames, outputs).movedim(3, 2).flatten(1, 2)  # (B, C * k, n, *S)
    y = _product(taps.flatten(2), layer.weight.flatten(1), bias, inline_rows)
    return y.unflatten(2, taps.shape[2:])


def _product(flat: Tensor, weight: Tensor, bias: Tensor | None, inline_rows: int) -> Tensor:
    """The product of a weight ``(O, I)`` with ``(B, I, n)``; of a few columns as a sum, where that fuses with what is around."""
    by_kernel = inline_rows > 0 and computes_products(flat)
    if flat.shape[0] * flat.shape[2] <= (1 if by_kernel else inline_rows) and weight.numel() <= SUMMED:
        y = (weight.unsqueeze(0).unsqueeze(2) * flat.transpose(1, 2).unsqueeze(1)).sum(3)
        return y if bias is None else y + bias.unsqueeze(1)
    if inline_rows == 0 and flat.shape[2] == 1:
        return F.linear(flat.squeeze(2), weight, bias).unsqueeze(2)
    if flat.shape[2] <= (KERNEL_ROWS if by_kernel else inline_rows):  # rows of a product that reads the weight once
        y = F.linear(flat.transpose(1, 2), weight).transpose(1, 2)
    else:
        y = torch.matmul(weight, flat)
    return y if bias is None else y + bias.unsqueeze(1)  # fused with what comes next


def _by_taps(layer: Any, frames: Tensor, outputs: int, inline_rows: int) -> Tensor:
    """One convolution over space, the taps among its channels."""
    return _over_space(layer, frames[:, :, :: layer._dilation].flatten(1, 2), layer.weight.flatten(1, 2))


def _over_space(layer: Any, window: Tensor, weight: Tensor) -> Tensor:
    window, pads = layer._pad_space(window)
    y: Tensor = _CONV[layer.dims - 1](window, weight, layer.bias, layer.stride[1:], pads, layer.dilation[1:], layer.groups)
    return y.unsqueeze(2)


def _image_by_image(layer: Any, frames: Tensor, outputs: int, inline_rows: int) -> Tensor:
    """A convolution over space for each output, the taps among its channels, which keeps groups together."""
    weight, window = layer.weight.flatten(1, 2), layer._window
    starts = range(0, outputs * window.stride, window.stride)
    taps = [frames[:, :, i : i + window.receptive_field : layer._dilation].flatten(1, 2) for i in starts]
    return torch.cat([_over_space(layer, t, weight) for t in taps], 2)


def _depthwise(layer: Any, frames: Tensor, outputs: int, inline_rows: int) -> Tensor:
    """Each channel on its own."""
    taps, bias = _taps(layer, frames, outputs), parameter(layer, "bias")
    weight = layer.weight.view(*layer.weight.shape[:3], *(1,) * (taps.ndim - 4))
    y = (taps * weight).sum(3)
    return y if bias is None else y + bias.view(-1, *(1,) * (y.ndim - 2))


def _is_small(ctx: KernelContext, layer: Any) -> bool:
    """Whether a library's call for a convolution over space would cost more than its products."""
    out: Any = ctx.node.out
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    return (layer.groups == 1 or depthwise) and layer.weight.numel() * math.prod(out.shape[2:]) * ctx.out_schedule.frames <= SMALL


def _written_out(layer: Any, frames: Tensor, outputs: int, inline_rows: int) -> Tensor:
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


def _whole(layer: Any, frames: Tensor, outputs: int, inline_rows: int) -> Tensor:
    """Torch's own operation."""
    frames, pads = layer._pad_space(frames)
    y: Tensor = _CONV[layer.dims](frames, layer.weight, layer.bias, layer.stride, (0, *pads), layer.dilation, layer.groups)
    return y
