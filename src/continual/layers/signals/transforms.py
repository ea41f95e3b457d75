"""Fourier transforms as matrix products of real numbers, for runtimes that have no complex ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _angles(rows: int, columns: int, n: int) -> Tensor:
    """``2π·i·j / n``, whose products are whole numbers below ``n``: no digits are lost in a large angle."""
    products = torch.arange(rows).unsqueeze(1) * torch.arange(columns)
    return products.remainder(n).double() * (2 * math.pi / n)


def forward_matrix(n: int, bins: int, scale: float, like: Tensor) -> Tensor:
    """The transform of ``n`` real values as a matrix ``(n, 2·bins)``, with real and imaginary parts side by side."""
    angles = _angles(n, bins, n)
    parts = torch.stack((angles.cos(), -angles.sin()), 2) * scale
    return parts.flatten(1).to(like.device, like.dtype)


def inverse_matrix(n: int, bins: int, scale: float, like: Tensor) -> Tensor:
    """The inverse transform to ``n`` real values, ``(2·bins, n)``, of the first ``bins = n // 2 + 1`` frequencies."""
    angles = _angles(bins, n, n)
    twice = torch.full((bins, 1), 2.0, dtype=torch.float64)
    twice[0] = 1
    if n % 2 == 0:
        twice[-1] = 1
    parts = torch.stack((angles.cos() * twice, -angles.sin() * twice), 1) * (scale / n)
    return parts.flatten(0, 1).to(like.device, like.dtype)
