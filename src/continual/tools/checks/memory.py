"""How much memory a computation takes, by measure: what its operations allocate and do not give back."""

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

MORE = 3 << 27  # bytes of tensors that may be there beyond those of a forward of the clip

LARGE = 1 << 26  # bytes of a forward from which on memory is given back before the next one

# A process stays within twice a forward's memory and one GiB, since an allocator keeps about as much again as is in use.


class Meter(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is open, on any device.

    Attributes:
        live: bytes of those that are there now.
        peak: the most that there were.

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
        for t in _tensors((args, kwargs)):  # what was there before is no cost of this computation
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
    """Free what is garbage, and return to the system what the C library keeps of it, where it can (glibc).

    Garbage waits for the collector, and activations of up to 32 MB lie in one heap, in which clips of many lengths leave holes of many
    sizes. After two forwards of X3D on 48² a process held 744 MB, after this 396, as before them.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def weight_bytes(net: Any) -> int:
    """Bytes of a module's parameters and buffers; 0 for what is no module."""
    if not isinstance(net, nn.Module):
        return 0
    return sum(t.numel() * t.element_size() for t in (*net.parameters(), *net.buffers()))


def gib(count: float) -> str:
    """Bytes in words."""
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
