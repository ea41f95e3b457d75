"""Modules that take a clip in segments as long as the example, each by itself: temporal shifts with a fixed ``n_segment``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .capture import Captured, rates_of

SAME = 1e-4  # of two outputs, relative to the largest value


def across_segments(net: Callable[..., Any], run: Callable[[Sequence[Tensor]], Any], captured: Captured) -> float | None:
    """The difference to the module of a network whose frames depend on other segments, relative to the largest value.

    Args:
        net: the converted network.
        run: the module.
        captured: the export, of one segment.

    Returns:
        The difference on two segments; ``None`` if there is none, or if the module does not compute segments alone.
    """
    steps = captured.steps
    clip = captured.of_length(2 * steps)
    halves = [_part(clip, captured, k * steps, steps) for k in range(2)]
    with torch.no_grad():
        try:
            whole, (first, second) = _tensors(run(clip)), [_tensors(run(half)) for half in halves]
            got = _tensors(net(*clip))
        except Exception:  # not a length of the module, or of the network
            return None
    off = 0.0
    for y, own, a, b in zip(got, whole, first, second, strict=True):
        grown = [d for d in range(min(own.ndim, a.ndim)) if own.shape[d] == 2 * a.shape[d]]
        if not grown or y.shape != own.shape or _off(torch.cat((a, b), grown[0]), own) > SAME:
            return None
        off = max(off, _off(y, own))
    return off if off > SAME else None  # they differ elsewhere


def _part(clip: Sequence[Tensor], captured: Captured, start: int, steps: int) -> tuple[Tensor, ...]:
    rates = rates_of(captured.inputs, captured.time_dims)
    return tuple(
        x if t is None else x.narrow(t, start * rate, steps * rate)
        for x, t, rate in zip(clip, captured.time_dims, rates, strict=True)
    )


def _tensors(y: Any) -> list[Tensor]:
    return [t for t in tree_leaves(y) if isinstance(t, Tensor) and t.is_floating_point()]


def _off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) / max(1e-12, float(b.abs().max())) if a.shape == b.shape else 1.0
