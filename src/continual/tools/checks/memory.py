"""Measures the memory of a computation: what its operations allocate and do not free."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

MORE = 3 << 27  # bytes of tensors that are allowed beyond those of one forward of the clip

LARGE = 1 << 26  # if a forward takes more bytes, memory is freed before the next one

# A process stays within twice the memory of a forward and one GiB: an allocator keeps about as much again as is in use.


class Meter(TorchDispatchMode):
    """Counts the bytes of the tensors that are created while it is open, on any device.

    Attributes:
        live: bytes of those that exist now.
        peak: their maximum so far.

    Example:
        >>> with Meter() as meter:
        ...     y = torch.zeros(1000) + 1
        >>> meter.peak, meter.live
        (8000, 4000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # of torch: `True` imports its compiler, which takes a second and 60 MB
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for t in _tensors((args, kwargs)):  # earlier tensors are not a cost of this computation
            self._note(t, 0)
        out = func(*args, **(kwargs or {}))
        for t in _tensors(out):
            self._note(t, None)
        return out

    def _note(self, t: Tensor, size: int | None) -> None:
        if t.layout is not torch.strided:
            return
        storage = t.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes() if size is None else size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key, size).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def give_back() -> None:
    """Collect garbage, and return freed memory from the C library to the system (glibc only).

    Activations of up to 32 MB are in one heap, in which clips of many lengths leave holes of many
    sizes. After two forwards of X3D on 48² a process held 744 MB, after this 396, as before them.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def weight_bytes(net: Any) -> int:
    """Bytes of the parameters and buffers of a module; 0 if it is not a module."""
    if not isinstance(net, nn.Module):
        return 0
    return sum(t.numel() * t.element_size() for t in (*net.parameters(), *net.buffers()))


def gib(count: float) -> str:
    """Bytes as text."""
    return f"{count / 2**30:.3g} GiB"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)
