"""The terms of the glossary, and where a text uses them. Nothing here needs Sphinx.

The glossary is a page of tables: a term, or several with commas between them, and the meaning. Tables of classes, whose names stand in
code, have no terms. Words that pages use in another sense too are in a comment, ``<!-- not linked, since …: row, rate -->``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ROW = re.compile(r"^\| ([^|`]+) \| (.+) \|$", re.MULTILINE)
APART = re.compile(r"<!-- not linked\b[^:]*:(.*?)-->", re.DOTALL)


class Term(NamedTuple):
    """A term as the glossary writes it, its meaning without marks, and the name of its place on the page."""

    name: str
    meaning: str
    anchor: str


class Use(NamedTuple):
    """Where a text uses a term."""

    start: int
    end: int
    term: Term


def anchor(name: str) -> str:
    return "term-" + re.sub(r"\W+", "-", name.lower())


def plain(text: str) -> str:
    """Markdown without its marks."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "")


def names(cell: str) -> list[str]:
    """The terms of the first cell of a row."""
    return [name.strip() for name in cell.split(",")]


def glossary(page: str) -> dict[str, Term]:
    """All terms of the page, by their names in small letters."""
    rows = [(cell, plain(meaning)) for cell, meaning in ROW.findall(page) if cell not in ("term", "class") and set(cell) != {"-"}]
    return {name.lower(): Term(name, meaning, anchor(name)) for cell, meaning in rows for name in names(cell)}


def linked(page: str) -> dict[str, Term]:
    """The terms to which pages link: all but those in the comment.

    Raises:
        ValueError: the comment names what is no term.
    """
    terms = glossary(page)
    comment = APART.search(page)
    apart = {word.strip().lower() for word in comment[1].split(",")} if comment else set()
    if unknown := apart - set(terms):
        raise ValueError(f"the comment 'not linked' of the glossary names {sorted(unknown)}, which are no terms")
    return {name: term for name, term in terms.items() if name not in apart}


def pattern(terms: dict[str, Term]) -> re.Pattern[str]:
    """Any of the terms, one or several of it. A term inside a longer one is not there."""
    longest = sorted(terms, key=len, reverse=True)
    words = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in longest)
    return re.compile(rf"(?<![\w-])({words})(?:s|es)?(?![\w-])", re.IGNORECASE)


def first_uses(text: str, terms: dict[str, Term], found: re.Pattern[str], seen: set[str]) -> list[Use]:
    """The first uses of terms that are not in ``seen`` yet, which takes them up."""
    uses = []
    for match in found.finditer(text):
        name = re.sub(r"\s+", " ", match[1].lower())
        if name not in seen:
            seen.add(name)
            uses.append(Use(*match.span(), terms[name]))
    return uses
