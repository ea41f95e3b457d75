"""A clip module that runs as an endless stream: how much it differs from the module on each window."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .capture import Captured, fresh, steps_of
from .windows.report import WindowReport

COMPARED = 8  # windows


def of_stream(net: Any, module: nn.Module, captured: Captured) -> tuple[WindowReport, str]:
    """The report of a stream's scores, and a note on them.

    Args:
        net: the streaming network, each of whose outputs is one for the whole clip.
        module: what it was made of.
        captured: the example.
    """
    every, length, first = Fraction(net.timing.stride), captured.steps, net.timing.delay + 1
    report = WindowReport(length, int(every), "stream", 0.0, False, 1.0)
    late = f"the first score comes with step {first}" + (f", {first - length} after a window is full" * (first > length))
    off = _off(net, module, captured, int(every))
    how = (
        "can't be compared with exact windows here"
        if off is None
        else f"differs from exact windows by {off:.0%} of the largest score"
    )
    return report, f"windows='stream': on the example, repeated, it {how}; {late}"


def _off(net: Any, module: nn.Module, captured: Captured, every: int) -> float | None:
    """By how much scores differ at most, relative to the largest."""
    clip = captured.of_length(2 * captured.steps + every)
    with torch.no_grad():
        found = [y for y in tree_leaves(net(*fresh(clip))) if isinstance(y, Tensor)]
        count = found[0].shape[net.output_time_dims[0]] if found else 0
        worst = largest = 0.0
        for j in range(0, count, -(-count // COMPARED)):
            if j * every + captured.steps > steps_of(clip, captured.time_dims):
                break
            own = captured.cut(clip, j * every, captured.steps)
            for y, score, dim in zip(tree_leaves(module(*fresh(own))), found, net.output_time_dims, strict=True):
                score = score.select(dim, j).to(torch.float64)
                if score.shape != y.shape:
                    return None
                worst = max(worst, float((score - y).abs().nan_to_num(0.0).max()))
                largest = max(largest, float(y.abs().nan_to_num(0.0).max()))
    return worst / largest if largest else None
