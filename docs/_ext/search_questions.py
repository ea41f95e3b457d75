"""The search box answers the questions of questions.txt with the right page first; another one is a warning.

The scripts of the built site run in a JavaScript engine, as they do in a browser.
"""

from __future__ import annotations

import json
from pathlib import Path

from py_mini_racer import MiniRacer
from sphinx.application import Sphinx
from sphinx.util import logging

QUESTIONS = Path(__file__).with_name("questions.txt")
# What the scripts expect of a page. Nothing of it is shown.
PAGE = """
var window = globalThis;
var document = {getElementById: () => null, addEventListener: () => {}, documentElement: {dataset: {}}};
var SPHINX_HIGHLIGHT_ENABLED = false;
var _ = (text) => text;
var _ready = () => {};
class URLSearchParams { get() { return window.asked; } }
window.location = {search: ""};
"""
ASK = "(query => { window.asked = query; return JSON.stringify(Search._performSearch(...Search._parseQuery(query)).reverse()); })"


def questions(text: str) -> list[tuple[str, str]]:
    """The questions of a text, and the page that answers each."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(question, page.strip()) for question, _, page in (line.rpartition(":") for line in lines)]


class Search:
    """The search of a built site."""

    def __init__(self, site: Path) -> None:
        self.engine = MiniRacer()
        self.engine.eval(PAGE)
        scripts = [site / "_static" / "language_data.js", site / "_static" / "searchtools.js", site / "searchindex.js"]
        for script in scripts:
            self.engine.eval(script.read_text(encoding="utf-8"))

    def pages(self, query: str) -> list[str]:
        """The pages that the search shows, in its order."""
        found = json.loads(str(self.engine.eval(f"{ASK}({json.dumps(query)})")))
        return list(dict.fromkeys(str(result[0]) for result in found))


def ask(app: Sphinx, error: Exception | None) -> None:
    """Ask the search all questions."""
    if error is not None or app.builder.name != "html":
        return
    search = Search(Path(app.outdir))
    for question, page in questions(QUESTIONS.read_text(encoding="utf-8")):
        found = search.pages(question)
        if found[:1] != [page]:
            where = found.index(page) + 1 if page in found else "nowhere"
            logging.getLogger(__name__).warning(
                "the search answers %r with %s; %s is in place %s. Write words of the question into the comment 'search:' of the page",
                question,
                ", ".join(found[:3]) or "nothing",
                page,
                where,
            )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", ask)
    return {"parallel_read_safe": True}
