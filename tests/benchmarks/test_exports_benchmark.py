"""The benchmark of exported networks: its table, and its refusals."""

from __future__ import annotations

import pytest

from benchmarks import exports
from tests.export.artefacts import network, unwritten
from tests.export.networks import NETWORKS


def test_the_table_says_what_was_measured_and_what_failed():
    cell = {"off": 3e-7, "step": 120.4, "eager": 180.0, "ratio": 1.5}
    found = {"demo": {"onnx": cell | {"compiled": 40.0}, "pt2": {"failed": "no compiler"}}}
    line = next(text for text in exports.table(found, ["onnx", "pt2", "openvino"]).splitlines() if text.startswith("| demo"))
    assert line == "| demo | 180 | 40 | 3e-07, 120 µs (1.5×) | **no compiler** | **not run** |"


def test_a_difference_is_found():
    net, case = network("unet"), NETWORKS["unet"]
    runner = unwritten(net, case.step())
    assert exports.difference(net, runner, case.clip(48)) < 1e-5
    with pytest.raises(ArithmeticError, match="outputs instead of"):  # the stream goes on from the clip before
        exports.difference(net, runner, case.clip(48))


def test_unknown_networks(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        exports.main(["--only", "nothing"])
    assert "no network matches 'nothing'; there are: demo, resnet stage" in capsys.readouterr().err
