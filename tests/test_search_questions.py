"""A newcomer's questions to the search box of the site: `make docs` asks them, this looks at the list."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_ten_questions_are_asked_about_pages_that_are_there():
    text = (DOCS / "_ext" / "questions.txt").read_text(encoding="utf-8")
    lines = [line.rpartition(": ") for line in text.splitlines() if line and not line.startswith("#")]
    asked = {question: page for question, _, page in lines}
    assert len(asked) == len(lines) >= 10
    assert len(set(asked.values())) >= 10
    copied = {"_pages/example_" + path.name for path in (DOCS.parent / "examples").iterdir()}
    assert [page for page in asked.values() if not (DOCS / f"{page}.md").exists() and page not in copied] == []


def test_the_site_asks_them():
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert '"search_questions"' in conf
    assert '"scorer.js"' in conf
