"""`python -m benchmarks.gpu` from end to end on a CPU; what is special to CUDA is not tested here. Nothing asserts how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.measure import WrongResult
from tests.long import one_in


@one_in(4)
def test_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(gpu, "CALL_SECONDS", 0.01)
    monkeypatch.setattr(gpu, "TINY_ROWS", (1, 3))
    monkeypatch.setattr(gpu, "FORMS", ("eager", "cudagraph", "recomputed"))
    files = tmp_path / "gpu.json", tmp_path / "gpu.md"
    assert gpu.main(["--device", "cpu", "--tiny", "--json", str(files[0]), "--markdown", str(files[1])]) == 0
    rows = json.loads(files[0].read_text())
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        assert row["missing"] == ("there is no CUDA device" if row["form"] == "cudagraph" else "")
        assert (row["seconds"] > 0) == (row["form"] != "cudagraph")
    assert "| cox3d_s | 3 | recomputed |" in files[1].read_text()
    assert "s to the deadline" in capsys.readouterr().err


@one_in(4)
def test_compiled_steps_are_checked_and_timed(monkeypatch: pytest.MonkeyPatch):
    """Programs of any backend: here one that compiles nothing."""
    network = gpu.networks(torch.device("cpu"), True)[0]()
    compile, backends = gpu.co.compile, []

    def eager(net: Any, frame: Any, backend: str) -> Any:
        backends.append(backend)
        return compile(net, frame, backend="eager")

    monkeypatch.setattr(gpu.co, "compile", eager)
    row = gpu.measured(network, 3, "inductor", torch.device("cpu"))
    assert (row.missing, backends) == ("", ["inductor"])
    assert row.seconds > 0


def test_what_differs_is_not_timed():
    with pytest.raises(WrongResult, match="a form: differs from the clip network by 1.0e"):
        gpu.checked("a form", torch.ones(2, 3), torch.zeros(2, 3))


def test_nothing_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "networks", lambda device, tiny: [lambda: gpu.Network("a", None, torch.nn.Identity(), (1,), 1)])
    rows = gpu.run(torch.device("cpu"), True, 0.0, lambda text: None)
    assert {r.missing for r in rows} == {"the time was up"}
    assert "| a | 1 | aot | – |" in gpu.table(rows, "here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str]):
    assert gpu.main([]) == 0
    assert "left out" in capsys.readouterr().out
