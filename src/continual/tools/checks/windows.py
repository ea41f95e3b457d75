"""Point 1, for modules that score windows of a clip: each score is the module's own of its window."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from ...convert.graph.windows.report import WindowReport
from ...core.state import Wire, rewire
from .compare import flat, largest_error, mismatch
from .contract_run import Broken, ContractRun, Skipped, contract
from .wires import cut, frames_in, lengthened

MOST = 48  # windows that are compared
BAD = (float("nan"), 1e30)
LEAST = 1e-6  # by how much a score changes with a frame, relative to the largest


def scores_windows(net: Any) -> bool:
    """Whether a network has one output for a window of a clip; the check is for these alone."""
    return isinstance(getattr(net, "windows", None), WindowReport)


@contract(1, "windows")
def windows(t: ContractRun) -> str:
    """Scores of a long stream, in all phases; nothing from before a window shows, and a frame inside changes the score."""
    report = t.net.windows
    if report.mode == "stream":
        said = [n for n in getattr(t.net, "notes", ()) if "exact windows" in n]
        raise Skipped(f"by choice no exact windows: {said[-1] if said else 'a stream'}")
    if not t.floating:
        raise Skipped("integer input")
    length, every = report.length, report.every
    steps = 2 * length + max(every, 8) + 1
    if not t.affords(steps):
        raise Skipped(f"{steps} steps take more than memory holds")
    truth = t.reference or t.net.forward
    x = lengthened(t.alone, steps, t.generator)
    score = _scorer(t, truth)
    scores = t.play([("step", 1)] * steps, x).outputs
    count = (steps - length) // every + 1
    if frames_in(scores) != count:
        raise Broken(f"a stream of {steps} steps has {count} windows of {length}, and gave {frames_in(scores)} scores")
    picked = sorted({*range(min(count, 8)), *range(0, count, -(-count // MOST)), count - 1})
    want = [score(cut(x, j * every, j * every + length)) for j in picked]
    tolerance = _tolerance(t, cut(x, 0, length), want[0])
    worst = 0.0
    for j, y in zip(picked, want, strict=True):
        got = cut(cast(Wire, scores), j, j + 1)
        if found := mismatch(got, y, tolerance):
            raise Broken(f"the score of the window from step {j * every} on differs from the reference on that window: {found}")
        worst = max(worst, largest_error(got, y))
    _nothing_before(t, x, want[0], tolerance, length, every)
    moved = _sensitive(score, cut(x, 0, length), want[0])
    return f"{len(picked)} of {count} windows, off by {worst:.0e}; a frame changes them by {moved:.0e}"


def _scorer(t: ContractRun, truth: Any) -> Callable[[Wire], Wire]:
    """The reference's score of a window, as steps give it."""

    def score(window: Wire) -> Wire:
        y = t.canonical(t.computed(truth, rewire(torch.clone, window)))
        return rewire(lambda v: v if v.ndim == t.own_ndim else v.unsqueeze(2), y)

    return score


def _tolerance(t: ContractRun, window: Wire, score: Wire) -> float:
    """That of all checks; in single precision at least a few times what the module's own rounding is."""
    if flat(window)[0].dtype != torch.float32 or not isinstance(t.reference, nn.Module):
        return max(t.tolerance, 1e-10)
    double = copy.deepcopy(t.reference).double()
    wide = t.canonical(t.computed(double, rewire(torch.Tensor.double, window)))
    wide = rewire(lambda v: v if v.ndim == t.own_ndim else v.unsqueeze(2), wide)
    return max(t.tolerance, 8 * largest_error(score, rewire(torch.Tensor.float, wide)))


def _nothing_before(t: ContractRun, x: Wire, want: Wire, tolerance: float, length: int, every: int) -> None:
    """NaN and huge values before a window leave no trace."""
    behind = -(-length // every) * every
    for bad in [b for b in BAD if t.takes_nan or b == b]:
        before = rewire(lambda v, bad=bad: torch.full_like(v[:, :, :behind], bad), x)
        before = cut(before, 0, min(behind, frames_in(before)))
        short = frames_in(before)
        t.play([("chunk", short)], before)
        run = t.feed_on([("step", 1)] * length, cut(x, 0, length))
        if short != behind or run.outputs is None:
            continue
        got = cut(run.outputs, frames_in(run.outputs) - 1, frames_in(run.outputs))
        if found := mismatch(got, want, tolerance):
            raise Broken(f"frames of {bad} before a window still show in its score: {found}")


def _sensitive(score: Callable[[Wire], Wire], window: Wire, want: Wire) -> float:
    """By how much another frame moves a score: one in the middle, the last, or all of them."""
    moved, length = 0.0, frames_in(window)
    for places in (slice(length // 2, length // 2 + 1), slice(length - 1, length), slice(None)):
        other = rewire(torch.clone, window)
        for v in flat(other):
            v[:, :, places] = 1 - 3 * v[:, :, places]
        moved = max(moved, largest_error(score(other), want))
        if moved >= LEAST:
            return moved
    raise Broken(
        f"other frames of a window change its score by {moved:.0e} alone: equal scores say nothing then. Give a clip that the module "
        "reacts to"
    )
