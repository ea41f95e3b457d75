"""Modules that take the frames of a clip one by one: found before an export, which takes a second for some tens of such frames."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .capture import layout_of, left_alone, quiet
from .recurrent_ops import Whole

MANY = 32  # frames, and calls by one line of code; fewer are exported in no time, whatever they are
ENOUGH = 300  # calls by one line of code after which a run is not followed further
LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class _Enough(Exception):
    """A line of code has called torch often enough."""


class Calls(Whole):
    """Counts how often each line of a module's own code calls torch."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[tuple[str, int]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and f"{'torch'}/" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None:
            line = frame.f_code.co_filename, frame.f_lineno
            self.lines[line] += 1
            if self.lines[line] > ENOUGH:
                raise _Enough
        return super().__torch_function__(func, types, args, kwargs)


def calls_of(module: nn.Module, inputs: Sequence[Tensor]) -> Counter[tuple[str, int]] | None:
    """How often each line of a module's code calls torch, from a run on shapes alone; ``None`` if it can't be run so."""
    calls = Calls()
    with left_alone(module), quiet(), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake, calls:
        try:
            module(*(fake.from_tensor(x.detach()) for x in inputs))
        except _Enough:
            pass
        except Exception:  # it looks at values, or does not take such clips: the export will say so
            return None
    return calls.lines


def shortened(module: nn.Module, clip: Any, time_dim: Any) -> tuple[Tensor, ...] | None:
    """A shorter clip that shows all that a module does, if its code has a loop over the frames; ``None`` if it has none.

    A line that runs as often as a loop has steps runs less often on a shorter clip; one that runs for every layer does not.
    """
    inputs = tuple(clip) if isinstance(clip, (tuple, list)) else (clip,)
    times, _ = layout_of(inputs, time_dim)
    frames = next(x.shape[t] for x, t in zip(inputs, times, strict=True) if t is not None)
    calls = calls_of(module, inputs) if frames >= MANY else None
    if calls is None or max(calls.values(), default=0) < MANY:
        return None
    for steps in [n for n in LENGTHS if 2 * n <= frames]:
        short = tuple(x if t is None else x.narrow(t, 0, steps) for x, t in zip(inputs, times, strict=True))
        fewer = calls_of(module, short)
        if fewer is not None:
            return short if fewer.total() < calls.total() else None
    return None
