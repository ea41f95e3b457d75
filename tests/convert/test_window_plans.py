"""Plans of exact windows: what decides on a state is data, so that states travel between builds that have measured different times."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph import window_check, window_choice
from tests.convert.windows import Eeg, Residual, Tagger, close, computed_anew, made, noise, stacked, taken_over, windows_of

LENGTH = 40
CLIP = noise(2, 3, LENGTH)
EVERYTHING, ANEW = co.WindowPlan(), co.WindowPlan(stride=0)


def built(module: nn.Module, choice: Any, patch: pytest.MonkeyPatch, **options: Any) -> Any:
    """A build on a machine where one way is the fastest."""
    with patch.context() as here:
        here.setattr(window_check, "fastest", choice)
        return co.continual(module, CLIP, **options)


def measures_nothing(*args: Any) -> Any:
    """A measurement that must not happen."""
    raise AssertionError("with a plan nothing is measured")


def run(net: Any, clip: Tensor) -> list[Tensor]:
    """The scores of all steps."""
    with torch.no_grad():
        found = [net.forward_step(x) for x in clip.unbind(2)]
    return [y for y in found if y is not None]


@pytest.mark.parametrize("choices", [(taken_over, computed_anew), (computed_anew, taken_over)])
def test_builds_that_measured_different_times_exchange_states(choices, tmp_path: Path, monkeypatch):
    module, clip = made(Residual()), noise(2, 3, 70)
    here, there = (built(module, choice, monkeypatch) for choice in choices)
    run(here, clip[:, :, :45])
    state = here.get_state()
    want = run(here, clip[:, :, 45:])
    assert len(want) == 6
    co.save_state(state, tmp_path / "state")
    for given in (state, co.load_state(tmp_path / "state")):
        with pytest.raises(
            co.StateMismatch, match=r"computed in another way: WindowPlan\(stride=.*windows=co\.WindowPlan\("
        ) as caught:
            there.set_state(given)
        assert repr(here.windows.plan) in str(caught.value)
        assert repr(there.windows.plan) in str(caught.value)
    plan = co.WindowPlan(**json.loads(json.dumps(dataclasses.asdict(here.windows.plan))))
    monkeypatch.setattr(window_check, "fastest", measures_nothing)
    again = co.continual(module, CLIP, windows=plan)
    assert again.windows.plan == here.windows.plan
    for given in (state, co.load_state(tmp_path / "state")):
        again.set_state(given)
        for a, b in zip(run(again, clip[:, :, 45:]), want, strict=True):
            assert torch.equal(a, b)


def test_a_snapshot_of_another_plan_leaves_the_stream_as_it_is(monkeypatch):
    module, clip = made(Residual()), noise(2, 3, 60)
    net, other = built(module, taken_over, monkeypatch), built(module, computed_anew, monkeypatch)
    run(net, clip[:, :, :43])
    run(other, clip[:, :, :43])
    with pytest.raises(co.StateMismatch):
        net.set_state(other.get_state())
    close(stacked(run(net, clip[:, :, 43:])), stacked(windows_of(module, clip, LENGTH, 4)[1:]))


def test_the_plan_of_a_network_is_complete():
    module = made(Residual())
    net: Any = co.continual(module, CLIP, windows=EVERYTHING)
    assert net.windows.plan == co.WindowPlan(stride=4, every=4, length=LENGTH)
    assert not net.windows.recomputed
    assert net.windows.ratio is None, "nothing was measured"
    anew: Any = co.continual(module, CLIP, windows=ANEW)
    assert anew.windows.plan == co.WindowPlan(stride=0, every=4, length=LENGTH)
    assert (anew.windows.recomputed, anew.windows.ratio) == (True, 1.0)
    assert anew.windows.reuse == net.windows.reuse > 0
    assert "since the plan says so" in " ".join(anew.notes)
    for a in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert a.windows.plan == net.windows.plan


@pytest.mark.parametrize("stride, kept", [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (99, 4), (None, 4)])
def test_strides_that_mean_the_same_are_one_plan(stride, kept):
    plan = co.WindowPlan(stride, every=2)
    module = made(Residual())
    net: Any = co.continual(module, CLIP, windows=plan)
    assert net.windows.plan == co.WindowPlan(kept, 2, LENGTH)
    clip = noise(2, 3, 51)
    close(net.forward_steps(clip), stacked(windows_of(module, clip, LENGTH, 2)))


def test_a_plan_holds_in_other_dtypes_and_with_one_frame_of_each_window():
    module = made(Tagger())
    net: Any = co.continual(module, CLIP, windows=co.WindowPlan(every=2), output=-1, copy=True)
    assert net.windows.plan == co.WindowPlan(1, 2, LENGTH)
    clip = noise(2, 3, 47)
    want = stacked([y[:, -1] for y in windows_of(module, clip, LENGTH, 2)])
    close(net.forward_steps(clip), want)
    net.clean_state()
    assert (net.float().forward_steps(clip.float()) - want).abs().max() < 1e-5


def test_programs_follow_the_plan():
    module = made(Eeg())
    shape = (2, 1, 5, 128)
    names = []
    for plan in (EVERYTHING, ANEW):
        net = co.continual(module, noise(*shape), time_dim=3, windows=plan)
        program = co.compile(net, noise(*shape)[..., 0], backend="eager")
        names.append([n for n in program.names if "window" in n])
    assert len(names[0]) > len(names[1]) == 1, "the frames alone are kept where windows are computed again"


@pytest.mark.parametrize(
    "given, text",
    [
        ({"windows": co.WindowPlan(every=2), "every": 2}, r"says every: every=2 goes into the plan"),
        ({"windows": co.WindowPlan(length=41)}, r"for windows of 41 frames, and the example has 40"),
        ({"windows": co.WindowPlan(), "time_pooling": "frame"}, "time_pooling"),
    ],
)
def test_plans_that_make_no_sense(given, text):
    with pytest.raises(ValueError, match=text):
        co.continual(made(Residual()), CLIP, **given)


@pytest.mark.parametrize("given", [{"stride": -1}, {"every": 0}, {"length": 2.5}, {"stride": True}])
def test_numbers_of_a_plan(given):
    with pytest.raises(ValueError, match=f"WindowPlan: {next(iter(given))} is a number of frames"):
        co.WindowPlan(**given)


def test_a_plan_for_a_sequence_that_streams():
    with pytest.raises(ValueError, match=r"WindowPlan\(.*is for scores of whole windows"):
        co.continual(made(nn.Conv1d(3, 4, 3, padding=1)), CLIP, windows=EVERYTHING)


@pytest.mark.parametrize(
    "resolution, gpu, clock", [(1e-9, False, "thread_time"), (0.015, False, "perf_counter"), (1e-9, True, "perf_counter")]
)
def test_the_clock_of_measurements(resolution, gpu, clock, monkeypatch):
    info = type("Info", (), {"resolution": resolution})
    monkeypatch.setattr(window_choice.time, "get_clock_info", lambda name: info)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: gpu)
    assert window_choice.clock() is getattr(window_choice.time, clock)


def test_measurements_are_by_the_clock(monkeypatch):
    """Of two runs, the one that its clock says is shorter, whatever the wall clock says."""
    ticks = iter([0.0, 5.0, 5.0, 6.0] * window_choice.LEAST)
    monkeypatch.setattr(window_choice, "ENOUGH", 0.0)
    monkeypatch.setattr(window_choice, "clock", lambda: lambda: next(ticks))
    assert window_choice._least([lambda: None, lambda: None]) == [5.0, 1.0]
