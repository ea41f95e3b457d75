"""The figures of docs/streams.md: what is lost, and what is compared with what."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import continual as co
from benchmarks import streams
from benchmarks.streams import POLICIES, Signal, film, gaps, losses, streamed


@pytest.fixture
def own() -> Signal:
    torch.manual_seed(3)
    net = co.Sequential(co.Conv1d(1, 4, 5, padding=2), nn.Tanh(), co.Conv1d(4, 1, 3, padding=1)).eval()
    clip = torch.randn(1, 1, 400)
    return Signal(net, clip, clip)


@pytest.mark.parametrize("run", [1, 25])
def test_a_tenth_is_lost_in_runs(run: int) -> None:
    came = losses(1024, run)
    lost = "".join("." if c else "x" for c in came).split(".")
    assert {len(part) for part in lost} == {0, run}
    assert 103 <= sum(map(len, lost)) < 103 + run
    assert came[0]
    assert came[-1]


def test_streams_without_losses_have_no_error(own: Signal) -> None:
    for policy in POLICIES:
        found = streamed(own, [True] * 400, policy)
        assert found.error < 1e-4
        assert (found.missing, sum(found.flagged)) == (0, 0)
    held = streamed(own, losses(400, 25), "hold")
    assert held.error > 1
    assert held.worst > held.error
    # each of two runs is seen by its 25 outputs, and by 3 on both sides
    assert sum(held.flagged) == 2 * 31
    # a restart gives up what waits, for 3 frames of look-ahead
    assert streamed(own, losses(400, 25), "reset").missing == 2 * (25 + 3)


def test_the_table_and_the_picture(own: Signal, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = gaps(own, tmp_path / "gaps.png")
    assert text.count("| single frames |") == text.count("| runs of 25 frames |") == len(POLICIES)
    assert (tmp_path / "gaps.png").stat().st_size > 10_000


def test_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    first, *_, last = film(["right"], 9, 4)[0]
    moved = int(last.sum(0).argmax()) - int(first.sum(0).argmax())
    assert moved % streams.SIDE in (7, 8, 9)  # there is noise
    monkeypatch.setattr(streams, "SIDE", 12)
    streams.video(1, tmp_path / "video.png")
    assert (tmp_path / "video.png").stat().st_size > 10_000
