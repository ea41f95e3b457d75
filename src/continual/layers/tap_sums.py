"""Convolutions over time alone as sums over taps: all taps at once where frames are small, one after another where they are large.

A call of torch costs as much as some thousand multiply-adds; joining large frames costs more than the calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, bmm  # by name: ptflops counts what is called as torch.bmm, beside the layer itself

from ..core.timing import Window
from .native import product

FEW_WINDOWS = 16  # of a row, below which all windows are rows of one matrix product
LIGHT = 1 << 13  # numbers in a weight, up to which torch's own convolution of one row costs less than that
SMALL = 1 << 12  # numbers in a chunk's outputs, up to which a sum over their windows at once costs less
LARGE = 1 << 17  # numbers in a window, from which one tap after another costs less


def are_few(frames: Tensor, window: Window) -> bool:
    """Whether frames ``(B, C, n)`` have few windows."""
    return (frames.shape[2] - window.receptive_field) // window.stride + 1 < FEW_WINDOWS


def is_light(frames: Tensor, weight: Tensor) -> bool:
    """Whether torch's own convolution of frames ``(B, C, n)`` with a weight ``(O, I, k)`` costs little more than its call."""
    return frames.shape[0] == 1 and weight.numel() <= LIGHT


def few_windows(frames: Tensor, window: Window, dilation: int, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of frames ``(B, I, n)`` with a weight ``(O, I, k)``: each window is a row of a matrix.

    For few windows torch's own convolution costs up to 30 times as much, since it lays the weight out again in each call.
    """
    windows = frames.unfold(2, window.receptive_field, window.stride)
    rows = (windows if dilation == 1 else windows[..., ::dilation]).transpose(1, 2).flatten(2)
    return product.linear(rows, weight.flatten(1), bias).transpose(1, 2).contiguous()  # what follows is twice as fast so


def depthwise(frames: Tensor, window: Window, dilation: int, weights: Tensor, bias: Tensor | None) -> Tensor:
    """All windows of frames ``(B, n, *S, C)``, each channel with the weights ``(k, C)``: ``(B, n', *S, C)``."""
    windows = frames.unfold(1, window.receptive_field, window.stride)[..., ::dilation]
    if windows[..., 0].numel() > SMALL:
        return tap_by_tap(windows.unbind(-1), weights, bias)
    return _with(bias, (windows * weights.t()).sum(-1))


def depthwise_step(parts: Sequence[Tensor], x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """The same of one window: its older frames ``(B, n, *S, C)``, and the newest ``(B, *S, C)``."""
    if weights.shape[0] * x.numel() > LARGE:
        return tap_by_tap([*(f for p in parts for f in p.unbind(1)), x], weights, bias)
    window = torch.cat((*parts, x.unsqueeze(1)), 1)
    return _with(bias, (window * weights.view(weights.shape[0], *(1,) * (x.ndim - 2), weights.shape[1])).sum(1))


def whole_frames(frames: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A convolution whose kernel is one frame and covers all of its space, of frames ``(B, C, n, *S)``: a product of matrices.

    Filters over all electrodes of an EEG are such. Torch's convolution takes five times as long.
    """
    batch, _, n, *space = frames.shape
    rows = frames.movedim(2, 1).reshape(batch * n, groups, -1)
    if groups == 1:
        y = product.linear(rows.squeeze(1), weight.flatten(1), bias)
    else:
        y = bmm(rows.transpose(0, 1), weight.view(groups, weight.shape[0] // groups, -1).transpose(1, 2))
        y = _with(bias, y.transpose(0, 1).flatten(1))
    return y.view(batch, n, -1).transpose(1, 2).reshape(batch, -1, n, *(1,) * len(space))


def tap_by_tap(taps: Sequence[Tensor], weights: Tensor, bias: Tensor | None) -> Tensor:
    """The sum of frames ``(…, C)``, each channel of each weighed on its own."""
    y = taps[0] * weights[0] if bias is None else torch.addcmul(bias, taps[0], weights[0])
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        y.addcmul_(tap, weight)
    return y


def _with(bias: Tensor | None, y: Tensor) -> Tensor:
    return y if bias is None else y + bias
