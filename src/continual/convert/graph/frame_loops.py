"""Detects loops over frames before the export, because an export takes a second for some tens of iterations."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from .capture import TimeDims, layout_of, rates_of, steps_of
from .recurrent_ops import WholeOps
from .undone import quiet, restored

MANY = 32  # frames, and calls by one line of code: fewer are exported at once
ENOUGH = 300  # calls by one line of code after which a run stops
LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class _Enough(Exception):
    """Raised when a line of code has made too many calls."""


class Calls(Counter[tuple[str, int]]):
    """How often each line of code calls torch.

    Attributes:
        writes: whether some calls write into tensors.
    """

    writes = False


class CallCounter(WholeOps):
    """Counts how often each line of a module's own code calls torch.

    Args:
        enough: calls by one line after which the run stops.
    """

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.lines = Calls()
        self._enough = enough

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and f"{'torch'}/" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None:
            line = frame.f_code.co_filename, frame.f_lineno
            self.lines[line] += 1
            name = getattr(func, "__name__", "")
            self.lines.writes |= name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
            if self.lines[line] > self._enough:
                raise _Enough
        return super().__torch_function__(func, types, args, kwargs)


def _shapes_alone() -> FakeTensorMode:
    """Tensors without values. How many elements a mask chooses is a symbol."""
    return FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)


def calls_of(module: nn.Module, inputs: Sequence[Tensor], enough: int | None = None) -> Calls | None:
    """The number of calls to torch of each line of a module's code, in a run on shapes alone; ``None`` if that run fails.

    Args:
        enough: calls by one line after which the run stops; by default ``ENOUGH``.
    """
    calls = CallCounter(ENOUGH if enough is None else enough)
    with restored(module), quiet(), torch.no_grad(), _shapes_alone() as fake, calls:
        try:
            module(*(fake.from_tensor(x.detach()) for x in inputs))
        except _Enough:
            pass
        except Exception:  # it reads values, or refuses such clips: the export reports that
            return None
    return calls.lines


def shortened(module: nn.Module, inputs: Sequence[Tensor], time_dim: TimeDims) -> tuple[Tensor, ...] | None:
    """A shorter clip on which the module does the same, if its code has a loop over the frames; ``None`` if it has none.

    A line in such a loop runs less often on a shorter clip; a line in a loop over layers does not.
    """
    times, _ = layout_of(inputs, time_dim)
    frames, rates = steps_of(inputs, times), rates_of(inputs, times)
    calls = calls_of(module, inputs) if frames >= MANY else None
    if calls is None or max(calls.values(), default=0) < MANY:
        return None
    for steps in [n for n in LENGTHS if 2 * n <= frames]:
        short = tuple(x if t is None else x.narrow(t, 0, steps * r) for x, t, r in zip(inputs, times, rates, strict=True))
        fewer = calls_of(module, short)
        if fewer is not None:
            return short if fewer.total() < calls.total() else None
    return None
