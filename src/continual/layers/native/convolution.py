"""Convolutions over time and space, with the taps and the channels of a pixel side by side: products of matrices whose rows overlap."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from . import build, product
from .build import LONG, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
ALONE = 1 << 20  # products, below which a second thread costs more than it does
MOST_WEIGHTS = 1 << 17  # above, oneDNN's convolution is the faster one
FEWEST_CHANNELS = 8  # below, it is as well


class Geometry(NamedTuple):
    """What the kernel needs to know of a convolution, as it wants it."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int

    @staticmethod
    def of(layer: Any) -> Geometry | None:
        """Of a convolution of images; ``None`` where the kernel is not the faster one, or is not for it.

        Args:
            layer: with the attributes of ``torch.nn.Conv3d``.
        """
        plain = layer.dims == 3 and layer.groups == 1 and layer._space_pads is not None
        if not plain or layer.in_channels < FEWEST_CHANNELS or layer.weight.numel() > MOST_WEIGHTS:
            return None
        return Geometry(*layer.kernel_size[1:], *layer.stride[1:], *layer._space_pads, *layer.dilation[1:])

    def out(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what comes out."""
        return (
            (height + 2 * self.pad_h - self.dilation_h * (self.kernel_h - 1) - 1) // self.stride_h + 1,
            (width + 2 * self.pad_w - self.dilation_w * (self.kernel_w - 1) - 1) // self.stride_w + 1,
        )


@functools.cache
def library() -> build.Kernel | None:
    """The kernel, where that for products is there as well; ``None`` where there is no compiler, or with ``CONTINUAL_NATIVE=0``."""
    if product.library() is None:
        return None
    return build.kernel(SOURCE, [POINTER] * 5 + [LONG] * 9 + [POINTER, LONG], avx=False)


def packed(weight: Tensor) -> Tensor:
    """A weight ``(O, C, k, *K)`` in panels ``(n, K * k * C, width)``."""
    return product.packed(weight.permute(0, 3, 4, 2, 1).flatten(1))
