"""Which rows share a box, and what a box is."""

from __future__ import annotations

from fractions import Fraction

import pytest

from continual.tools.drawing.boxes import INPUT, JOIN, LOCAL, OUTPUT, QUEUE, REFUSED, TEMPORAL, boxes_of, kind_of
from continual.tools.drawing.lanes import Edge
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
    return [(box.kind, [r.path for r in box.rows]) for box in boxes_of(graph).boxes]


def test_local_operations_join_the_box_above():
    rows = (conv("a"), seen("n", "BatchNorm1d", (0,)), seen("r", "ReLU", (1,)), seen("l", "Linear 4→2", (2,)))
    found = boxes_of(Explanation("Net", rows, (3,), inputs=("x (1, 2, T)",)))
    assert [(b.kind, len(b.rows), b.label) for b in found.boxes] == [
        (INPUT, 0, "x (1, 2, T)"),
        (TEMPORAL, 4, ""),
        (OUTPUT, 0, "output"),
    ]
    assert found.edges == [Edge(0, 1), Edge(1, 2)]


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
    assert [(b.kind, b.frames, [r.path for r in b.rows]) for b in found.boxes] == [
        (INPUT, 0, []),
        (TEMPORAL, 0, ["a"]),
        (QUEUE, 1, []),
        (JOIN, 0, ["add"]),
        (QUEUE, 2, ["w"]),
        (LOCAL, 0, ["r"]),  # not in the queue's box
        (OUTPUT, 0, []),
    ]
    assert found.queues == {2, 4}
    assert found.edges == [Edge(0, 1), Edge(0, 2), Edge(1, 3), Edge(2, 3), Edge(3, 4), Edge(4, 5), Edge(5, 6)]


def test_an_input_that_leaves_as_it_is_and_one_that_is_not_used():
    assert paths(Explanation("Net", (conv("a", (-2,)),), (-3, 0), inputs=("x (1, T)", "y (1, T)", "z (1, T)"))) == [
        (INPUT, []),
        (INPUT, []),
        (TEMPORAL, ["a"]),
        (OUTPUT, []),
        (OUTPUT, []),
    ]
    labels = [b.label for b in boxes_of(Explanation("Net", (conv("a", (-2,)),), (-3, 0))).boxes]
    assert labels == ["input 1", "input 2", "", "output 0", "output 1"]


def test_refused_rows_stand_alone_and_so_do_refusals_without_a_row():
    norm, other = Refusal("n", "GroupNorm", "", "why", "what"), Refusal("z", "flip", "", "why", "what")
    rows = (conv("a"), seen("n", "GroupNorm", (0,)), seen("r", "ReLU", (1,)))
    found = boxes_of(Explanation("Net", rows, (2,), refusals=(norm, other)))
    assert [(b.kind, b.refusal) for b in found.boxes if b.refusal] == [(REFUSED, norm), (REFUSED, other)]
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
