"""Depthwise convolutions over time and space, frame by frame where the frames lie."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import build
from .build import LONG, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
MOST_TAPS = 32  # of which the kernel keeps the rows
ALONE = 1 << 19  # products, below which a second thread costs more than it does


@functools.cache
def library() -> build.Kernel | None:
    """The kernel, built at the first use on a machine (2 to 3 s); ``None`` where there is no compiler, or with ``CONTINUAL_NATIVE=0``."""
    return build.kernel(SOURCE, [POINTER] * 5 + [LONG] * 6 + [POINTER, LONG], avx=False)


class Geometry(NamedTuple):
    """What of a convolution the kernel needs to know, as it wants it."""

    channels: int
    taps: int
    kernel: int
    stride: int
    pad_h: int
    pad_w: int
    time_dilation: int
    time_stride: int

    @staticmethod
    def of(layer: Any) -> Geometry | None:
        """Of a convolution; ``None`` where it is not one for the kernel: a square of 3 (with a stride of 1 or 2), or 1, for each channel.

        Args:
            layer: with the attributes of ``torch.nn.Conv3d`` or ``Conv2d``.
        """
        (taps, *kernel), (time_stride, *stride), (dilation, *apart) = layer.kernel_size, layer.stride, layer.dilation
        depthwise = 1 < layer.groups == layer.in_channels == layer.out_channels
        if not depthwise or taps > MOST_TAPS or layer._space_pads is None or any(d > 1 for d in apart):
            return None
        pads = layer._space_pads
        if not (kernel in ([3, 3], [1, 1], [1]) and stride in ([1] * len(kernel), [2] * len(kernel))):
            return None
        if kernel[0] == 1 and (any(pads) or stride[0] > 1):
            return None
        return Geometry(layer.in_channels, taps, kernel[0], stride[0], pads[0], pads[-1], dilation, time_stride)


class _Sizes(NamedTuple):
    """Of frames that come: the space ``S'`` of those that leave, height and width of both, and the products of one window."""

    out: tuple[int, ...]
    planes: tuple[int, ...]
    products: int


class Depthwise:
    """The kernel with one layer's weight.

    Args:
        geometry: of the layer.
        weight: ``(C, 1, k, *K)``.
        compiled: the kernel.
    """

    def __init__(self, geometry: Geometry, weight: Tensor, compiled: build.Kernel):
        self._geometry, self._compiled = geometry, compiled
        self._c_geometry = (LONG * len(geometry))(*geometry)
        self._c_step = (LONG * len(geometry))(*geometry._replace(time_dilation=1, time_stride=1))  # the taps alone are given
        self._weight = in_blocks(weight.detach(), compiled.lanes)
        self._sizes: dict[tuple[int, ...], _Sizes] = {}

    @staticmethod
    def prepared(geometry: Geometry, weight: Tensor) -> Depthwise | None:
        """The kernel for a layer; ``None`` where it has too few channels, or where there is no compiler."""
        if geometry.channels < 4:
            return None
        compiled = library()
        return None if compiled is None or geometry.channels < compiled.lanes else Depthwise(geometry, weight, compiled)

    def step(self, parts: Sequence[Tensor], x: Tensor, bias: Tensor | None) -> Tensor | None:
        """One window.

        Args:
            parts: its older frames, ``(B, n, *S, C)`` each.
            x: its newest, ``(B, C, *S)``.
            bias: ``(C)``.

        Returns:
            ``(B, C, *S')``, channels last in memory; ``None`` where torch's own operations are the faster ones.
        """
        y = self._run(self._c_step, (*parts, x.movedim(1, -1).unsqueeze(1)), 1, bias)
        return None if y is None else y.squeeze(1).movedim(-1, 1)

    def windows(self, pieces: Sequence[Tensor], bias: Tensor | None) -> Tensor | None:
        """All windows of consecutive frames ``(B, C, n, *S)`` in several pieces: ``(B, C, n', *S')``, or ``None`` as above."""
        g = self._geometry
        outputs = (sum(p.shape[2] for p in pieces) - g.time_dilation * (g.taps - 1) - 1) // g.time_stride + 1
        y = self._run(self._c_geometry, [p.movedim(1, -1) for p in pieces], outputs, bias)
        return None if y is None else y.movedim(-1, 1)

    def _run(self, geometry: Any, pieces: Sequence[Tensor], outputs: int, bias: Tensor | None) -> Tensor | None:
        """The windows ``(B, outputs, *S', C)`` of consecutive frames, in pieces ``(B, n, *S, C)``."""
        run, _, parallel = self._compiled
        batch, _, *space, channels = pieces[0].shape
        sizes, threads = self._sizes.get(key := tuple(space)), torch.get_num_threads()
        if sizes is None:
            sizes = self._sizes[key] = self._sizes_of(key)
        if threads > 1:
            if parallel is None:
                return None
            if batch * outputs * sizes.products < ALONE:
                threads = 1
        table, kept = _addresses(pieces)
        y = torch.empty((batch, outputs, *sizes.out, channels), dtype=torch.float32, device="cpu")
        bias_at = None if bias is None else bias.data_ptr()
        addresses = geometry, (LONG * len(table))(*table), self._weight.data_ptr(), bias_at, y.data_ptr()
        run(*addresses, batch, outputs, *sizes.planes, parallel, threads)
        del kept
        return y

    def _sizes_of(self, space: tuple[int, ...]) -> _Sizes:
        g = self._geometry
        out = tuple((s + 2 * p - g.kernel) // g.stride + 1 for s, p in zip(space, (g.pad_h, g.pad_w), strict=False))
        row = (1,) * (2 - len(space))
        return _Sizes(out, (*row, *space, *row, *out), math.prod(out) * self._weight.numel())


def in_blocks(weight: Tensor, lanes: int) -> Tensor:
    """A weight ``(C, 1, k, *K)`` as the kernel reads it, ``(blocks, k * K, lanes)``; the last block reaches back over the one before."""
    flat = weight.flatten(1)
    whole = len(flat) // lanes
    blocks = flat[: whole * lanes].unflatten(0, (whole, lanes))
    if len(flat) > whole * lanes:
        blocks = torch.cat((blocks, flat[-lanes:].unsqueeze(0)))
    return blocks.transpose(1, 2).contiguous()


def _addresses(pieces: Sequence[Tensor]) -> tuple[list[int], list[Tensor]]:
    """Where each frame begins and how far its rows are apart, and the tensors that they lie in: copies where channels are not last."""
    *space, channels = pieces[0].shape[2:]
    within = (channels, 1) if len(space) == 1 else (space[-1] * channels, channels, 1)
    table: list[int] = []
    kept: list[Tensor] = []
    for piece in pieces:
        batch_stride, stride, *inside = piece.stride()
        if tuple(inside) != within:
            piece = piece.contiguous()
            batch_stride, stride = piece.stride()[:2]
        start = piece.data_ptr()
        for i in range(piece.shape[1]):
            table += start + 4 * stride * i, batch_stride
        kept.append(piece)
    return table, kept
