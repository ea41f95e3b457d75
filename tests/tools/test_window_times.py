"""`co.fastest_windows`: every way to compute windows is tried as a program, and the fastest is a plan."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import continual as co
from continual.tools import window_times
from tests.convert.window_networks import TwoStreams
from tests.convert.windows import Residual, close, made, noise, stacked, windows_of

CLIP = noise(2, 3, 40)


def in_order(*times: float) -> Any:
    """A clock by which the programs take so long, in the order of the plans."""

    def least(calls: Any, seconds: float) -> list[float]:
        for call in calls:
            call()
        return list(times[: len(calls)])

    return least


def test_the_fastest_plan_is_given(monkeypatch):
    monkeypatch.setattr(window_times, "_least", in_order(3.0, 2.0, 1.5))
    module = made(Residual())
    times = co.fastest_windows(module, CLIP, backend="eager", every=2)
    assert [p.stride for p in times.seconds] == [0, 4, 2]
    assert {(p.every, p.length) for p in times.seconds} == {(2, 40)}
    assert times.plan == co.WindowPlan(2, 2, 40)
    assert times.ratio == 2.0
    assert str(times).splitlines()[0] == "WindowPlan(stride=2, every=2, length=40): 1,500,000 µs"
    net, clip = co.continual(module, CLIP, windows=times.plan), noise(2, 3, 51)
    close(net.forward_steps(clip), stacked(windows_of(module, clip, 40, 2)))


def test_all_plans_are_run():
    times = co.fastest_windows(made(Residual()), CLIP, backend="eager", seconds=0.0)
    assert len(times.seconds) == 3
    assert all(0 < t < 60 for t in times.seconds.values())
    assert times.ratio >= 1.0


def test_several_inputs(monkeypatch):
    monkeypatch.setattr(window_times, "_least", in_order(1.0, 2.0, 3.0, 4.0))
    clip = (noise(2, 3, 30), noise(2, 2, 30, seed=5))
    assert co.fastest_windows(made(TwoStreams()), clip, backend="eager").plan.stride == 0


def test_hops_longer_than_the_clip(monkeypatch):
    monkeypatch.setattr(window_times, "_least", in_order(1.0, 2.0, 3.0))
    assert co.fastest_windows(made(Residual()), CLIP, backend="eager", every=57).plan == co.WindowPlan(0, 57, 40)


def test_what_is_refused():
    with pytest.raises(ValueError, match="leave it out"):
        co.fastest_windows(made(Residual()), CLIP, windows="stream")
    with pytest.raises(ValueError, match="is for scores of whole windows"):
        co.fastest_windows(made(torch.nn.Conv1d(3, 4, 3)), CLIP)
