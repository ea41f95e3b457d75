"""The suite: what it measures is checked first, rows that are there are kept, and the page says who is ahead."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import continual as co
from benchmarks import growth, limits, memory, start, suite, suite_plot, suite_report, suite_rows
from benchmarks.measure import Effort, WrongResult
from benchmarks.timing import Local, alternate, conditions
from benchmarks.workloads import WORKLOADS
from tests.long import one_in

SMALL = next(w for w in WORKLOADS if w.name == "Conv1d 64→64 k3")
PAGE = "<!-- suite: begin -->\n<!-- suite: end -->\n<!-- growth: begin -->\n<!-- growth: end -->\n"


@pytest.fixture(autouse=True)
def _import_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "import_seconds", lambda: 0.021)  # processes of their own, for seconds


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "performance.md"
    path.write_text(PAGE)
    return path


@one_in(3)
def test_the_command(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    kept = tmp_path / "suite.json"
    monkeypatch.setattr(suite_rows, "LATENCY_SECONDS", 0.01)
    options = ["--threads", "1", "--quick", "--no-other", "--without", "compiled", "--without", "openvino"]
    assert suite_rows.main([SMALL.name, *options, "--files", str(tmp_path), "--rows", str(kept)]) == 0
    assert [p.suffix for p in tmp_path.iterdir()].count(".onnx") == 1
    arguments = ["--only", SMALL.name, *options, "--resume", str(kept)]
    assert suite.main([*arguments, "--markdown", str(page)]) == 0
    text = page.read_text()
    assert f"| {SMALL.name} |" in text
    assert "### 1 thread" in text
    assert "Our best step is ahead" in text
    assert f"- {SMALL.name}: compiled: left out" in text
    assert (tmp_path / "performance.png").stat().st_size > 5000
    row = json.loads(kept.read_text())[0]
    assert set(row["times"]) == {"step", "window", "onnxruntime", "chunk"}
    assert set(row["late"]) == {"step", "window"}
    assert row["best"] == "step"
    assert row["ratios"]["step"] == 1
    assert (row["state"], row["least"]) == (512, 512)
    assert row["operations"] == pytest.approx(1)  # of one layer a step saves no arithmetic
    assert row["limit"]["operations"] == 64 * 64 * 3
    assert row["peak"] >= 64 * 4
    row["times"]["step"] = 12.5  # a row that is there is not measured again
    kept.write_text(json.dumps([row]))
    assert suite.main(arguments) == 0
    assert json.loads(kept.read_text())[0]["times"]["step"] == 12.5
    assert "**12500000**" in capsys.readouterr().out


def test_rows_that_do_not_exist():
    with pytest.raises(SystemExit):
        suite.main(["--only", "no such row"])


def test_every_workload_of_the_issue_is_there():
    names = list(suite_rows.subjects())
    zoo = ("kws_ds_cnn", "cox3d_s", "cox3d_m", "coslow", "cost_gcn", "cost_gcn_star", "cooadtr_b1", "cooadtr_b2")
    layers = (
        "Conv3d 64→64 k3, 56²",
        "LSTM",
        "GRU",
        "10 × Conv1d",
        "10 × Conv3d",
        "dilations 1…128",
        "causal encoder of 8",
        "U-Net",
        "EEGNet",
        "Deep4Net",
        "raw audio",
    )
    for part in (*zoo, *layers, "r3d_18"):
        assert any(part in name for name in names), part


def test_a_row_that_fails_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken() -> Any:
        raise WrongResult("forward_step: differs")

    monkeypatch.setattr(suite_rows, "subjects", lambda: {"broken": broken})
    kept = tmp_path / "rows.json"
    assert suite_rows.main(["broken", "--quick", "--no-other", "--files", str(tmp_path), "--rows", str(kept)]) == 1
    assert suite.main(["--threads", "1", "--no-other", "--resume", str(kept), "--markdown", str(page)]) == 1
    assert "| broken | wrong result: forward_step: differs |" in page.read_text()


def test_rows_have_processes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that dies twice is a row that fails, and the others go on; what runs without OpenVINO is a row that says so."""
    commands = []

    def run(command: list[str], **options: Any) -> Any:
        name, without = command[3], "--without=openvino" in command
        assert "--no-other" in command
        assert command[command.index("--rounds") + 1] == "5"
        if "--prepare" in command:
            return subprocess.CompletedProcess(command, 0)
        commands.append((name, without))
        good = name == "good" or (name == "with OpenVINO" and without)
        if good:
            suite.keep(Path(command[command.index("--rows") + 1]), [suite.Row(name, n) for n in (1, 2)])
        return subprocess.CompletedProcess(command, 0 if good else -9)

    names = ["never", "with OpenVINO", "good"]
    monkeypatch.setattr(suite_rows, "peaks", lambda files, threads: None)
    monkeypatch.setattr(suite.subprocess, "run", run)
    rows = suite.run(suite.parser().parse_args(["--no-other", "--rounds", "5"]), names)
    assert [(r.name, r.threads, r.error) for r in rows] == [
        (name, threads, "its process ended with status -9" if name == "never" else "") for threads in (1, 2) for name in names
    ]
    without = "its process ended with status -9, and not without it"
    assert [r.missing.get("openvino") for r in rows] == [None, without, None] * 2
    assert commands == [("never", False), ("never", True), ("with OpenVINO", False), ("with OpenVINO", True), ("good", False)]


def test_slow_rounds_are_fewer():
    calls = []
    slow = Local("slow", lambda: (calls.append(1), time.sleep(0.004)))
    assert len(alternate([slow], 50, 0.001, 0.03).rounds["slow"]) < 10
    assert len(alternate([slow], 5, 0.001).rounds["slow"]) == 5
    assert len(alternate([slow], 9, 0.001, 0.0).rounds["slow"]) == 3


def row(**ratios: float) -> suite.Row:
    made = suite.Row("net", 1, times=dict.fromkeys(("step", *ratios), 1e-5), ratios={"step": 1.0} | ratios, best="step")
    made.limit = asdict(limits.Limit(5e-6, "memory", 100, 1000))
    made.late = dict.fromkeys(made.times, 2e-5)
    made.operations = 4.0
    return made


def test_the_page_says_who_is_ahead():
    rows = [row(window=2.0, onnxruntime=0.9), row(window=3.0, other=1.5)]
    assert [r.behind for r in rows] == [["onnxruntime"], []]
    machine = suite.report.Machine("today", "a processor", "2.13", "3.11")
    text = suite_report.markdown(machine, rows, 0.021)
    assert "`import continual` takes 21 ms beyond" in text
    assert "ahead of all others in 1 of 2 rows; not in: net (onnxruntime)." in text
    assert "| net | 1 | 5.00 | memory | 2.00× | 4.00× | 50 % |" in text


def test_the_picture_is_drawn_again_from_the_page(tmp_path: Path):
    """The same ratios from the table that a run writes as from the run, and from the page in the docs those that it shows."""
    rows = [row(window=2.0, onnxruntime=0.9), row(window=3.0, other=1.5), suite.Row("gone", 1, error="no memory")]
    machine = suite.report.Machine("today", "a processor", "2.13", "3.11")
    assert suite_plot.recorded(suite_report.markdown(machine, rows, 0.021)) == suite_report.ratios(rows)
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    threads, found = suite_plot.recorded(page)
    assert threads == 1
    assert len(found) > 25
    assert all(f"| {r.name} |" in page for r in found)
    axes = suite_plot.plot(found, threads, tmp_path / "performance.png").axes[0]
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]  # from below 1 where a peer is ahead
    assert ticks[ticks.index("1×") :][:4] == ["1×", "2×", "5×", "10×"]
    assert [text.get_text().strip() for text in axes.texts] == ["slower", "faster"]
    with pytest.raises(ValueError, match="no table"):
        suite_plot.recorded("# Performance\n")


# ---- the machine -------------------------------------------------------------------------------------------------------------


def test_limits(monkeypatch: pytest.MonkeyPatch):
    net = co.Sequential(co.Conv1d(8, 8, 3, dilation=10), co.Conv1d(8, 8, 3)).eval()
    frame = torch.randn(1, 8)
    assert limits.state_read(net, frame) == 4 * 8 * (2 + 2)  # of 20 frames that wait the step reads two
    assert limits.weights_of(net) == 4 * 2 * (8 * 8 * 3 + 8)
    assert limits.state_written(net, frame) == 4 * 8 * (1 + 1)  # the frame that comes to each
    assert limits.passed(net, frame) == 4 * 8 * 2
    monkeypatch.setattr(limits, "PEAKS", {1: 1e6})
    for copying, bound, seconds in ((1e-2, "memory", 1e-2), (1e-9, "compute", 2 * 2 * 8 * 8 * 3 / 1e6)):
        monkeypatch.setattr(limits, "copy_time", lambda nbytes, threads, copying=copying: copying)
        found = limits.Limit.of(net, frame, 1)
        assert (found.bound, found.seconds) == (bound, pytest.approx(seconds))
        assert found.operations == 2 * 8 * 8 * 3
        assert found.nbytes == 4 * (8 * (2 + 2) + 2 * (8 * 8 * 3 + 8) + 8 * 2 + 8 * 2)
        assert limits.Limit.of(net, torch.randn(5, 8), 1).operations == 5 * found.operations  # of five streams
        if bound == "memory":  # what is at a lower rate is read once in a period
            assert limits.Limit.of(net, frame, 1, period=4).seconds == pytest.approx(seconds / 4)


def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "PEAKS", {})
    with conditions(1), torch.inference_mode(False), torch.no_grad():
        assert 1e8 < limits.gemm_peak(1) < 1e15
        assert 0 < limits.copy_time(1 << 20, 1) < 1


@one_in(3)
def test_import_time():
    assert 0 < start.import_seconds(1) < 10


def test_peak_memory_of_a_call():
    held = []

    def call() -> None:
        first = torch.empty(1000)
        second = torch.empty(2000)
        del first
        held.append(second + 1)

    assert 4 * 4000 <= memory.peak_of(call) <= 4 * 4000 + 512


def test_growth(page: Path):
    assert growth.main(["--only", "receptive", "--quick", "--markdown", str(page)]) == 0
    text = page.read_text()
    assert "**receptive field**, µs a step" in text
    assert "| dense, window |" in text
    assert page.with_name("growth.png").stat().st_size > 5000


@pytest.mark.parametrize("name", ["channels", "rows", "streams", "steps"])
def test_panels(name: str):
    with conditions(1):
        panel = growth.PANELS[name](Effort(1, 0.0005), True)
    assert all(len(c.points) == len(panel.curves[0].points) > 1 for c in panel.curves)
    assert all(y > 0 for c in panel.curves for _, y in c.points)
