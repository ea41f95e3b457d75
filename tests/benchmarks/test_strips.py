"""The pictures of docs/timing.md are what the networks on that page do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import continual as co
from benchmarks.strips import PICTURES, measured, pictures

DOCS = Path(__file__).parents[2] / "docs"


def test_the_files_are_what_is_measured():
    found = pictures()
    assert len(found) == len(PICTURES)
    assert {name: (DOCS / name).read_text(encoding="utf-8") for name in found} == found


def test_a_stream_is_measured():
    """Outputs 0 and 1 come late, the last two with the end; the marked one sees padding at the end."""
    conv = co.Conv1d(1, 1, 5, padding=2)
    torch.nn.init.constant_(conv.weight, -0.5)
    strip = measured(conv, 7, 5)
    assert strip.came == (2, 3, 4, 5, 6, 7, 7)
    assert (strip.seen, strip.before, strip.after) == ((3, 4, 5, 6), 0, 1)


@pytest.mark.parametrize("name", PICTURES)
def test_an_output_comes_with_the_last_input_that_it_sees(name: str):
    make, steps, marked = PICTURES[name]
    strip = measured(make(), steps, marked)
    assert strip.came[marked] == (steps if strip.after else strip.seen[-1])
