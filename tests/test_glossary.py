"""The site links the first use of a glossary's term on each page (docs/_ext): which words of a text are these."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def terms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terms", DOCS / "_ext" / "terms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = """# Glossary

<!-- not linked, since pages use these words
     in other senses: row, Rate -->

| term | meaning |
|---|---|
| row | one index |
| rate | outputs per input |
| window | the last `L` frames |
| exact window | its [own](windows.md) output |
| source, sink | where frames come from, and go to |

## Classes of the code

| class | meaning |
|---|---|
| `State`, `Timing` | classes are no terms |
"""


def words(terms: ModuleType, text: str, seen: set[str] | None = None) -> list[str]:
    linked = terms.linked(PAGE)
    return [
        text[start:end]
        for start, end, _ in terms.first_uses(text, linked, terms.pattern(linked), set() if seen is None else seen)
    ]


def test_the_terms_are_those_of_the_tables(terms: ModuleType):
    assert set(terms.glossary(PAGE)) == {"row", "rate", "window", "exact window", "source", "sink"}
    assert set(terms.linked(PAGE)) == {"window", "exact window", "source", "sink"}


def test_a_meaning_is_plain_text(terms: ModuleType):
    found = terms.glossary(PAGE)
    assert found["window"].meaning == "the last L frames"
    assert found["exact window"] == ("exact window", "its own output", "term-exact-window")


def test_words_that_are_no_terms_can_not_be_left_out(terms: ModuleType):
    with pytest.raises(ValueError, match="rate"):
        terms.linked(PAGE.replace("| rate |", "| ratio |"))


def test_first_uses_are_found_once_on_a_page(terms: ModuleType):
    seen: set[str] = set()
    assert words(terms, "A window, and windows.", seen) == ["window"]
    assert words(terms, "Windows of a source.", seen) == ["source"]


@pytest.mark.parametrize(
    "text,expected",
    [
        ("Exact\nwindows have no window inside.", ["Exact\nwindows", "window"]),  # the longest term, over a line's end
        ("sinks and Sinks", ["sinks"]),
        ("a windowed sum, sub-window, window-wise, sourcery", []),  # parts of words
        ("rows at a rate", []),
    ],
)
def test_whole_words_are_uses(terms: ModuleType, text: str, expected: list[str]):
    assert words(terms, text) == expected


def test_the_glossary_of_the_library_can_be_read(terms: ModuleType):
    """Pages use each of its terms: `make docs` warns otherwise."""
    page = (DOCS / "glossary.md").read_text(encoding="utf-8")
    linked = terms.linked(page)
    assert {"receptive field", "exact window", "step program", "snapshot", "remedy"} <= set(linked)
    assert len({term.anchor for term in linked.values()}) == len(linked)
    assert page.count("\n| `") > 10
    assert not [name for name in linked if "`" in name]
