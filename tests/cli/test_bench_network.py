"""`continual bench`: any network, measured, as a table, as JSON and as a picture; one line for what can't be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import continual as co
from continual.cli.app import app

QUICK = ("--seconds", 0.01, "--form", "eager", "--form", "window")
MODULE = """\
from torch import nn

def build(width: int = 4):
    return nn.Sequential(nn.Conv1d(3, width, 5, padding=2), nn.BatchNorm1d(width), nn.ReLU()).eval()
"""


def invoke(*args: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, args)], env={"COLUMNS": "200", "TERM": "xterm"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MODULE)
    return path


def test_a_network_of_ones_own(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.png"
    result = invoke(f"{file}:build", "--clip", "2,3,40", "--arg", "width=6", "--rate", 100, *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Sequential, steps (2, 3), 1 thread on ")
    assert lines[0].endswith("delay 2 (20 ms)")
    assert [line.split()[0] for line in lines[2:4]] == ["eager", "window"]
    assert "streams a core" in lines[1]
    assert out.stat().st_size > 5000


def test_the_zoo_as_json() -> None:
    result = invoke("kws_ds_cnn", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["network"] == "kws_ds_cnn"
    assert found["rate"] == co.models.describe("kws_ds_cnn").rate
    assert [form["name"] for form in found["forms"]] == ["eager", "window"]


def test_an_exported_file(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    net = co.Sequential(co.Conv1d(3, 4, 5)).eval()
    path = co.export(net, torch.zeros(1, 3), tmp_path / "net.onnx", rate=25)
    result = invoke(path, "--seconds", 0.01, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["rate"], found["forms"][0]["name"]) == (25, "file (onnx)")


@pytest.mark.parametrize(
    "args, said",
    [
        (("kws_ds_cnn", "--form", "fast"), "--form fast: give eager, fused"),
        (("kws_ds_cnn", "--out", "bench.txt"), "can't save as 'bench.txt'"),
        (("kws_ds_cnn", "--rate", "0"), "--rate 0.0: give steps per second"),
        (("kws_ds_cnn", "--clip", "1,2,3"), "is for networks of your own"),
        (("no_such_network",), "no_such_network"),
        (("missing.onnx",), "there is no file 'missing.onnx'"),
    ],
)
def test_one_line_for_what_cannot_be_used(args: tuple[str, ...], said: str) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
