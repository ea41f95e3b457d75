"""What `continual inspect` says of the state of a stream with a clock, and clocks in files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import continual as co
from continual.cli.app import app


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    stream = co.Stream(co.Conv1d(2, 3, 4).eval(), rate=10, gaps="hold", lateness=0.5)
    stream.steps(torch.randn(1, 2, 5), indices=[0, 1, 2, 4, 5])
    state = stream.get_state()
    assert state is not None
    co.save_state(state, tmp_path / "stream.safetensors")
    return tmp_path / "stream.safetensors"


def test_inspect_says_that_there_is_a_clock(saved: Path) -> None:
    found = json.loads(CliRunner().invoke(app, ["inspect", str(saved), "--json"]).stdout)
    assert (found["kind"], found["steps"]) == ("a network's stream and its clock", 3)
    assert "a network's stream and its clock" in CliRunner().invoke(app, ["inspect", str(saved)], env={"COLUMNS": "200"}).stdout


def test_frames_that_wait_are_in_the_file(saved: Path) -> None:
    state = co.load_state(saved, allow_other_weights=True)
    assert isinstance(state, co.StreamState)
    assert (len(state.frames), state.clock) == (3, 3)  # the last one that was taken, and two that wait
    stream = co.Stream(co.Conv1d(2, 3, 4).eval(), rate=10, gaps="hold", lateness=0.5)
    stream.set_state(state)
    found = stream.step(torch.randn(1, 2), index=3)
    assert [out.index for out in found] == [3, 4, 5]
    with pytest.raises(co.StateMismatch, match="set_state takes a state from get_state"):
        co.Conv1d(2, 3, 4).set_state(state)  # type: ignore[arg-type]
