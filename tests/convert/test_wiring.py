"""`continual.core.timing_graph`: the timing of a graph is that of the same composition as a tree."""

from __future__ import annotations

import pickle
from itertools import pairwise

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from continual import ShapeMismatch
from continual.core.timing import IDENTITY, Crop, Parallel, Sequence, Timing, Window
from continual.core.timing_graph import Wires, Wiring
from tests.core.timing.cases import Case, compositions, windows


def wired(timing: Timing) -> Wiring:
    """A timing as a graph."""
    wires = Wires()
    return wires.timing(_add(wires, 0, timing))


def _add(wires: Wires, wire: int, timing: Timing) -> int:
    if isinstance(timing, Sequence):
        for part in timing.parts:
            wire = _add(wires, wire, part)
        return wire
    if isinstance(timing, Parallel):
        return wires.meet([_add(wires, wire, branch) for branch in timing.branches])
    return wires.then(wire, timing)


@given(case=compositions)
def test_counts_are_those_of_the_tree(case: Case):
    timing, _ = case
    graph = wired(timing)
    note(f"{timing}\n{graph.entries}")
    for e in range(14):
        assert [graph.counts(n, e) for n in range(e + 1)] == [timing.counts(n, e) for n in range(e + 1)]
    assert graph.delay == timing.delay


@given(case=compositions)
def test_closed_form_is_that_of_the_tree(case: Case):
    timing, _ = case
    graph = wired(timing)
    note(f"{timing}\n{graph.entries}")
    assert graph.stride == timing.stride
    assert graph.receptive_field == timing.receptive_field
    if not timing.phase_dependent:  # at rates above one the counts decide
        assert (graph.start, graph.end) == (timing.start, timing.end)
    assert (
        graph.causal_counts == timing.causal_counts or graph.causal_counts
    )  # a wire that waits for another that is never later is left out
    assert graph.bursts == timing.bursts


@given(case=compositions)
def test_plain_counts_are_the_counts(case: Case):
    timing, _ = case
    graph = wired(timing)
    note(f"{timing}\n{graph.entries}")
    plain = graph.constant_rate()
    if plain is None:
        return
    for n in range(plain.after, 40):
        due = max(0, (n - 1 - plain.delay) // plain.stride + 1)
        assert graph.delivered(n) == due
        if plain.lookahead is not None and due:
            assert graph.ended(n) - due == plain.lookahead


@given(case=compositions)
def test_after_it_has_settled_the_pattern_repeats(case: Case):
    graph = wired(case[0])
    steps = [
        b - a for a, b in pairwise(graph.delivered(n) for n in range(graph.transient, graph.transient + 2 * graph.period + 1))
    ]
    assert steps[: graph.period] == steps[graph.period :]


@given(st.lists(windows, min_size=1, max_size=3), st.lists(windows, min_size=1, max_size=3))
def test_a_wire_that_covers_another_changes_nothing_by_waiting(a: list[Case], b: list[Case]):
    wires = Wires()
    ends = []
    for cases in (a, b):
        wire = 0
        for timing, _ in cases:
            wire = wires.then(wire, timing)
        ends.append(wire)
    try:
        met = wires.meet(ends)
    except ShapeMismatch:
        return
    first, second, whole = (wires.timing(w) for w in (*ends, met))
    note(f"{first.entries} {second.entries} {whole.entries}")
    for e in range(16):
        for n in range(e + 1):
            pairs = first.counts(n, e), second.counts(n, e)
            assert whole.counts(n, e) == (min(p[0] for p in pairs), min(p[1] for p in pairs))


def test_sixty_residual_blocks_are_no_trouble():
    """Nested trees double the work with every block; a graph looks at every wire once."""
    wires, wire = Wires(), 0
    for _ in range(60):
        inner = wires.then(wires.then(wire, Window(3, start=1, end=1)), Window(3, start=1, end=1))
        wire = wires.meet([inner, wire])
    timing = wires.timing(wire)
    assert (timing.receptive_field, timing.delay, timing.counts(500, 500)) == (241, 120, (380, 500))
    assert len(wires.entries) == 121  # the shortcut is never late: no wire of its own


def test_equal_branches_are_one_wire():
    wires = Wires()
    a, b = wires.then(0, Window(3, start=1, end=1)), wires.then(0, Window(3, start=1, end=1))
    assert a == b == wires.meet([a, b])
    assert wires.then(0, IDENTITY) == 0


def test_a_causal_convolution_is_plain_from_the_start():
    timing = wired(Window(3, start=2, end=2).then(Crop(0, 2)))
    assert timing.constant_rate() == (0, 1, 0, 1, 0)
    assert wired(Window(1, start=2).then(Window(3))).constant_rate().after > 0  # swallowed by the window behind it
    assert wired(Window(1, start=2)).constant_rate() is None  # two frames at once


def test_different_rates_do_not_meet():
    wires = Wires()
    with pytest.raises(ShapeMismatch, match="strides"):
        wires.meet([0, wires.then(0, Window(2, 2))])


def test_it_can_be_pickled_and_compared():
    timing = wired(Window(3).then(Window(2, 2)))
    assert pickle.loads(pickle.dumps(timing)) == timing == wired(Window(3).then(Window(2, 2)))
    assert timing.then(Window(2)).receptive_field == 6


def test_a_wire_that_gives_padding_before_anything_has_come_waits():
    # Found by Hypothesis: behind a layer that looks ahead, a frame of start padding comes before the first frame of the wire beside it.
    wires = Wires()
    late = wires.then(wires.then(0, Window(2)), Window(1, start=1))
    met = wires.timing(wires.meet([0, late]))
    assert [met.counts(n, 4) for n in range(5)] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
