"""Depthwise convolutions of images as an operation of graphs: the kernel reads the older frames of a window where a ring holds them."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from . import depthwise

SCHEMA = (
    "depthwise(Tensor? ring, Tensor? index, Tensor x, Tensor weight, Tensor? bias, "
    "int kernel, int stride, int pad_h, int pad_w, int dilation, bool relu=False) -> Tensor"
)


def of_images(
    ring: Tensor | None, index: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: depthwise.Geometry
) -> Tensor:
    """One window for each row.

    Args:
        ring: the older frames, ``(B, L, H, W, C)``, ``L`` the dilation times the older taps: frame ``i`` of a row in slot ``i % L``.
            ``None`` where the convolution has one tap.
        index: of the newest frame of each row, ``(B,)``; ``None`` as the ring.
        x: the newest frames, ``(B, H, W, C)``.
        weight: ``(C, 1, k, *K)``.
        bias: ``(C)``.
        geometry: of the layer.

    Returns:
        ``(B, H', W', C)``.
    """
    operation()
    kernel = depthwise.library()
    if kernel is None:
        raise AssertionError("asked for before")
    blocks = depthwise.in_blocks(weight, kernel.lanes)
    numbers = geometry.kernel, geometry.stride, geometry.pad_h, geometry.pad_w, geometry.time_dilation
    y: Tensor = torch.ops.continual.depthwise(ring, index, x.contiguous(), blocks, bias, *numbers)
    return y


@functools.cache
def operation() -> torch.library.Library:
    """The operation that stands for the kernel in graphs."""
    made = torch.library.Library("continual", "FRAGMENT")
    made.define(SCHEMA)
    made.impl("depthwise", _run, "CPU")

    @torch.library.register_fake("continual::depthwise", lib=made)
    def _(ring: Any, index: Any, x: Tensor, weight: Tensor, bias: Any, *numbers: int) -> Tensor:
        return x.new_empty(_shape(x, *numbers[:5]))

    return made


def _shape(x: Tensor, kernel: int, stride: int, pad_h: int, pad_w: int, dilation: int) -> tuple[int, ...]:
    batch, height, width, channels = x.shape
    return batch, (height + 2 * pad_h - kernel) // stride + 1, (width + 2 * pad_w - kernel) // stride + 1, channels


def _run(ring: Tensor | None, index: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, *numbers: int) -> Tensor:
    """The operation, where it runs by itself. Its form in compiled code is in ``programs/backends/depthwise.py``."""
    kernel, _, _, _, dilation, *relu = numbers
    taps, (batch, height, width, channels) = weight.shape[1] // kernel**2, x.shape
    frame, older = 4 * math.prod(x.shape[1:]), range(dilation * (taps - 1), 0, -dilation)
    table: list[int] = []
    for row, i in enumerate(
        [0] * batch if index is None else index.tolist()
    ):  # an output of its own, its frames in its own slots
        if ring is not None:
            depth = ring.shape[1]
            for back in older:
                table += ring.data_ptr() + frame * (row * depth + (i - back) % depth), 0
        table += x.data_ptr() + frame * row, 0
    compiled: Any = depthwise.library()
    y = torch.empty(_shape(x, *numbers[:5]), dtype=torch.float32, device="cpu")
    long = depthwise._Long
    geometry = (long * 8)(channels, taps, *numbers[:4], 1, taps)
    bias_at = None if bias is None else bias.data_ptr()
    busy = compiled.parallel is not None and math.prod(y.shape[:3]) * weight.numel() >= depthwise.ALONE
    addresses = geometry, (long * len(table))(*table), weight.data_ptr(), bias_at, y.data_ptr()
    threads = torch.get_num_threads() if busy else 1
    compiled.run(*addresses, 1, batch, height, width, *y.shape[1:3], compiled.parallel, threads)
    return y.relu_() if any(relu) else y
