"""Convolutions of images as operations of graphs: kernels read the older frames of a window where a ring holds them.

Their forms in compiled code are in ``programs/backends/images.py``. A ring is ``(B, L, H, W, C)``, ``L`` the dilation times the older taps:
frame ``i`` of a row lies in slot ``i % L``. An index ``(B,)`` says which frame is the newest of each row. Both are ``None`` where a
convolution has one tap.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from . import build, convolution, depthwise, product

_KEPT = "Tensor? ring, Tensor? index, Tensor x, Tensor weight, Tensor? bias"
SCHEMAS = (
    f"image_depthwise({_KEPT}, int kernel, int stride, int pad_h, int pad_w, int dilation, bool relu=False) -> Tensor",
    f"image_convolution({_KEPT}, int features, int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w, "
    "int dilation_h, int dilation_w, int dilation) -> Tensor",
)


def depthwise_of(
    ring: Tensor | None, index: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: depthwise.Geometry
) -> Tensor:
    """One window of a depthwise convolution for each row.

    Args:
        ring, index: see above.
        x: the newest frames, ``(B, H, W, C)``.
        weight: ``(C, 1, k, *K)``.
        bias: ``(C)``.
        geometry: of the layer.

    Returns:
        ``(B, H', W', C)``.
    """
    define()
    compiled: Any = depthwise.library()
    numbers = geometry.kernel, geometry.stride, geometry.pad_h, geometry.pad_w, geometry.time_dilation
    blocks = depthwise.in_blocks(weight, compiled.lanes)
    y: Tensor = torch.ops.continual.image_depthwise(ring, index, x.contiguous(), blocks, bias, *numbers)
    return y


def convolution_of(
    ring: Tensor | None,
    index: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: convolution.Geometry,
    dilation: int,
) -> Tensor:
    """One window of a convolution for each row.

    Args:
        ring, index: see above.
        x: the newest frames, ``(B, H, W, C)``.
        weight: ``(O, C, k, *K)``.
        bias: ``(O)``.
        geometry: of the layer.
        dilation: over time.

    Returns:
        ``(B, H', W', O)``.
    """
    define()
    panels = convolution.packed(weight)
    y: Tensor = torch.ops.continual.image_convolution(ring, index, x.contiguous(), panels, bias, len(weight), *geometry, dilation)
    return y


@functools.cache
def define() -> torch.library.Library:
    """Define the operations that stand for the kernels in graphs."""
    made = torch.library.Library("continual", "FRAGMENT")
    for schema in SCHEMAS:
        made.define(schema)
    made.impl("image_depthwise", _depthwise, "CPU")
    made.impl("image_convolution", _convolution, "CPU")

    @torch.library.register_fake("continual::image_depthwise", lib=made)
    def _(ring: Any, index: Any, x: Tensor, weight: Tensor, bias: Any, *numbers: int) -> Tensor:
        return x.new_empty(_depthwise_shape(x, *numbers[:5]))

    @torch.library.register_fake("continual::image_convolution", lib=made)
    def _(ring: Any, index: Any, x: Tensor, weight: Tensor, bias: Any, features: int, *numbers: int) -> Tensor:
        return x.new_empty((x.shape[0], *convolution.Geometry(*numbers[:-1]).out(*x.shape[1:3]), features))

    return made


def _depthwise_shape(x: Tensor, kernel: int, stride: int, pad_h: int, pad_w: int, dilation: int) -> tuple[int, ...]:
    batch, height, width, channels = x.shape
    return batch, (height + 2 * pad_h - kernel) // stride + 1, (width + 2 * pad_w - kernel) // stride + 1, channels


def _frames(ring: Tensor | None, index: Tensor | None, x: Tensor, dilation: int) -> list[int]:
    """Where the frames of each row's window begin."""
    size, found = 4 * math.prod(x.shape[1:]), []
    for row, i in enumerate([0] * len(x) if index is None else index.tolist()):
        if ring is not None:
            depth = ring.shape[1]
            slots = [(i - back) % depth for back in range(depth, 0, -dilation)]
            found += [ring.data_ptr() + size * (row * depth + slot) for slot in slots]
        found.append(x.data_ptr() + size * row)
    return found


def _threads(compiled: build.Kernel, products: int, alone: int) -> int:
    return torch.get_num_threads() if compiled.parallel is not None and products >= alone else 1


def _depthwise(
    ring: Tensor | None, index: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, *numbers: int
) -> Tensor:
    compiled: Any = depthwise.library()
    kernel, stride, pad_h, pad_w, dilation, *relu = numbers
    y = torch.empty(_depthwise_shape(x, *numbers[:5]), dtype=torch.float32, device="cpu")
    table = [number for frame in _frames(ring, index, x, dilation) for number in (frame, 0)]
    long, taps = build.LONG, weight.shape[1] // kernel**2
    geometry = (long * 8)(x.shape[3], taps, kernel, stride, pad_h, pad_w, 1, taps)  # each row is an output of its own
    addresses = geometry, (long * len(table))(*table), weight.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr()
    threads = _threads(compiled, math.prod(y.shape[:3]) * weight.numel(), depthwise.ALONE)
    compiled.run(*addresses, 1, len(x), *x.shape[1:3], *y.shape[1:3], compiled.parallel, threads)
    return y.relu_() if any(relu) else y


def _convolution(
    ring: Tensor | None, index: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, features: int, *numbers: int
) -> Tensor:
    compiled: Any = convolution.library()
    geometry = convolution.Geometry(*numbers[:-1])
    y = torch.empty((len(x), *geometry.out(*x.shape[1:3]), features), dtype=torch.float32, device="cpu")
    table, long = _frames(ring, index, x, numbers[-1]), build.LONG
    addresses = (long * 8)(*geometry), (long * len(table))(*table), weight.data_ptr(), None if bias is None else bias.data_ptr()
    threads = _threads(compiled, math.prod(y.shape[:3]) * weight.numel(), convolution.ALONE)
    sizes = len(x), len(table) // len(x), *x.shape[1:], *y.shape[1:3], features, product.panel_vectors(features, compiled.lanes)
    compiled.run(*addresses, y.data_ptr(), *sizes, compiled.parallel, threads)
    return y
