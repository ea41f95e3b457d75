"""The benchmark of exact windows: a row, and the page's table, of which some rows may be measured again."""

from __future__ import annotations

import pytest
from torch import nn

from benchmarks import windows
from benchmarks.window_networks import NETWORKS, Network

HEAD = windows.HEAD


def test_rows_are_put_into_the_table_of_a_page():
    first, second = NETWORKS[0].name, NETWORKS[2].name
    old = f"| {second} | 9 | 1 | 5% | 1.0× | – | 1 |"
    page = f"before\n\n{HEAD}\n{old}\n| gone | 9 | 1 | 5% | 1.0× | – | 1 |\n\nbehind\n"
    new = [f"| {first} | 9 | 1 | 6% | 1.1× | – | 1 |", f"| {first} | 9 | 32 | 6% | 1.2× | – | 1 |"]
    assert windows.with_rows(page, new) == f"before\n\n{HEAD}\n{new[1]}\n{new[0]}\n{old}\n\nbehind\n"
    newer = f"| {second} | 9 | 1 | 5% | 2.0× | – | 1 |"
    assert newer in windows.with_rows(page, [newer])
    assert old not in windows.with_rows(page, [newer])
    with pytest.raises(ValueError, match="no table"):
        windows.with_rows("nothing", new)


def test_a_row(monkeypatch):
    make = lambda: nn.Sequential(nn.Conv1d(3, 4, 5, padding=2), nn.BatchNorm1d(4), nn.AdaptiveAvgPool1d(1), nn.Flatten())  # noqa: E731
    times = iter([(3.0, 2.0), (2.0, 3.0)])
    monkeypatch.setattr(windows, "least", lambda runs: [t for run, t in zip(runs, next(times), strict=True) if run() is not runs])
    row = windows.row_of(Network("little", make, (3, 40)), 4, False)
    assert row.startswith("| little | 40 | 4 | ")
    assert "| 1.5× | – |" in row
    assert "| recomputed | – |" in windows.row_of(Network("little", make, (3, 40)), None, False)
