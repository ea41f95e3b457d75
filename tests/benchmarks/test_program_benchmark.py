"""`python -m benchmarks.programs`: its candidates compute the same, and its tables hold them. Nothing here asserts how fast anything is."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from benchmarks import programs
from benchmarks.measure import Effort
from benchmarks.other_library import CantRun
from benchmarks.timing import conditions
from tests.long import LONG

compiler = pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")


@pytest.mark.parametrize("dilated", [True, False])
def test_the_step_written_by_hand_is_the_network(dilated: bool):
    net, dilations = programs.tcn(dilated), programs.blocks(dilated)
    step, clip = programs.Step(net, dilations).eval(), torch.randn(1, programs.CHANNELS, 12)
    states = [torch.zeros(1, programs.CHANNELS, 2 * d) for d in dilations]
    found = []
    with torch.no_grad():
        for t in range(12):
            y, *states = step(clip[:, :, t : t + 1], *states)
            found.append(y)
        programs.close(torch.cat(found, 2), net(clip), "the step")


def test_what_computes_something_else_is_not_timed():
    with pytest.raises(ArithmeticError, match="other differs"):
        programs.close(torch.ones(3), torch.tensor([1.0, 1.0, 1.1]), "other")
    with pytest.raises(ArithmeticError):
        programs.close(torch.full((3,), torch.nan), torch.ones(3), "other")


@LONG
@compiler
def test_a_row_has_every_candidate(monkeypatch: Any):
    def absent(*given: Any) -> Any:
        raise CantRun("not here")

    monkeypatch.setattr(programs, "other_step", absent)
    monkeypatch.setattr(programs, "onnx_step", absent)
    monkeypatch.setattr(programs, "BLOCKS", 2)
    with conditions(1):
        row = programs.measure(False, 1, Effort(2, 1e-5))
    assert row.missing == {"onnxruntime": "not here", "other library": "not here"}
    assert set(row.times) == set(row.ratios) == {"aot", "inductor", "eager", "window", "limit"}
    assert row.ratios["aot"] == 1
    assert all(t > 0 for t in row.times.values())
    table = programs.tables([row], {"TCN": [(2.0, 1.0), (6.0, 2.0)]})
    assert "| TCN, no dilation | 1 |" in table
    assert "not here" in table
    assert "| TCN, growth | 1.00× | 3.00× |" in table


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        programs.main(["--only", "nothing"])
    assert "no row matches 'nothing'; there are: tcn dilated" in capsys.readouterr().err
