"""Pooling of images over space, from planes as frames come to channels last as pools keep them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import build
from .build import LONG, POINTER
from .conditions import usable

ROOM = 512  # numbers of a row with its padding
LEAST = 1 << 14  # numbers of a call, below which torch's costs less
ALONE = 1 << 17  # numbers, below which a second thread costs more than it does


@functools.cache
def library() -> build.Kernel | None:
    """The kernel; ``None`` where there is no compiler, or with ``CONTINUAL_NATIVE=0``."""
    return build.kernel(Path(__file__).with_suffix(".cpp"), [POINTER] * 4 + [LONG])


def pooled_or_none(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], maximum: bool
) -> Tensor | None:
    """The maxima, or means, of images ``(B, C, H, W)``, channels last; ``None`` where torch's pooling is the faster one, or the only one.

    Padding counts in means, and never in maxima.
    """
    if not _in_planes(x) or not usable(x, x, None):
        return None
    found = library()
    if found is None or (found.parallel is None and torch.get_num_threads() > 1):
        return None
    (batch, channels, *size), lanes = x.shape, found.lanes
    out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
    read, written = (-(-n // lanes) * lanes for n in (out[1], size[1]))
    if min(out) < 1 or max(read * stride[1] + kernel[1], written + padding[1]) + 2 * lanes > ROOM:
        return None
    y = torch.empty((batch, *out, channels), dtype=torch.float32, device="cpu")
    sizes = (LONG * 15)(batch, channels, *size, *out, *kernel, *stride, *padding, *x.stride()[:2], int(maximum))
    threads = torch.get_num_threads() if x.numel() >= ALONE else 1
    found.run(x.data_ptr(), y.data_ptr(), sizes, found.parallel, threads)
    return y.permute(0, 3, 1, 2)


def _in_planes(x: Tensor) -> bool:
    """Whether this is many numbers, plane by plane."""
    return x.ndim == 4 and x.numel() >= LEAST and x.shape[1] > 1 and x.stride()[2:] == (x.shape[3], 1)
