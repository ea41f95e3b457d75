"""`tests/costs.py` and its plugin: which expensive tests run in a turn, and the table that says what they cost."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import costs, long

CHEAP, DEAR = "tests/test_costs.py::test_cheap", "tests/test_costs.py::test_dear"
COSTS = {CHEAP: costs.LIMIT, DEAR: 3.5 * costs.LIMIT}


def turns(nodeid: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The turns in which a test runs."""
    found = []
    for turn in range(long.TURNS):
        monkeypatch.setattr(long, "TURN", turn)
        if costs.drawn(nodeid, COSTS):
            found.append(turn)
    return found


def test_the_mean_cost_of_a_turn_is_limited(monkeypatch: pytest.MonkeyPatch):
    for nodeid in (CHEAP, "tests/test_costs.py::test_unknown[1]"):
        assert turns(nodeid, monkeypatch) == list(range(long.TURNS))
    rows = [turns(f"{DEAR}[{row}]", monkeypatch) for row in ("a", "b")]
    assert rows[0] != rows[1], "rows of one function have the same turns"
    for row in rows:
        assert long.TURNS / 4 * 0.8 < len(row) < long.TURNS / 4 * 1.2


@pytest.mark.parametrize("share", [2, 3, 4, 6, 8, 12])
def test_rows_that_take_turns_as_well_all_have_some(share: int, monkeypatch: pytest.MonkeyPatch):
    rows = [turns(f"{DEAR}[{row}]", monkeypatch) for row in range(8)]
    for row in rows:
        assert {turn % share for turn in row} == set(range(share))


def test_what_was_measured_replaces_rows_and_what_is_gone_leaves(tmp_path: Path):
    file = tmp_path / "costs.csv"
    here = "tests/test_costs.py::" + test_what_was_measured_replaces_rows_and_what_is_gone_leaves.__name__
    kept = "tests/test_costs.py::test_rows_that_take_turns_as_well_all_have_some"
    rows = {kept: 1.0, here: 9.0, "tests/test_costs.py::test_" + "gone": 5.0, "tests/" + "gone.py::test_x": 5.0}
    file.write_text("".join(f"{seconds},{name}\n" for name, seconds in rows.items()))
    cheap = "tests/test_costs.py::test_the_mean_cost_of_a_turn_is_limited"
    costs.write({here: [1.0, 2.0], cheap: [0.1]}, file)
    assert costs.read(file) == {kept: 1.0, here: 1.5}


def test_the_table_names_tests():
    table = costs.read()
    assert len(table) > 100
    assert all(seconds >= costs.LIMIT for seconds in table.values())
    gone = [name for name in table if not costs.exists(name)]
    assert not gone, "no such tests: drop the rows from tests/costs.csv, or `make costs`"


class Item(SimpleNamespace):
    """Of a collected test what the choice asks for."""

    keywords: tuple[str, ...] = ()

    def get_closest_marker(self, name: str) -> None:
        return None


@pytest.mark.parametrize(("by_cost", "all_of_them"), [(True, False), (False, False), (True, True)])
def test_the_choice_is_that_of_the_option(by_cost: bool, all_of_them: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long, "ASKED_FOR", all_of_them)
    monkeypatch.setattr(costs, "read", COSTS.copy)
    monkeypatch.setattr(long, "TURN", next(turn for turn in range(long.TURNS) if turn not in turns(DEAR, monkeypatch)))
    left_out: list[Item] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    config = SimpleNamespace(option=SimpleNamespace(by_cost=by_cost), hook=hook)
    items = [Item(nodeid=CHEAP), Item(nodeid=DEAR)]
    runpy.run_path(str(long.ROOT / "conftest.py"))["pytest_collection_modifyitems"](config, items)
    chosen = [CHEAP] if by_cost and not all_of_them else [CHEAP, DEAR]
    assert [item.nodeid for item in items] == chosen
    assert len(items) + len(left_out) == 2
