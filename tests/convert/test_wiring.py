"""The timing of a graph is that of the same composition as a tree."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from continual import ShapeMismatch
from continual.core.timing import IDENTITY, Crop, Timing, Window, Wiring
from continual.core.timing_graph import Wires, aligned
from tests.core.timing.cases import Case, causal_counts, compositions, crops, rates, reflections, small, windows


@dataclass(frozen=True)
class Row:
    """Timings one after another: the rules of composition once more, on nested timings."""

    parts: tuple[Any, ...]

    def composed(self) -> Timing:
        return Timing.sequence(*(part.composed() for part in self.parts))

    def counts(self, n: int, e: int) -> tuple[int, int]:
        for part in self.parts:
            n, e = part.counts(n, e)
        return n, e

    def form(self) -> tuple[Fraction, Fraction, Fraction, Fraction]:
        stride, field, start, end = Fraction(1), Fraction(1), Fraction(0), Fraction(0)
        for part in self.parts:
            s, r, a, b = part.form()
            stride, field, start, end = stride * s, field + stride * (r - 1), start + stride * a, end + stride * b
        return stride, field, start, end


@dataclass(frozen=True)
class Side:
    """Timings side by side, which wait for each other."""

    parts: tuple[Any, ...]

    def composed(self) -> Timing:
        return aligned(*(part.composed() for part in self.parts))

    def counts(self, n: int, e: int) -> tuple[int, int]:
        pairs = [part.counts(n, e) for part in self.parts]
        return min(p[0] for p in pairs), min(p[1] for p in pairs)

    def form(self) -> tuple[Fraction, Fraction, Fraction, Fraction]:
        forms = [part.form() for part in self.parts]
        start = max(a for _, _, a, _ in forms)
        field = start + max(r - a for _, r, a, _ in forms)
        return forms[0][0], field, start, min(a + b - r for _, r, a, b in forms) + field - start


@dataclass(frozen=True)
class Leaf:
    timing: Timing

    def composed(self) -> Timing:
        return self.timing

    def counts(self, n: int, e: int) -> tuple[int, int]:
        return self.timing.counts(n, e)

    def form(self) -> tuple[Fraction, Fraction, Fraction, Fraction]:
        t = self.timing
        return Fraction(t.stride), Fraction(t.receptive_field), Fraction(t.start), Fraction(t.end)


def leaves(cases: st.SearchStrategy[Case]) -> st.SearchStrategy[Leaf]:
    return cases.map(lambda case: Leaf(case[0]))


@st.composite
def sides(draw: Any) -> Side:
    """Branches of one stride; some are nothing but a shortcut."""
    stride = draw(st.integers(1, 3))
    inner = leaves(st.one_of(causal_counts, causal_counts, reflections))

    def one() -> Row:
        core = Leaf(Window(draw(st.integers(1, 4)), stride, draw(small), draw(small)))
        shortcut = stride == 1 and draw(st.booleans())
        return Row((*draw(st.lists(inner, max_size=2)), *(() if shortcut else (core,)), *draw(st.lists(inner, max_size=1))))

    return Side(tuple(one() for _ in range(draw(st.integers(2, 3)))))


trees = st.lists(st.one_of(leaves(st.one_of(windows, crops, rates)), sides(), sides()), min_size=1, max_size=4).map(
    lambda parts: Row(tuple(parts))
)


def wired(timing: Timing) -> Wiring:
    """A timing as a graph."""
    wires = Wires()
    return wires.timing(wires.then(0, timing))


@given(tree=trees)
def test_counts_are_those_of_the_tree(tree: Row):
    graph = wired(tree.composed())
    note(f"{tree}\n{graph.entries}")
    for e in range(14):
        assert [graph.counts(n, e) for n in range(e + 1)] == [tree.counts(n, e) for n in range(e + 1)]
    first = next((n for n in range(1, 40) if tree.counts(n, n)[0]), None)
    assert first is None or graph.delay == first - 1
    delivered = [tree.counts(n, n)[0] for n in range(graph.transient + 2 * graph.period + 1)]
    assert graph.bursts == any(b - a > 1 for a, b in pairwise(delivered))


@given(tree=trees)
def test_closed_form_is_that_of_the_tree(tree: Row):
    timing = tree.composed()
    note(f"{tree}\n{timing}")
    assert timing.stride == tree.form()[0]
    if not timing.phase_dependent:  # at rates above one the counts decide
        assert (timing.stride, timing.receptive_field, timing.start, timing.end) == tree.form()


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


def test_a_wire_that_refuses_short_clips_is_waited_for():
    """A mirrored frame needs two frames: the wire beside it, which is later and sees more, has an output for a clip of one."""
    wide, mirrored = Window(7, start=3, end=3), Window(3, start=1, end=1, wait=2, least=2)
    timing = aligned(wide, mirrored)
    assert (timing.ended(1), timing.ended(2), wide.ended(1)) == (0, 2, 1)
