"""The Python examples in the documentation run, page by page, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.long import in_full, some

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(p.name for p in DOCS.glob("*.md") if "```python" in p.read_text(encoding="utf-8"))


SLOW = "heartbeats.md"  # trains a network


@pytest.mark.parametrize("page", some(PAGES, [] if in_full(SLOW, 8) else [SLOW]))
def test_the_examples_run(page: str):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_pages_with_examples_are_found():
    assert "training.md" in PAGES
