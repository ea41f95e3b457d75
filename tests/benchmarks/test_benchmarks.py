"""The benchmark suite: its runner, its workloads and checks, its page. Nothing here asserts how fast anything is."""

import json
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import continual as co
from benchmarks import bursts, memory, report, timing
from benchmarks.__main__ import main
from benchmarks.bursts import Burst
from benchmarks.measure import CHUNK, Effort, Rival, Row, WrongResult, check, measure, require_equal
from benchmarks.other_library import CantRun, OtherLibrary, brief
from benchmarks.timing import Local, Stats, Timings, alternate, calibrate, conditions
from benchmarks.workloads import KINDS, WORKLOADS, Layer, Workload, _unet, choose
from tests.long import one_in

SMALL = Workload("small", (Layer("Conv1d", (4, 4, 3)),), (1, 4), "dense")
SHORT = Effort(rounds=2, min_block=1e-5)
TREE = {"PYTHONPATH": str(Path(co.__file__).parents[1])}  # where the worker finds our package


# ---- the runner --------------------------------------------------------------------------------------------------------


def test_runner_finds_a_known_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]  # the clock: calls set it forward

    def takes(seconds: float) -> Callable[[], None]:
        return lambda: operator.setitem(now, 0, now[0] + seconds)

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    timings = alternate([Local("short", takes(0.005)), Local("long", takes(0.02))], rounds=9, min_block=0.001)
    assert timings.ratio("long", "short").median == pytest.approx(4)
    assert timings.stats("short").median == pytest.approx(0.005)
    assert timings.fastest(["long", "short"]) == "short"


class Scripted:
    """A candidate whose calls take what it is told, and which notes when it was called."""

    def __init__(self, name: str, seconds: float, log: list[str]):
        self.name, self.seconds, self.log = name, seconds, log

    def block(self, count: int) -> float:
        self.log.append(self.name)
        return self.seconds * count


def test_runner_alternates_and_fills_blocks() -> None:
    log: list[str] = []
    a, b = Scripted("a", 1e-4, log), Scripted("b", 2e-4, log)
    assert 0.02 <= calibrate(a, 0.02) * 1e-4 < 0.04
    assert calibrate(Scripted("slow", 1.0, log), 0.02) == 1
    assert calibrate(Scripted("instant", 0.0, log), 0.0) == 1
    log.clear()
    timings = alternate([a, b], rounds=3, min_block=1e-5)
    assert "".join(log[-6:]) == "abbaab"
    assert timings.ratio("b", "a").median == pytest.approx(2)
    with pytest.raises(ValueError, match="different names"):
        alternate([a, Scripted("a", 1, log)], rounds=1)


def test_ratio_is_taken_within_a_round() -> None:
    # The machine is three times slower in the second half: the ratio does not notice.
    timings = Timings({"x": [2, 2, 6, 6], "y": [1, 1, 3, 3]})
    assert timings.ratio("x", "y") == Stats(2, 2, 2)
    assert Stats.of([5.0]) == Stats(5, 5, 5)
    found = Stats.of([float(i) for i in range(11)])
    assert (found.p10, found.median, found.p90) == (1, 5, 9)


def test_conditions_are_restored() -> None:
    before = torch.get_num_threads()
    with conditions(1):
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


# ---- workloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_workload_builds_and_is_right(workload: Workload) -> None:
    small = workload.at(6)
    plain = small.constant_rate()
    net = co.continual(plain, **workload.options)
    with torch.inference_mode():
        if workload.period > 1:
            expected = bursts.check(net, plain, small.clip(Burst.of(net, 4).stop + 8), workload.period, require_equal)
        else:
            expected = check(net, plain, small.clip(net.receptive_field + 7), Rival.of(workload, net.receptive_field))
            assert expected.shape[2] == 8
    assert 0.05 < expected.abs().max() < 100  # neither dead nor exploded: the comparison says something
    assert workload.kind in KINDS
    assert json.loads(json.dumps(workload.spec()))[0]["name"] == workload.layers[0].name


def test_choose() -> None:
    assert choose(None) == list(WORKLOADS)
    assert {w.kind for w in choose("pool")} == {"pool"}
    assert [w.name for w in choose("conv1d 64*")] == ["Conv1d 64→64 k3"]
    assert choose("no such row") == []


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.tensor([1.0, 100.0])
    require_equal("x", right + 9e-4, right)
    for wrong in (right + 2e-3, right * torch.nan, right[:1]):
        with pytest.raises(WrongResult, match="x: "):
            require_equal("x", wrong, right)

    step = co.Conv1d.forward_step
    monkeypatch.setattr(co.Conv1d, "forward_step", lambda *a, **k: None if (y := step(*a, **k)) is None else y + 1e-2)
    row = measure(SMALL, 1, SHORT)
    assert row.error.startswith("wrong result: forward_step: differs")
    assert row.step is None
    assert set(row.verdicts.values()) == {None}
    assert len(report.cells(row)) == len(report.HEADER)


def test_measure_fills_a_row() -> None:
    with conditions(1):
        row = measure(SMALL, 1, SHORT, cant_run="not installed")
    assert (row.receptive_field, row.error, row.other) == (3, "", None)
    assert row.window == row.windows[row.shift]  # type: ignore[index]
    assert row.to_forward is not None
    assert row.verdicts["c"] is None
    assert "can't run" in report.cells(row)
    assert report.notes([row]) == ["small: the other library can't run it (not installed)"]


def test_a_recurrent_layer_is_timed_against_a_carried_state(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload("gru", (Layer("GRU", (4, 4)),), (1, 4), "recurrent")
    with conditions(1):
        row = measure(workload, 1, SHORT)
    assert (row.receptive_field, row.error, row.shift, list(row.windows or ())) == (1, "", "carried", ["carried"])
    (size,) = memory.state_sizes([workload])
    assert (size.state, size.frames) == (16, 0)
    assert report.size_cells([size])[0][-1] == "–"

    # A rival that forgets the state is noticed.
    forward = nn.GRU.forward
    monkeypatch.setattr(nn.GRU, "forward", lambda self, x, hx=None: forward(self, x))
    row = measure(workload, 1, SHORT)
    assert row.error.startswith("wrong result: window (carried): differs")


def test_measure_fills_a_row_of_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Workload("small U-Net", _unet(1, 2, 3), (1, 2), "network", period=4)
    with conditions(1):
        row = measure(small, 1, SHORT)
    assert (row.receptive_field, row.error, row.cant_run) == (26, "", "it has no transposed convolution")
    assert row.step is not None
    assert set(row.verdicts) == {"a", "b", "c"}
    step = co.ConvTranspose1d.advance
    monkeypatch.setattr(
        co.ConvTranspose1d, "advance", lambda *a: (None if (out := step(*a))[0] is None else out[0] + 1e-2, out[1])
    )
    with conditions(1):
        assert measure(small, 1, SHORT).error.startswith("wrong result: forward_step: differs")


# ---- the other library's process: here it runs ours --------------------------------------------------------------------


@one_in(3)
def test_worker_is_checked_and_timed() -> None:
    network = Workload("net", (Layer("Conv3d", (2, 2, 3), {"padding": (0, 1, 1)}), Layer("ReLU")), (1, 2, 4, 4), "network")
    with OtherLibrary(sys.executable, TREE) as other:
        assert other.version != ""
        other.conditions(1)
        row = measure(network, 1, SHORT, other)
        assert row.cant_run == ""
        assert row.other is not None
        assert row.other.median > 0
        assert row.to_other is not None

        bad = Workload("bad", (Layer("Conv1d", (4, 4, 3), {"no_such_argument": 1}),), (1, 4), "dense")
        with pytest.raises(CantRun, match="TypeError.*no_such_argument"):
            other.build(bad, nn.Identity(), SMALL.clip(5))
        # It goes on after an error; and weights make a difference, so the comparison is of the same network.
        clip = SMALL.clip(8)
        torch.testing.assert_close(other.build(SMALL, SMALL.constant_rate(3), clip), SMALL.constant_rate(3)(clip).detach())
        assert not torch.allclose(other.build(SMALL, SMALL.constant_rate(4), clip), SMALL.constant_rate(3)(clip))


@one_in(3)
def test_worker_that_dies(tmp_path: Path) -> None:
    (tmp_path / "continual.py").write_text("raise ImportError('broken on purpose')")
    with pytest.raises(CantRun, match="its process ended: ImportError: broken on purpose"):
        OtherLibrary(sys.executable, {"PYTHONPATH": str(tmp_path)})


def test_brief_errors_name_no_places() -> None:
    assert brief("Traceback\n  at x\nOSError: /srv/someone/lib/thing.so is missing\n") == "OSError: thing.so is missing"
    assert brief("") == "no message"
    assert len(brief("long " * 100)) <= 120


# ---- reports -----------------------------------------------------------------------------------------------------------


def rows() -> list[Row]:
    def stats(value: float) -> Stats:
        return Stats(value, value, value)

    good = Row("good", "dense", 1, 3, stats(5.4e-3), stats(15.6e-3), "roll", {}, stats(0.5), stats(0.5), stats(0.072))
    good.to_window, good.to_forward, good.to_other = stats(0.35), stats(1.0), stats(13.3)
    bad = Row(
        "bad", "network", 2, 3, stats(38.25e-6), stats(38.25e-6), "cat", {}, stats(6e-5), stats(2e-5), cant_run="it | broke"
    )
    bad.to_window, bad.to_forward = stats(1.0), stats(3.0)
    return [good, bad]


MACHINE = report.Machine("2026-01-02", "A CPU (2 logical cores)", "2.13.0", "3.11.7", "other 1.0")


def test_verdicts() -> None:
    good, bad = rows()
    assert good.verdicts == {"a": True, "b": True, "c": True}
    assert bad.verdicts == {"a": False, "b": False, "c": None}  # a network must be faster, not as fast
    bad.kind = "pool"
    assert bad.verdicts["a"] is True
    good.to_other = Stats(4.9, 4.9, 4.9)
    assert good.verdicts["c"] is False
    good.kind = "depthwise"
    assert good.verdicts["c"] is True
    good.kind, good.to_window = "recurrent", Stats(1.1, 1.1, 1.1)
    assert good.verdicts == {"a": True, "b": True, "c": None}
    good.to_window = Stats(1.11, 1.11, 1.11)
    assert good.verdicts["a"] is False


def test_markdown() -> None:
    text = report.speed_markdown(MACHINE, rows())
    assert "Measured: 2026-01-02, A CPU (2 logical cores), torch 2.13.0, Python 3.11.7, other library: other 1.0." in text
    assert "### 1 thread\n" in text
    assert "### 2 threads\n" in text
    assert "| good | 5400 | 15600 roll | 0.35 | 500 | 500 | 1.00 | 72000 | 13.30 | pass pass pass |" in text
    assert "| bad | 38.2 | 38.2 cat | 1.00 | 0.0600 | 0.0200 | 3.00 | can't run | – | FAIL FAIL – |" in text
    assert "- bad: the other library can't run it (it | broke)" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(report.HEADER) + 1}
    plain = report.plain_table("title", report.HEADER, [report.cells(r) for r in rows()])
    assert len({len(line) for line in plain.splitlines()[1:]}) == 1


def test_markdown_page_keeps_what_is_around(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "performance.md"
    report.write_markdown(page, "speed", "first")
    page.write_text(page.read_text().replace("# Performance", "# Performance\n\nBy hand."))
    report.write_markdown(page, "memory", "long")
    report.write_markdown(page, "speed", "second")
    text = page.read_text()
    assert "By hand." in text
    assert "first" not in text
    assert text.index("second") < text.index("## Memory") < text.index("long")
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no lines '<!-- speed: begin -->'"):
        report.write_markdown(page, "speed", "x")
    assert page.read_text() == "no marks"


def test_lines_of_a_page_are_short(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    words, row = "word " * 60, f"| {'cell ' * 40}|"
    report.write_markdown(page, "speed", f"{words.strip()}\n\n- {words.strip()}\n{row}")
    text = page.read_text()
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 118
    assert text.split().count("word") == 120
    assert row in text
    assert "\n  word word" in text


def test_json(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    report.write_json(file, MACHINE, rows=rows())
    found = json.loads(file.read_text())
    assert found["machine"]["torch"] == "2.13.0"
    assert found["rows"][0]["to_window"] == {"median": 0.35, "p10": 0.35, "p90": 0.35}
    assert found["rows"][0]["verdicts"] == {"a": True, "b": True, "c": True}


# ---- memory ------------------------------------------------------------------------------------------------------------


def test_long_run_and_state_sizes() -> None:
    seen: list[memory.Point] = []
    with torch.inference_mode():
        points = memory.long_run(200, seen.append)
    assert points == seen
    assert [p.steps for p in points] == list(range(20, 201, 20))
    assert min(p.micros for p in points) > 0
    assert min(p.rss for p in points) > 1
    with pytest.raises(ValueError, match="more than"):
        memory.long_run(5)

    (size,) = memory.state_sizes([SMALL])
    assert (size.state, size.frames) == (32, 32)
    assert all(s.state > 0 for s in memory.state_sizes(WORKLOADS))  # some are converted by options of their own
    text = report.memory_markdown(MACHINE, points, [size])
    assert "| small | 32 | 32 | 1.00 |" in text
    assert "| 200 |" in text


# ---- the command -------------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, data = tmp_path / "performance.md", tmp_path / "found.json"
    common = ["--only", "conv1d 64*", "--markdown", str(page), "--json", str(data)]
    assert main([*common, "--quick", "--rounds", "1", "--threads", "1", "--no-other"]) == 0
    (row,) = json.loads(data.read_text())["rows"]
    assert (row["name"], row["threads"], row["other"]) == ("Conv1d 64→64 k3", 1, None)
    assert row["chunk"]["median"] > 0
    assert main([*common, "--memory", "100"]) == 0
    assert len(json.loads(data.read_text())["points"]) == memory.POINTS
    assert f"{CHUNK}-step chunk" in page.read_text()
    assert "| 100 |" in page.read_text()
    shown = capsys.readouterr()
    assert "Conv1d 64→64 k3" in shown.out
    with pytest.raises(SystemExit):
        main(["--only", "no such row"])
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
