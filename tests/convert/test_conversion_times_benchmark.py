"""`python -m benchmarks.conversion_times`: its rows and its table. Nothing here asserts how fast anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import conversion_times, report
from benchmarks.conversion import SIZES
from benchmarks.conversion_times import OWN, Took, choose, main, markdown


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- conversion times: begin -->\nold\n<!-- conversion times: end -->\nafter\n", encoding="utf-8")
    assert main(["--only", "LSTM", "--markdown", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "| LSTM, 400 frames | (2, 400, 4) | converts | 118 | " in printed
    assert "| LSTM in both directions, 400 frames | (2, 400, 4) | refused | – | " in printed
    written = page.read_text(encoding="utf-8")
    assert "old" not in written
    assert "| LSTM, 16 frames |" in written
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    with pytest.raises(SystemExit):
        main(["--only", "no such network"])


def test_the_table_and_what_it_comes_to() -> None:
    rows = [
        Took("a", "(2, 3)", "converts", "9", 0.25),
        Took("b", "(2, 3)", "refused", "–", 1.0),
        Took("c", "", "refused", "–", 3.0),
    ]
    text = markdown(report.Machine("today", "cpu", "2", "3"), rows)
    assert "| a | (2, 3) | converts | 9 | 0.2 |" in text
    assert text.endswith("3 networks: median 1.0 s, the longest 3.0 s.")


def test_networks_of_the_tests_and_the_slow_ones_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(choose(False)) == set(SIZES) | set(OWN)
    asked: list[str] = []

    class Models:
        def __getattr__(self, name: str) -> object:
            asked.append(name)
            return object

    monkeypatch.setattr(conversion_times.importlib, "import_module", lambda name: Models())
    assert "braindecode EEGNet" in choose(True)
    assert set(asked) == set(conversion_times.BRAINDECODE)
