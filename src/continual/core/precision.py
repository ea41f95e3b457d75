"""What becomes of the tensors of a stream, and of complex weights, when a module moves to another dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Move = Callable[[Tensor], Tensor]  # a copy, or what a module's .to(), .half() … does to its tensors


def widest(device: torch.device) -> torch.dtype:
    """The widest floating type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def kept_wide(fn: Move, t: Tensor) -> Tensor:
    """A sum over time under a move: it goes to the other device, and does not get narrower."""
    if t.is_complex():
        return _parts(lambda parts: kept_wide(fn, parts), t)
    if not t.is_floating_point():
        return fn(t)
    device = fn(torch.empty(0, device=t.device)).device  # float32: a device may have no float64 to probe with
    if device != t.device:
        return t.to(device, widest(device))
    return fn(t) if fn(torch.empty(0, dtype=t.dtype, device=device)).dtype == t.dtype else t


def kept_complex(fn: Move) -> Move:
    """The move for weights: complex ones stay complex, in complex64 at least, since few operations take complex32."""
    return lambda t: _parts(fn, t, (torch.float64, torch.float32)) if t.is_complex() else fn(t)


def kept_kind(fn: Move) -> Move:
    """The move for the state of a stream: integers keep their dtype, complex numbers stay complex, in the precision of real ones."""

    def moved(t: Tensor) -> Tensor:
        if t.is_floating_point():
            return fn(t)
        if t.is_complex():
            return _parts(fn, t)
        y = fn(t)
        return y if y.dtype == t.dtype else t.to(y.device)

    return moved


def _parts(fn: Move, t: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.float16)) -> Tensor:
    """Complex numbers with moved real and imaginary parts; complex64 where no complex dtype has such parts."""
    old = torch.view_as_real(t.resolve_conj().resolve_neg())
    new = fn(old)
    if new.dtype not in dtypes:
        new = old.to(new.device, torch.float32)
    if new.stride(-1) != 1 or any(s % 2 for s in (*new.stride()[:-1], new.storage_offset())):
        new = new.contiguous()
    return torch.view_as_complex(new)
