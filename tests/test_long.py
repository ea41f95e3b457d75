"""`tests/long.py` and `tests/fuzz.py`: which tests run when, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fuzz, long

ROWS = [f"row {i}" for i in range(50)]


def running(turn: int, share: int, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The rows that run in a turn, ``row 7`` always."""
    monkeypatch.setattr(long, "TURN", turn)
    return {v for v in long.by_turns(ROWS, share, always=["row 7"]) if isinstance(v, str)}


@pytest.mark.parametrize("share", [2, 3, 8, 12])
def test_each_row_has_its_turn(share: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long, "ASKED_FOR", False)
    turns = [running(turn, share, monkeypatch) for turn in range(share)]
    assert set.union(*turns) == set(ROWS)
    assert sum(len(rows - {"row 7"}) for rows in turns) == len(ROWS) - 1, "a row has two turns"
    assert all("row 7" in rows for rows in turns)
    assert max(map(len, turns)) <= len(ROWS) // share + 2, "most rows have the same turn"
    assert turns[0] != set(ROWS[::share]), "rows beside each other are often much the same"
    assert running(share, share, monkeypatch) == turns[0]
    assert long.TURNS % share == 0, "some rows would have more turns than others"


def test_all_rows_run_on_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long, "ASKED_FOR", True)
    assert running(1, 8, monkeypatch) == set(ROWS)
    assert long.one_in(8)(test_all_rows_run_on_request) is test_all_rows_run_on_request


def test_it_says_how_to_run_the_same_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long, "TURN", 5)
    monkeypatch.setattr(long, "SEED", 77)
    monkeypatch.setattr(long, "ASKED_FOR", False)
    monkeypatch.setattr(long, "COMMIT", "0123456789abcdef")
    monkeypatch.delenv("CONTINUAL_TURN", raising=False)
    monkeypatch.delenv("CONTINUAL_SEED", raising=False)
    assert long.again() == "turn 5, seed 77 (of commit 0123456789); again: make test TURN=5 SEED=77"
    monkeypatch.setenv("CONTINUAL_SEED", "77")
    assert "(as given)" in long.again()
    monkeypatch.delenv("CONTINUAL_SEED")
    monkeypatch.setattr(long, "COMMIT", None)
    assert "(fixed, as git knows no commit here)" in long.again()


def test_a_folder_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long, "ROOT", tmp_path)
    assert long.head() is None


def test_files_of_random_examples_are_found():
    found = {Path(f).name for f in fuzz.files(["tests"])}
    assert {"test_random_networks.py", "test_random_modules.py", "test_many_streams.py", "test_wiring.py"} <= found
    assert "test_long.py" not in found


def test_counter_examples_are_taken_out_of_what_pytest_prints():
    body = ["def test_found():", "    ops = [", "        1,", "    ]", "    check(ops)"]
    lines = ["assert 1 == 2", "", "# ---- as a test ----", *body, "", "", "You can reproduce"]
    printed = "\n".join(["text", *(f"E       {line}" for line in lines), "", "file.py:3: AssertionError", ""])
    assert fuzz.pasted(printed) == ["\n".join(["# ---- to paste ----", *body, ""])]
