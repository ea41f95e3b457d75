"""`python -m benchmarks.signals`: it compares equal computations, and its table holds them. Nothing here asserts how fast anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import signals
from benchmarks.measure import WrongResult


def test_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- signals: begin -->\n<!-- signals: end -->\n")
    signals.main(["--rounds", "1", "--no-compiled", "--markdown", str(page)])
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| log-mel")]
    assert rows == ["log-mel", "log-mel, 3 convolutions"]


def test_what_differs_is_not_timed() -> None:
    work = signals.workloads()[0]
    work.module.register_buffer("filters", 1.1 * work.net.fb)
    with pytest.raises(WrongResult, match="the stream"):
        signals.measured(work, False, 1)
