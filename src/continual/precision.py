"""The type in which sums over time are kept, so that an endless stream does not lose digits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def widest(device: torch.device) -> torch.dtype:
    """The widest floating type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def kept_wide(fn: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """A state tensor under ``fn`` (a copy, or a module's ``.to()``), which may move it but not make it narrower."""
    if not t.is_floating_point():
        return fn(t)
    device = fn(torch.empty(0, device=t.device)).device  # float32: a device may have no float64 to probe with
    if device != t.device:
        return t.to(device, widest(device))
    return fn(t) if fn(torch.empty(0, dtype=t.dtype, device=device)).dtype == t.dtype else t
