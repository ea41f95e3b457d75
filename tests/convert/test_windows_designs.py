"""Exact windows of networks after well-known designs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import continual as co

from . import window_networks as nets
from .windows import check, close, made, noise, shared, stacked

__all__ = ["shared"]  # a fixture

DESIGNS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any], float]] = {
    "attention in frames, then between them": (nets.SpaceThenTime, (2, 9, 8, 8), {}, 0.3),
    "attention between frames of each patch": (nets.Divided, (11, 4, 6), {"dim": 1}, 0.4),
    "gated dilated convolutions": (nets.Gated, (3, 50), {}, 0.7),
    "attentive statistics": (nets.Statistics, (4, 40), {}, 0.5),
    "layers over time": (nets.Mixer, (3, 24), {}, 0.0),
    "five strides": (nets.Deep, (3, 192), {}, 0.3),
    "five strides, each step": (nets.Deep, (3, 192), {"every": 1}, 0.5),
    "down, up and across": (nets.Ladder, (3, 32), {"every": 1}, 0.3),
    "spectra": (nets.Spectra, (160,), {"dim": 1}, 0.3),
    "parts of the clip": (nets.Pyramid, (3, 32), {"every": 1}, 0.7),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_scores_are_the_modules_own(name, shared):
    module, shape, options, least = DESIGNS[name]
    assert check(module(), shape, **options).windows.reuse >= least


def test_two_streams(shared):
    module = made(nets.TwoStreams())
    net = co.continual(module, (noise(2, 3, 30), noise(2, 2, 30, seed=5)))
    x, y = noise(3, 3, 63, seed=6), noise(3, 2, 63, seed=7)
    want = stacked([module(x[:, :, i : i + 30], y[:, :, i : i + 30]) for i in range(0, 34, net.windows.every)])
    close(net.forward_steps(x, y), want)
    assert net.windows.reuse > 0.7


def test_time_before_rows(shared):
    module = made(nets.TimeFirst())
    net = co.continual(module, noise(12, 2, 5), time_dim=0)
    clip = noise(30, 3, 5, seed=6)
    with torch.no_grad():
        steps = [net.forward_step(clip[t]) for t in range(30)]
        want = [module(clip[i : i + 12]) for i in range(19)]
    close(stacked([s for s in steps if s is not None]), stacked(want))
