"""Pools in a step program: reductions of windows, and a divisor where they reach beyond the clip."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.program.context import CallRows, KernelContext, Run, over_frames
from ..window_program import Windows, windows_of

Divide = Callable[[Tensor, CallRows], Tensor]
LONG = 8  # taps; with more, windows are computed by blocks


def pool(ctx: KernelContext) -> Run:
    """Pools: reductions of windows, and a divisor where they reach beyond the clip."""
    layer: Any = ctx.module
    windows = None if layer._memoryless else windows_of(ctx, layer)
    divide = layer.program_divisor(ctx, windows)

    def run(x: Tensor, rows: CallRows) -> Tensor:
        frames = layer.enter(x)
        if windows is None:
            return divide(frames, rows)
        return divide(_together(layer, windows.frames(rows, frames)), rows)

    return run


def _together(layer: Any, frames: Tensor) -> Tensor:
    """The reduction of the frames of each window."""
    if layer._taps <= LONG:
        first, *others = layer.taps(frames)
        y: Tensor = functools.reduce(layer.combine, others, first)
        return y
    y = layer.at_once(frames)
    return y


def counts(ctx: KernelContext, layer: Any, windows: Windows, padded: bool) -> Callable[[Tensor, CallRows], Tensor] | None:
    """How many frames of each window there are, where some reach beyond the clip; ``None`` where none does.

    Args:
        padded: whether padded frames count.
    """
    window = windows.window
    low, high = (window.start, layer._padded_end) if padded else (0, 0)
    if not (((window.end > high or window.short) and ctx.plan.flush) or window.start > low):
        return None

    def counted(y: Tensor, rows: CallRows) -> Tensor:
        places = windows.outputs(rows).unsqueeze(2) + layer._dilation * torch.arange(layer._taps, device=y.device)
        end = (rows.ended(ctx.before) + high).view(-1, 1, 1)
        found = ((places >= -low) & (places < end)).sum(2).clamp(min=1)
        return over_frames(found, y).to(y.dtype)

    return counted
