"""The drawing as SVG and the page around it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from fractions import Fraction
from html.parser import HTMLParser

import pytest

from continual.tools.drawing import draw, fragment, page
from continual.tools.drawing.words import cut, safe, size
from continual.tools.explanation import Explanation, Refusal, Row

SVG = "{http://www.w3.org/2000/svg}"
ONE, HALF = Fraction(1), Fraction(1, 2)


def net(**more: object) -> Explanation:
    rows = (
        Row("stem.conv", "Conv1d k5 s2 p2", (-1,), (0,), HALF, 5, 2, 1600, source="net.py:7  x = self.stem(x)"),
        Row("stem.norm", "BatchNorm1d", (0,), (0,), HALF, 5, 2, 0),
        Row("stem.act", "ReLU", (1,), (0,), HALF, 5, 2, 0),
        Row("body", "Conv1d k7 p3", (2,), (0,), HALF, 17, 8, 3200),
        Row("add", "add", (3, 2), (0, 3), HALF, 17, 8, 480, note="its shortcut waits"),
        Row("flat", "flatten", (4,), (0,), HALF, 17, 8, 0),
    )
    given: dict = {"notes": ("random weights",), "inputs": ("x (2, 3, T)",), **more}
    return Explanation("Net", rows, (5,), **given)


REFUSED = net(
    refusals=(
        Refusal("body", "Conv1d k7 p3", "net.py:9  self.body(x)", "it pads in circles.", 'padding_mode="zeros"'),
        Refusal("flip", "flip 2", "", "the last frame comes first.", "leave it out"),
    )
)


def texts(svg: str) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(svg).iter(f"{SVG}text")]


def test_boxes_say_what_they_are():
    shown = texts(draw(net()))
    for said in (
        "Net",
        "receptive field 17 · delay 8 · 5.28 kB of state · an output every 2 steps",
        "x (2, 3, T)",
        "Conv1d k5 s2 p2",
        "stem.conv",
        "rate 1/2 · delay 2",
        "field 5 · 1.6 kB",
        "then BatchNorm1d, ReLU",
        "waits 3",
        "add",
        "then flatten",
        "output",
    ):
        assert said in shown
    assert "can't be streamed" not in shown


def test_the_queue_is_drawn_with_a_cell_for_each_frame():
    svg = ET.fromstring(draw(net()))
    assert [r.get("class") for r in svg.iter(f"{SVG}rect")].count("cell") == 3
    assert sum("late" in (p.get("class") or "").split() for p in svg.iter(f"{SVG}path")) == 2  # to the queue and from it


@pytest.mark.parametrize("waits, cells", [(1, 1), (8, 8), (9, 8), (1000, 8)])
def test_long_queues_fade(waits: int, cells: int):
    row = Row("add", "add", (-1, -1), (0, waits), ONE, 1, 0, 8)
    svg = ET.fromstring(draw(Explanation("Net", (row,), (0,))))
    found = [r for r in svg.iter(f"{SVG}rect") if r.get("class") == "cell"]
    assert len(found) == cells
    assert any(r.get("opacity") for r in found) == (waits > cells)
    assert f"waits {waits:,}" in texts(draw(Explanation("Net", (row,), (0,))))


def test_every_operation_is_named_where_the_mouse_rests():
    titles = ["".join(t.itertext()) for t in ET.fromstring(draw(net())).iter(f"{SVG}title")]
    assert any(t.startswith("stem.conv: Conv1d k5 s2 p2\nnet.py:7  x = self.stem(x)\nstem.norm: BatchNorm1d\n") for t in titles)
    assert any("3 frames wait here" in t for t in titles)
    assert any("its shortcut waits" in t for t in titles)


def test_refusals_are_red():
    svg = ET.fromstring(draw(REFUSED))
    red = [g for g in svg.iter(f"{SVG}g") if any(r.get("class") == "refused" for r in g.findall(f"{SVG}rect"))]
    assert len(red) == 2
    assert 'it pads in circles.\nRemedy: padding_mode="zeros"' in "".join(red[0].itertext())
    assert "flip 2" in "".join(red[1].itertext())
    shown = texts(draw(REFUSED))
    assert "can't be streamed exactly: 2 reasons" in shown
    assert "can't be streamed" in shown  # in the legend


def test_the_legend_names_what_occurs():
    local = Row("r", "ReLU", (-1,), (0,), ONE, 1, 0, 0)
    shown = texts(draw(Explanation("Net", (local,), (0,))))
    assert "local in time" in shown
    assert "sees other moments" not in shown
    assert "branches meet" not in shown


@pytest.mark.parametrize("name", ["<b>&amp;\"'", "a\x00b\x1b[1m\ud800c", "x" * 500, ""])
def test_any_text_makes_a_document(name: str):
    row = Row(name, name, (-1,), (0,), ONE, 1, 0, 0, source=name, note=name)
    refusal = Refusal(name, name, name, name, name)
    given = Explanation(name, (row,), (0,), (name,), (refusal,), (name,))
    svg = draw(given)
    root = ET.fromstring(svg)
    svg.encode()
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert 0 < width < 1200
    assert 0 < height < 500
    parsed = page(given)
    parsed.encode()
    assert "<b>&amp;" not in parsed


def test_a_network_without_operations():
    assert "x (1, T)" in texts(draw(Explanation("Net", (), (-1,), inputs=("x (1, T)",))))
    ET.fromstring(draw(Explanation("", (), ())))


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


@pytest.mark.parametrize("given", [net(), REFUSED])
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
    assert "Refused" not in page(net())
    assert "Remedy" not in page(net())


@pytest.mark.parametrize("text", [draw(net()), page(REFUSED), fragment(net())])
def test_nothing_is_fetched_or_run(text: str):
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    for bad in ("<script", "@import", "url(", "href", "src=", "onload"):
        assert bad not in text
    assert "prefers-color-scheme:dark" in text


def test_a_page_is_a_document_and_a_fragment_is_not():
    assert page(net()).startswith("<!DOCTYPE html>\n<html")
    assert fragment(net()).startswith('<div class="co-page">')
    assert page(net()).count("<svg") == 1


@pytest.mark.parametrize(
    "count, said",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (5 * 10**9, "5 GB")],
)
def test_bytes_for_people(count: int, said: str):
    assert size(count) == said


def test_texts_are_cut_to_their_box():
    assert cut("Conv1d", 60, 10) == "Conv1d"
    assert cut("Conv1d k3", 60, 10) == "Conv1…"
    assert cut("layer1.0.conv1", 90, 10, end=True) == "la….conv1"
    assert cut("abc", 10, 10) == "…"
    assert safe("\x07<\u00e9>") == "\ufffd&lt;é&gt;"
