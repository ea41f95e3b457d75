"""What code written for continual-inference 1.2.4 does here: each row of the table of docs/migrating.md is held by a function of its name.

A row that is *same* or *corrected* runs; one that is *refused* raises an error that says what to write. The functions are in tests/earlier.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.earlier import containers, layers, modules  # noqa: F401 (they register the rows)
from tests.earlier.table import HELD, REFUSALS

PAGE = Path(__file__).parents[1] / "docs" / "migrating.md"


def rows() -> dict[str, str]:
    """The verdict for each call of the table."""
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## Name by name") : text.index("## Before and after")]
    found = [re.split(r" \| ", line.strip("| ")) for line in section.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1].strip(" |") for cells in found[1:] if not cells[0].startswith("**")}


def test_each_row_is_held():
    table = rows()
    assert len(table) > 70
    assert {call: verdict for call, (verdict, _) in HELD.items()} == table


@pytest.mark.parametrize("call", HELD)
def test_row(call: str):
    verdict, run = HELD[call]
    torch.manual_seed(0)
    if verdict != "refused":
        run()
        return
    with pytest.raises(REFUSALS) as caught:
        run()
    assert len(str(caught.value)) > 30, "it says what to write"


def test_a_refusal_that_does_not_come_fails():
    """A row that says *refused* of a call that runs is wrong."""
    HELD["made up"] = "refused", lambda: F.relu(torch.zeros(1))
    try:
        with pytest.raises(pytest.fail.Exception):
            test_row("made up")
    finally:
        del HELD["made up"]
