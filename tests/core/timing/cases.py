"""Compositions of timings, each with the torch operations whose timing it is said to be. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from continual.core.resampling import Interpolation, Upsampling
from continual.core.timing import Crop, Timing, Window
from continual.core.timing_graph import aligned

Op = Callable[[Tensor], Tensor]  # (1, 1, T) to (1, 1, T'); raises RuntimeError for a clip that is too short
Case = tuple[Timing, Op]


# ---- the same thing twice: a timing, and torch operations ------------------------------------------------------------


def _at_least(x: Tensor, frames: int = 1) -> Tensor:
    if x.shape[2] < frames:
        raise RuntimeError("too short")
    return x


def window(r: int, s: int = 1, start: int = 0, end: int = 0) -> Case:
    ones = torch.ones(1, 1, r, dtype=torch.float64)
    # The 0.37 tells a frame from padding, also where all that it sees is padding.
    return Window(r, s, start, end), lambda x: F.conv1d(F.pad(_at_least(x), (start, end)), ones, stride=s) + 0.37


def reflect(r: int, start: int, end: int) -> Case:
    ones = torch.ones(1, 1, r, dtype=torch.float64)
    timing = Window(r, 1, start, end, wait=start + 1 if start else 0, least=max(start, end) + 1)
    return timing, lambda x: F.conv1d(F.pad(_at_least(x, max(start, end) + 1), (start, end), "reflect"), ones)


def crop(first: int, last: int) -> Case:
    return Crop(first, last), lambda x: _at_least(x, first + last + 1)[:, :, first : x.shape[2] - last]


def _uneven(y: Tensor) -> Tensor:
    """All frames differ, also those that repeat an input: an interpolation between equal frames would not show that both are there."""
    return y * (1 + torch.arange(y.shape[2], dtype=torch.float64) / 1000)


def upsampling(u: int, extent: int, p: int, out: int) -> Case:
    ones = torch.ones(1, 1, extent, dtype=torch.float64)

    def op(x: Tensor) -> Tensor:
        return _at_least(_uneven(F.conv_transpose1d(_at_least(x), ones, stride=u, padding=p, output_padding=out)) + 0.37)

    return Upsampling(u, extent, p, out), op


def interpolation(factor: Fraction, kind: str) -> Case:
    mode = {"linear": "linear", "cubic": "bicubic"}.get(kind, kind)

    def op(x: Tensor) -> Tensor:
        basis = torch.eye(_at_least(x).shape[2], dtype=torch.float64).unsqueeze(1)
        scale: list[float] = [float(factor)]
        if kind == "cubic":
            weights = F.interpolate(basis.unsqueeze(3), scale_factor=[*scale, 1.0], mode=mode).squeeze(3)
        else:
            weights = F.interpolate(basis, scale_factor=scale, mode=mode)
        # On an input its neighbours are seen too: the output just before waits for the second one. The mark stands for what is there.
        if kind == "cubic" and factor > 1:
            inputs, outputs = (torch.arange(n, dtype=x.dtype) for n in (x.shape[2], weights.shape[2]))
            near = (inputs.view(-1, 1, 1) - (outputs + 0.5) / float(factor) + 0.5).abs() < 1 + 1e-9
            weights = torch.where(near & (weights.abs() < 1e-9), 0.01, weights)
        # What has no weight is not seen: torch multiplies it by zero, which NaN survives.
        y = torch.where(weights.abs() < 1e-9, 0, weights * x.transpose(0, 2)).sum(0, keepdim=True)
        return _uneven(y) + 0.37

    return Interpolation(factor, kind), op


def sequence(*cases: Case) -> Case:
    def op(x: Tensor) -> Tensor:
        for _, fn in cases:
            x = fn(x)
        return x

    return Timing.sequence(*(t for t, _ in cases)), op


def parallel(*cases: Case) -> Case:
    def op(x: Tensor) -> Tensor:
        outs = [fn(x) for _, fn in cases]
        shortest = min(y.shape[2] for y in outs)
        return sum(y[:, :, :shortest] for y in outs)

    return aligned(*(t for t, _ in cases)), op


small = st.integers(0, 3)
windows = st.builds(window, st.integers(1, 4), st.sampled_from((1, 1, 1, 2, 3)), small, small)
ordinary = st.tuples(st.integers(1, 4), st.sampled_from((1, 1, 2, 3)), small, small).map(
    lambda w: window(w[0], w[1], min(w[2], w[0] - 1), w[3])
)
crops = st.builds(crop, small, small)
causal_counts = st.one_of(st.builds(window, st.integers(1, 4), st.just(1), small, small), crops)
reflections = st.tuples(st.integers(1, 4), small, small).map(lambda w: reflect(w[0], w[1], w[2]))


@st.composite
def transposed(draw: Any) -> Case:
    u = draw(st.integers(1, 3))
    extent = draw(st.integers(u, u + 3))  # below u, outputs between the taps see no input at all
    return upsampling(u, extent, draw(st.integers(0, (extent - 1) // 2)), draw(st.integers(0, u - 1)))


interpolations = st.builds(
    interpolation,
    st.sampled_from([Fraction(f) for f in (2, 3, 4, "3/2", "5/2", "1/2", "1/3", "2/3", "3/4", "5/3")]),
    st.sampled_from(("nearest", "nearest-exact", "linear", "cubic")),
)


@st.composite
def branches(draw: Any, inner: st.SearchStrategy[Case] = causal_counts, wide: bool = True) -> list[Case]:
    """Branches of equal stride, of any delays and lengths."""
    stride = draw(st.integers(1, 3))

    def one() -> Case:
        extent = draw(st.integers(1, 4))
        core = window(extent, stride, draw(small if wide else st.integers(0, extent - 1)), draw(small))
        return sequence(*draw(st.lists(inner, max_size=1)), core, *draw(st.lists(inner, max_size=2)))

    return [one() for _ in range(draw(st.integers(2, 3)))]


parallels = branches().map(lambda found: parallel(*found))
rates = st.one_of(transposed(), interpolations)
parts = st.one_of(windows, windows, crops, parallels, rates)
compositions = st.lists(parts, min_size=1, max_size=4).map(lambda found: sequence(*found))
plain_compositions = st.lists(
    st.one_of(ordinary, crops, branches(crops, wide=False).map(lambda b: parallel(*b))), min_size=1, max_size=4
)


def length_of(op: Op, total: int) -> int:
    """The number of outputs of a clip; 0 where torch raises."""
    try:
        return op(torch.zeros(1, 1, total, dtype=torch.float64)).shape[2]
    except RuntimeError:
        return 0


def due(op: Op, n: int, total: int, lengths: list[int]) -> int:
    """Leading outputs on which nothing after ``n`` inputs has an effect: neither a frame, nor that there is none."""
    clip = torch.linspace(1, 2, total, dtype=torch.float64).cos().view(1, 1, -1)
    clip[:, :, n:] = float("nan")
    count = min(lengths[n : total + 1])
    futures = [op(clip[:, :, :end])[0, 0, :count] for end in (n, n + 1, n + 2, n + 5, total)] if count else []
    for y in futures:
        known = torch.isclose(y, futures[0], 1e-9, 1e-9)
        count = min(count, int(known.long().cumprod(0).sum()))
    return count
