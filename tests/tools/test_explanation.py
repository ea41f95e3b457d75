"""What an explanation says as text."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from continual.tools.explanation import Explanation, Refusal, Row, format_refusals


def row(path: str, op: str, inputs: tuple[int, ...], waits: tuple[int, ...] = (), **more: object) -> Row:
    facts: dict = {"rate": Fraction(1), "receptive_field": 1, "delay": 0, "state_bytes": 0, **more}
    return Row(path, op, inputs, waits or (0,) * len(inputs), **facts)


CONV = row("stem", "Conv1d k5 s2 p2", (-1,), rate=Fraction(1, 2), receptive_field=5, delay=2, state_bytes=1536)
RELU = row("act", "ReLU", (0,), rate=Fraction(1, 2), receptive_field=5, delay=2)
ADD = row("add", "add", (1, 0, -2), (0, 0, 3), rate=Fraction(1, 2), receptive_field=9, delay=4, state_bytes=96, note="is late")
NET = Explanation("Net", (CONV, RELU, ADD), (2, 1), ("random weights",), inputs=("x (2, 3, T)", "y (2, 4, T)"))
NORM = Refusal("norm", "GroupNorm(2, 4)", "net.py:9  return self.norm(x)", "it sees the clip.", "BatchNorm, or\n- a window")
FLIP = Refusal("flip", "", "", "the last frame comes first.", "")


def test_the_table():
    assert str(NET).splitlines() == [
        "Net  ←  x (2, 3, T), y (2, 4, T)",
        "   path  op               takes              rate  receptive field  delay  state bytes",
        "─" * 86,
        "0  stem  Conv1d k5 s2 p2  x                   1/2                5      2        1,536",
        "1  act   ReLU             0                   1/2                5      2            0",
        "2  add   add              1, 0, y (waits 3)   1/2                9      4           96",
        "─" * 86,
        "→  add                                        1/2                9      4        1,632",
        "→  act                                        1/2                5      2",
        "note: random weights",
        "note: add: is late",
    ]


def test_totals():
    assert (NET.state_bytes, NET.delay, NET.receptive_field, NET.streamable) == (1632, 4, 9, True)


def test_an_input_that_is_handed_on_and_one_without_a_name():
    text = str(Explanation("", (row("a", "relu", (-2,)),), (0, -1), inputs=("x (1, T)",)))
    assert not text.startswith("  ←")
    lines = text.splitlines()
    assert lines[1].split() == ["path", "op", "takes", "rate", "receptive", "field", "delay", "state", "bytes"]
    assert "relu  input 1" in text
    assert lines[-1].split() == ["→", "x", "1", "1", "0"]


def test_refusals_say_where_why_and_what_to_do():
    assert format_refusals("Net", (NORM, FLIP)).splitlines() == [
        "Net can't be streamed exactly, for 2 reasons:",
        "  1. norm (GroupNorm(2, 4))",
        "     net.py:9  return self.norm(x)",
        "     it sees the clip.",
        "     Remedy: BatchNorm, or",
        "     - a window",
        "  2. flip",
        "     the last frame comes first.",
    ]
    assert format_refusals("", (FLIP,)).startswith("the module can't be streamed exactly:\n  1. flip")


def test_layers_that_are_refused_for_one_reason_are_told_once():
    layers = [Refusal(f"layers.{i}.norm", NORM.op, NORM.source, NORM.reason, NORM.remedy, f"row {i}") for i in range(4)]
    lines = format_refusals("Net", (*layers, FLIP, *layers[:1])).splitlines()
    assert lines[0] == "Net can't be streamed exactly, for 2 reasons:"
    assert lines[1] == "  1. 4 modules, layers.0.norm, layers.1.norm … layers.3.norm (GroupNorm(2, 4))"
    assert "  1. 2 modules, layers.0.norm, layers.1.norm (GroupNorm(2, 4))" in format_refusals("Net", layers[:2])


def test_a_refused_module_shows_what_was_followed_and_every_refusal():
    refused = Explanation("Net", (CONV, row("norm", "GroupNorm(2, 4)", (0,))), (), refusals=(NORM, FLIP))
    text = str(refused)
    assert "Conv1d k5 s2 p2" in text
    assert text.endswith("\n\n" + format_refusals("Net", (NORM, FLIP)))
    assert "→" not in text
    assert refused.refusal_of(refused.rows[1]) is NORM
    assert refused.refusal_of(CONV) is None
    assert not refused.streamable
    assert str(Explanation("Net", (), (), refusals=(FLIP,))) == "Net\n" + format_refusals("Net", (FLIP,))


@pytest.mark.parametrize(
    "rows, outputs, message",
    [
        ((row("a", "relu", (-1,), (0, 1)),), (0,), r"row 0 \(a\) has 1 inputs and 2 waits"),
        ((row("a", "relu", (0,)),), (0,), r"row 0 \(a\) takes row 0, which does not come before it"),
        ((CONV,), (1,), "output 1 of 1 rows"),
    ],
)
def test_rows_that_do_not_fit_together(rows: tuple[Row, ...], outputs: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        Explanation("Net", rows, outputs)


def test_notes_that_are_the_same_are_said_once():
    again = Explanation("Net", (CONV, RELU, ADD, row("more", "add", (2, 2), note="is late")), (3,))
    assert again.all_notes() == ("add, more: is late",)


def test_the_ending_chooses_what_is_saved(tmp_path: Path):
    for name, begins in (
        ("a.svg", "<svg"),
        ("a.HTML", "<!DOCTYPE html>"),
        ("a.txt", "Net  ←  x"),
        ("a.dot", "digraph {"),
        ("a.mmd", "flowchart TD"),
    ):
        path = NET.save(tmp_path / name)
        assert path == tmp_path / name
        assert path.read_text(encoding="utf-8").startswith(begins)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == f"{NET}\n"
    with pytest.raises(ValueError, match=r"ends in \.svg, \.html, \.txt, \.dot, \.mmd"):
        NET.save(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_notebooks_show_the_page_without_a_document_around_it():
    assert NET._repr_html_() in NET.html()
    assert "<html" not in NET._repr_html_()
    assert NET.svg().startswith("<svg")
