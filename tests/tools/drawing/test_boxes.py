"""Which rows share a box, and what a box is."""

from __future__ import annotations

from fractions import Fraction

import pytest

from continual.tools.drawing.boxes import INPUT, JOIN, LOCAL, OUTPUT, QUEUE, REFUSED, TEMPORAL, boxes_of, clean, kind_of, size
from continual.tools.explanation import Explanation, Refusal, Row

HALF = Fraction(1, 2)


def row(path: str, op: str, inputs: tuple[int, ...] = (-1,), waits: tuple[int, ...] = (), **more: object) -> Row:
    facts: dict = {"rate": Fraction(1), "receptive_field": 1, "delay": 0, "state_bytes": 0, **more}
    return Row(path, op, inputs, waits or (0,) * len(inputs), **facts)


def conv(path: str, inputs: tuple[int, ...] = (-1,), **more: object) -> Row:
    return row(path, "Conv1d k3 p1", inputs, **{"receptive_field": 3, "delay": 1, "state_bytes": 8, **more})


def seen(path: str, op: str, inputs: tuple[int, ...], waits: tuple[int, ...] = (), **more: object) -> Row:
    return row(path, op, inputs, waits, **{"receptive_field": 3, "delay": 1, **more})


def paths(graph: Explanation) -> list[tuple[str, list[str]]]:
    return [(box.kind, [r.path for r in box.rows]) for box in boxes_of(graph)]


def test_local_operations_join_the_box_above():
    rows = (conv("a"), seen("n", "BatchNorm1d", (0,)), seen("r", "ReLU", (1,)), seen("l", "Linear 4→2", (2,)))
    found = boxes_of(Explanation("Net", rows, (3,), inputs=("x (1, 2, T)",)))
    assert [(b.kind, len(b.rows), b.label, b.above) for b in found] == [
        (INPUT, 0, "x (1, 2, T)", []),
        (TEMPORAL, 4, "", [0]),
        (OUTPUT, 0, "output", [1]),
    ]


def test_what_is_taken_twice_or_leaves_stays_at_the_end_of_its_box():
    rows = (conv("a"), seen("r", "ReLU", (0,)), seen("s", "SiLU", (1,)), seen("t", "Tanh", (1,)), seen("m", "mul", (2, 3)))
    assert paths(Explanation("Net", rows, (4, 0))) == [
        (INPUT, []),
        (TEMPORAL, ["a"]),  # leaves: nothing may follow in its box
        (LOCAL, ["r"]),
        (LOCAL, ["s"]),
        (LOCAL, ["t"]),
        (JOIN, ["m"]),
        (OUTPUT, []),
        (OUTPUT, []),
    ]


def test_a_run_of_local_operations_without_one_above_is_a_box():
    rows = (row("r", "ReLU"), row("s", "SiLU", (0,)), conv("a", (1,)))
    assert paths(Explanation("Net", rows, (2,))) == [(INPUT, []), (LOCAL, ["r", "s"]), (TEMPORAL, ["a"]), (OUTPUT, [])]


def test_frames_that_wait_are_boxes_on_their_lines():
    rows = (conv("a"), seen("add", "add", (0, -1), (0, 1), state_bytes=8), seen("w", "wait", (1,), (2,)), seen("r", "ReLU", (2,)))
    found = boxes_of(Explanation("Net", rows, (3,)))
    assert [(b.kind, b.lines()[0], [r.path for r in b.rows], b.above) for b in found] == [
        (INPUT, "input 0", [], []),
        (TEMPORAL, "Conv1d k3 p1", ["a"], [0]),
        (QUEUE, "waits 1", [], [0]),
        (JOIN, "add", ["add"], [1, 2]),
        (QUEUE, "waits 2", ["w"], [3]),
        (LOCAL, "ReLU", ["r"], [4]),  # not in the queue's box
        (OUTPUT, "output", [], [5]),
    ]


def test_an_input_that_leaves_as_it_is_and_one_that_is_not_used():
    assert paths(Explanation("Net", (conv("a", (-2,)),), (-3, 0), inputs=("x (1, T)", "y (1, T)", "z (1, T)"))) == [
        (INPUT, []),
        (INPUT, []),
        (TEMPORAL, ["a"]),
        (OUTPUT, []),
        (OUTPUT, []),
    ]
    labels = [b.label for b in boxes_of(Explanation("Net", (conv("a", (-2,)),), (-3, 0)))]
    assert labels == ["input 1", "input 2", "", "output 0", "output 1"]


def test_refused_rows_stand_alone_and_so_do_refusals_without_a_row():
    norm, other = Refusal("n", "GroupNorm", "", "why", "what"), Refusal("z", "flip", "", "why", "what")
    rows = (conv("a"), seen("n", "GroupNorm", (0,)), seen("r", "ReLU", (1,)))
    found = boxes_of(Explanation("Net", rows, (2,), refusals=(norm, other)))
    assert [(b.kind, b.refusal) for b in found if b.refusal] == [(REFUSED, norm), (REFUSED, other)]
    assert paths(Explanation("Net", rows, (2,), refusals=(norm,)))[1:4] == [(TEMPORAL, ["a"]), (REFUSED, ["n"]), (LOCAL, ["r"])]


A = conv("a")
KINDS = {
    "pointwise": (seen("r", "ReLU", (0,)), [A], LOCAL),
    "of an input": (row("r", "ReLU"), [], LOCAL),
    "a constant": (row("c", "constant", (), receptive_field=1), [], LOCAL),
    "a wider field": (conv("b", (0,), receptive_field=5, delay=1, state_bytes=0), [A], TEMPORAL),
    "later": (seen("d", "Delay 2", (0,), delay=3), [A], TEMPORAL),
    "fewer outputs": (seen("s", "slice", (0,), rate=HALF), [A], TEMPORAL),
    "a state alone": (seen("l", "LSTM 2→2", (0,), state_bytes=16), [A], TEMPORAL),
    "an input's field": (conv("b"), [], TEMPORAL),
    "joined": (seen("m", "add", (0, 1)), [A, A], JOIN),
    "joined, one waits": (seen("m", "add", (0, 1), (0, 3), state_bytes=24), [A, A], JOIN),
    "joined with an input": (seen("m", "add", (0, -1)), [A], JOIN),
    "joined, with a state": (seen("m", "attention", (0, 1), state_bytes=24), [A, A], TEMPORAL),
    "joined at another rate": (seen("m", "cat over time", (0, 1), rate=Fraction(2)), [A, A], TEMPORAL),
    "waiting": (seen("w", "wait", (0,), (3,), state_bytes=24, delay=4), [A], QUEUE),
}


@pytest.mark.parametrize("case", KINDS)
def test_what_a_row_is(case: str):
    given, above, kind = KINDS[case]
    assert kind_of(given, above) == kind


def test_the_text_of_a_box():
    rows = (conv("a", rate=HALF, state_bytes=1536), seen("n", "BatchNorm1d", (0,)), seen("r", "Linear(3, 4)", (1,)))
    rows = (rows[0], *(Row(r.path, r.op, r.inputs, r.waits, HALF, 3, 1, 0, "net.py:7  self.n(x)", "a remark") for r in rows[1:]))
    given = boxes_of(Explanation("Net", rows, (2,)))[1]
    assert given.lines() == ["Conv1d k3 p1", "a", "field 3 · delay 1 · rate 1/2 · 1.54 kB", "then BatchNorm1d, Linear"]
    assert given.tooltip().splitlines() == [
        "a: Conv1d k3 p1",
        "n: BatchNorm1d",
        "net.py:7  self.n(x)",
        "a remark",
        "r: Linear(3, 4)",
        "net.py:7  self.n(x)",
        "a remark",
        "rate 1/2, receptive field 3, delay 1, state 1.54 kB",
    ]


def test_the_text_of_a_refusal():
    found = boxes_of(
        Explanation("Net", (), (), refusals=(Refusal("z", "flip", "", "why", "what"), Refusal("", "", "", "why", "")))
    )
    assert [b.lines() for b in found] == [["flip", "z"], ["refused"]]
    assert [b.tooltip() for b in found] == ["why\nRemedy: what", "why"]


def test_long_lines_keep_their_ends():
    shown = clean("encoder.layers.11.self_attention.out_projection.weight_norm")
    assert shown.startswith("encoder.layers…")
    assert len(shown) == 44
    assert shown.endswith("out_projection.weight_norm")
    assert clean("a\x07\nb") == "a\ufffd b"


@pytest.mark.parametrize(
    "count, said",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (5 * 10**9, "5 GB")],
)
def test_bytes_for_people(count: int, said: str):
    assert size(count) == said
