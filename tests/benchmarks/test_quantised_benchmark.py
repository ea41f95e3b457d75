"""`python -m benchmarks.quantised`: what is said of a network's cost in accuracy. Nothing here asserts how fast anything is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import continual as co
from benchmarks import quantised, report
from benchmarks.subjects import recompute, streaming
from tests.long import one_in


def small() -> Any:
    """A subject of two layers."""
    torch.manual_seed(0)
    net = co.Sequential(co.Conv1d(6, 16, 5, stride=2), torch.nn.ReLU(), co.Conv1d(16, 4, 3)).eval()
    clip = torch.randn(1, 6, 33)
    with torch.no_grad():
        return streaming("small", net, net.forward, clip, recompute(net.forward, clip[:, :, :9], clip[:, :, :2]), 0.0, "left out")


@one_in(3)
def test_forms(monkeypatch: pytest.MonkeyPatch):
    """Eight bits cost some accuracy, and less than a fifth; what fails is shown, and the rest is measured."""
    every = quantised.forms

    def forms(files: quantised.Files) -> dict[str, Any]:
        made = every(files)
        made["ours, float32"] = partial(quantised.Opened, lambda: None, 2, files.wanted)  # nothing is compiled here
        made["broken"] = partial(files.onnx, "no such runtime")
        return {n: made[n] for n in ("ours, float32", "onnxruntime, float32", "onnxruntime, static", "broken")}

    monkeypatch.setattr(quantised, "forms", forms)
    ours, exact, static, broken = quantised.measured(small(), 40, 1)
    assert (ours.error, ours.agreement, ours.ratio) == (0, 1, 1)
    assert exact.error < 1e-5
    assert exact.share == 0
    assert 1e-4 < static.error < 0.2
    assert static.share > 0.8
    assert static.seconds > 0
    assert 0.8 < static.agreement <= 1
    assert broken.failed.startswith("KeyError")
    text = quantised.page(report.Machine.here(), {"small": [exact, broken]})
    assert "| small | broken | – |" in text
    assert "- small: broken: KeyError" in text


def test_the_cost_in_accuracy():
    wanted = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # the classes 0 and 1
    form = quantised.Form("x")
    quantised.compared("x", torch.tensor([[[1.0], [2.0]]]), wanted, form)
    assert form.error == pytest.approx(2.0)  # a difference of 2 in one value of two, whose squares add up to 1
    assert form.agreement == 0
    with pytest.raises(ValueError, match="x: 3 outputs where the network has 2"):
        quantised.compared("x", torch.zeros(1, 2, 3), wanted, form)


def test_a_process_that_dies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(
        quantised, "alone", lambda name, rounds: [quantised.Form("all", failed="its process ended with status -6")]
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- int8: begin -->\n<!-- int8: end -->\n")
    assert quantised.main(["--only", "kws", "--markdown", str(page)]) == 1
    assert "- kws_ds_cnn: all: its process ended with status -6" in page.read_text()
