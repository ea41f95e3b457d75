"""The gallery itself: its table, what it measures, its processes, results and page."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from gallery import __main__ as command
from gallery import catalogue, compare, measure, run
from gallery.network import Network, made
from gallery.packages import missing
from gallery.report import failures, line, page, totals
from gallery.result import Result, Results
from gallery.run import Limits

SIZES = "Conv 2026, of this test"


class Frames(nn.Module):
    """Convolutions with a norm: a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv1d(3, 5, 5, padding=2), nn.BatchNorm1d(5), nn.Conv1d(5, 2, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.norm(self.one(x))))  # type: ignore[no-any-return]


class Score(Frames):
    """The same, with the mean of the clip."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(2)


class Both(nn.Module):
    """An output per frame that sees the whole clip."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.transpose(1, 2))[0]  # type: ignore[no-any-return]


def row(build: Any = Frames, expected: Any = "stream", **more: Any) -> Network:
    return Network("own/row", build, (2, 3, 23), expected, SIZES, **more)


# ---- the table ----------------------------------------------------------------------------------------------------------


class Placed(nn.Module):
    """A table of positions for clips of the example's length and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.mix = nn.Embedding(12, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x) + self.places(torch.arange(x.shape[1]))
        q = y @ y.transpose(1, 2)
        return q.masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), float("-inf")).softmax(-1) @ y  # type: ignore[no-any-return]


def test_steps_are_timed_within_a_table_of_positions() -> None:
    found = measure.measure(Network("a/places", Placed, (2, 12, 4), "stream", SIZES, time_dim=1))
    assert found.outcome == "stream", found.message
    assert found.ratio is not None
    assert found.ratio > 0


def test_the_table_has_hundreds_of_networks_and_a_sentence_for_each_refusal():
    rows = list(catalogue.everything().values())
    assert len(rows) >= 500
    assert sum(not n.package for n in rows) >= 200
    assert all(n.source and "/" in n.name for n in rows)
    sentences = [n.why for n in rows if n.expected == "refused"] + [n.gap for n in rows if n.gap]
    assert all(len(s) > 20 and s.endswith(".") for s in sentences)


def test_rows_by_part_pattern_and_class():
    assert {n.name for n in catalogue.choose("skeletons/MS-TCN")} == {n.name for n in catalogue.choose("skeletons/MS-TCN*")}
    assert all(n.expected == "refused" for n in catalogue.choose("refused"))
    both = catalogue.choose("sensors/WaveNet, video/C3D")
    assert {"sensors/WaveNet", "video/C3D"} <= {n.name for n in both}


def test_tenths_are_all_rows_without_packages():
    rows = list(catalogue.everything().values())
    parts = [catalogue.tenth(rows, k) for k in range(10)]
    assert sorted(n.name for part in parts for n in part) == sorted(n.name for n in rows if not n.package)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_refused_row_says_why(monkeypatch: pytest.MonkeyPatch):
    bad = [row(expected="refused")]
    monkeypatch.setattr("gallery.networks.video_designs.NETWORKS", bad)
    with pytest.raises(ValueError, match="own/row: a refused row has why="):
        catalogue.everything.__wrapped__()


def test_a_gap_belongs_to_a_row_that_should_convert(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue, "GAPS", {"video/C3D": "Of this test."})
    assert catalogue.everything.__wrapped__()["video/C3D"].gap == "Of this test."
    monkeypatch.setattr(catalogue, "GAPS", {"video/no such": "x"})
    with pytest.raises(ValueError, match="gaps.py names no row that should convert: video/no such"):
        catalogue.everything.__wrapped__()


def test_inputs_of_other_lengths_and_rows():
    network = Network(
        "own/two", Frames, [(2, 3, 8), (2, 3, 2), (2, 7)], "stream", SIZES, time_dim=(2, -1, None), tokens=(0, 5, 0)
    )
    assert network.frames == 2  # steps, with four frames of the first stream in each
    slow = network.inputs(4, seed=3, rows=1)
    assert [tuple(x.shape) for x in slow] == [(1, 3, 16), (1, 3, 4), (1, 7)]
    assert slow[1].dtype == torch.int64
    assert torch.equal(network.inputs(seed=3)[2], network.inputs(seed=4)[2])  # no stream
    assert not torch.equal(network.inputs(seed=3)[0], network.inputs(seed=4)[0])


def test_modules_are_no_identities():
    module = made(row())
    assert float(module.norm.running_var.std()) > 0.1  # type: ignore[union-attr,operator]
    assert not module.training


def test_steps_of_streams_of_two_rates():
    fast, slow = torch.arange(24.0).view(1, 1, 24), torch.arange(6.0).view(1, 1, 6)
    part = compare.cut([fast, slow, fast], (2, 2, None), 2, 3)
    assert part[0].flatten().tolist() == list(range(8, 20))
    assert part[1].flatten().tolist() == [2, 3, 4]
    assert part[2] is fast
    step = compare.one(compare.cut([fast, slow], (2, 2), 2, 1), (2, 2))
    assert [tuple(x.shape) for x in step] == [(1, 1, 4), (1, 1)]


# ---- one network --------------------------------------------------------------------------------------------------------


def test_a_stream():
    found = measure.measure(row())
    assert (found.outcome, found.delay, found.dtype, found.frames) == ("stream", 4, "float64", 46)
    assert found.difference is not None
    assert found.difference < 1e-12
    assert found.ratio is not None
    assert found.ratio > 0
    assert found.seconds is not None
    assert found.seconds > 0


def test_exact_windows():
    found = measure.measure(row(Score, "windows"), timed=False)
    assert (found.outcome, found.length, found.every, found.delay) == ("windows", 23, 2, 22)
    assert found.difference is not None
    assert found.difference < 1e-12


def test_a_refusal_and_its_remedy(monkeypatch: pytest.MonkeyPatch):
    network = row(Both, "refused", why="It reads the clip from its end.")
    found = measure.measure(network, timed=False)
    assert found.outcome == "refused"
    assert "bidirectional" in found.reason
    assert "output=-1" in found.message
    own = measure._continual

    def fails(network: Network, module: nn.Module, frames: int | None = None, **more: Any) -> Any:
        if more:
            raise RuntimeError("no windows today")
        return own(network, module)

    monkeypatch.setattr(measure, "_continual", fails)
    found = measure.measure(network, timed=False)
    assert (found.outcome, found.reason) == ("remedy", "output=-1: RuntimeError: no windows today")
    assert found.changed(network)


def test_the_last_frame_of_each_window():
    found = measure.measure(row(Both, "windows", options={"output": -1}), timed=False)
    assert found.outcome == "windows"
    assert found.difference is not None
    assert found.difference < 1e-12


@pytest.mark.parametrize("build", [Frames, Score])
def test_wrong_numbers_are_found(build: Any, monkeypatch: pytest.MonkeyPatch):
    own = co.continual

    def spoiled(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        other = made(row(build), seed=0)
        other.two.weight.data[0, 0, 0] += 1e-3  # type: ignore[union-attr,index,operator]
        return own(other, *args, **kwargs)

    monkeypatch.setattr(co, "continual", spoiled)
    found = measure.measure(row(build), timed=False)
    assert found.outcome == "wrong"
    assert "differs from the module by" in found.reason


def test_a_row_that_proves_nothing_is_wrong():
    class Constant(Frames):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0 + 1

    assert "the row proves nothing" in measure.measure(row(Constant), timed=False).reason


def test_errors_are_results(monkeypatch: pytest.MonkeyPatch):
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("inside")

    monkeypatch.setattr(co, "continual", fails)
    assert measure.measure(row(), timed=False).outcome == "crash"

    def hides(*args: Any, **kwargs: Any) -> Any:
        raise co.NotStreamable(f"it can't be put together, {measure.HIDDEN}")

    monkeypatch.setattr(co, "continual", hides)
    assert measure.measure(row(), timed=False).outcome == "crash"
    broken = replace(row(), build=lambda: nn.Conv1d(4, 4, 3))
    assert measure.measure(broken).outcome == "row"
    assert missing("no_such_package")
    assert measure.measure(replace(row(), package="no_such_package")).outcome == "skipped"


# ---- processes ----------------------------------------------------------------------------------------------------------


class Sleeper(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:
            x = x + 1


class Eater(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(2**34, dtype=torch.uint8)[0] * x


class Killer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        os.kill(os.getpid(), 9)
        return x


def in_processes(rows: dict[str, Any], limits: Limits, monkeypatch: pytest.MonkeyPatch) -> dict[str, Result]:
    """Rows of this test, in processes that are forked from this one."""
    import multiprocessing

    table = {name: replace(row(build), name=name) for name, build in rows.items()}
    monkeypatch.setattr(catalogue, "everything", lambda: table)
    monkeypatch.setattr(run, "_context", lambda networks: multiprocessing.get_context("fork"))
    found: dict[str, Result] = {}
    run.run(list(table.values()), limits, 2, lambda name: None, lambda r: found.setdefault(r.name, r))
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_limits_of_processes(monkeypatch: pytest.MonkeyPatch):
    limits = Limits(seconds=2, memory=1.0, timed=False)
    found = in_processes({"good": Frames, "slow": Sleeper, "large": Eater, "gone": Killer}, limits, monkeypatch)
    assert {name: r.outcome for name, r in found.items()} == {
        "good": "stream",
        "slow": "time",
        "large": "memory",
        "gone": "crash",
    }
    assert found["slow"].reason == "no result in 2 seconds"
    assert "status -9" in found["gone"].reason


# ---- results and page ---------------------------------------------------------------------------------------------------


def test_results_are_kept_and_the_last_counts(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    first = Results(path)
    first.add(Result("a/b", "refused", "for now"))
    first.add(Result("a/b", "stream", seconds=1.5))
    first.add(Result("a/c", "skipped"))
    again = Results(path)
    assert (again.found["a/b"].outcome, again.found["a/b"].seconds) == ("stream", 1.5)
    rows = [replace(row(), name=name) for name in ("a/b", "a/c", "a/d")]
    assert [n.name for n in again.missing(rows)] == ["a/c", "a/d"]


def test_the_page_names_what_changed():
    rows = [
        replace(row(), name="a/good"),
        replace(row(), name="a/worse"),
        replace(row(), name="b/known", gap="Two rates meet."),
        replace(row(), name="b/absent"),
    ]
    found = {
        "a/good": Result("a/good", "stream", seconds=1.0, delay=3, difference=2e-16, dtype="float64", ratio=2.5),
        "a/worse": Result("a/worse", "refused", "a | b", seconds=40.0),
        "b/known": Result("b/known", "refused", "rates", seconds=2.0),
        "b/absent": Result("b/absent", "skipped", "no_such is not installed"),
    }
    text = page(rows, found, "this machine")
    assert "| good | converts |  | 1.0 | 3 | 2e-16 | 2.5× | Conv" in text, "a column that nothing was measured for is left out"
    assert "- **step**: how many times faster" in text
    assert "**refused** instead of converts: a \\| b" in text
    assert "- b/known: not yet: Two rates meet." in text
    assert "3 networks: 1 are exact (33%)" in totals(rows, found)
    assert "1 take more than 30" in totals(rows, found)
    assert failures(rows, found) == ["a/worse: refused instead of converts: a | b"]
    assert "2 windows" not in line(rows[0], found["a/good"])
    found["a/good"].ratio = None
    assert "| good | converts |  | 1.0 | 3 | 2e-16 | Conv" in (text := page(rows, found, "this machine"))
    assert "**step**" not in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    table = {"t/a": replace(row(), name="t/a"), "t/b": replace(row(), name="t/b")}
    monkeypatch.setattr(command, "everything", lambda: table)
    monkeypatch.setattr(catalogue, "everything", lambda: table)
    ran: list[str] = []

    def pretend(rows: Any, limits: Limits, jobs: int, started: Any, done: Any) -> None:
        for network in rows:
            started(network.name)
            ran.append(network.name)
            done(Result(network.name, "stream" if network.name == "t/a" else "refused", "of the test"))

    monkeypatch.setattr(command, "run", pretend)
    results, out = str(tmp_path / "r.jsonl"), tmp_path / "page.md"
    assert command.main(["--only", "t/a", "--results", results]) == 0
    assert command.main(["--continue", "--results", results, "--markdown", str(out)]) == 1
    assert ran == ["t/a", "t/b"]
    assert "CHANGED t/b: refused instead of converts: of the test" in capsys.readouterr().out
    assert "| a | converts |" in out.read_text()
    assert command.main(["--none", "--failed", "--results", results]) == 1
    assert command.main(["--list", "--results", results]) == 0
    assert "t/b" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--only", "nothing like it", "--results", results])
    assert "names begin with: t" in capsys.readouterr().err


def test_conversions_are_timed_in_cpu_seconds(monkeypatch: pytest.MonkeyPatch):
    own = co.continual

    def late(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.4)
        return own(*args, **kwargs)

    began = time.process_time()
    monkeypatch.setattr(co, "continual", late)
    found = measure.measure(row(), timed=False)
    assert found.seconds is not None
    assert found.seconds < time.process_time() - began
