"""Where boxes and lines go: whatever the graph, no line runs over a box and no two lines over each other."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.tools.drawing.lanes import Edge, assign
from continual.tools.drawing.routes import RANK_GAP, Drawn, Size, route


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Size], list[Edge], frozenset[int]]:
    count = draw(st.integers(1, 14))
    sizes = [Size(draw(st.sampled_from((40, 90, 200))), draw(st.sampled_from((26, 40, 59)))) for _ in range(count)]
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = [Edge(a, b) for a, b in draw(st.lists(st.sampled_from(pairs), max_size=22))] if pairs else []
    onward = [v for v in range(count) if _degrees(v, edges) == (1, 1)]
    queues = draw(st.sets(st.sampled_from(onward))) if onward else set()
    return sizes, edges, frozenset(queues)


def _degrees(v: int, edges: list[Edge]) -> tuple[int, int]:
    return sum(e.dst == v for e in edges), sum(e.src == v for e in edges)


def stretches(drawn: Drawn) -> list[tuple[int, float, float, float, float]]:
    return [
        (e, min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
        for e, line in enumerate(drawn.lines)
        for (ax, ay), (bx, by) in pairwise(line)
    ]


@settings(max_examples=200)
@given(graphs())
def test_lines_run_between_boxes(graph: tuple[list[Size], list[Edge], frozenset[int]]):
    sizes, edges, queues = graph
    drawn = route(sizes, edges, queues)
    boxes = [(x, y, x + s.width, y + s.height) for (x, y), s in zip(drawn.corners, sizes, strict=True)]
    for (l1, t1, r1, b1), (l2, t2, r2, b2) in combinations(boxes, 2):
        assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1
    for edge, line in zip(edges, drawn.lines, strict=True):
        (sx, sy), (dx, dy) = line[0], line[-1]
        assert boxes[edge.src][0] < sx < boxes[edge.src][2]
        assert sy == boxes[edge.src][3]
        assert boxes[edge.dst][0] < dx < boxes[edge.dst][2]
        assert dy == boxes[edge.dst][1]
        assert all(ax == bx or ay == by for (ax, ay), (bx, by) in pairwise(line))  # upright or level
        assert all(ay <= by for (_, ay), (_, by) in pairwise(line))  # never up
    for _, left, top, right, bottom in stretches(drawn):
        for l2, t2, r2, b2 in boxes:
            assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top  # at most it touches the edge
    assert all(left >= 0 and right <= drawn.width for left, _, right, _ in boxes)
    assert max(b for *_, b in boxes) == drawn.height


@settings(max_examples=200)
@given(graphs())
def test_lines_do_not_cover_each_other(graph: tuple[list[Size], list[Edge], frozenset[int]]):
    check_apart(route(*graph))


def check_apart(drawn: Drawn) -> None:
    for (e, l1, t1, r1, b1), (f, l2, t2, r2, b2) in combinations(stretches(drawn), 2):
        if e != f and l1 == r1 == l2 == r2:
            assert b1 <= t2 or b2 <= t1
        if e != f and t1 == b1 == t2 == b2:
            assert r1 <= l2 or r2 <= l1


def test_a_chain_is_a_straight_line():
    drawn = route([Size(100, 40), Size(60, 20), Size(80, 40)], [Edge(0, 1), Edge(1, 2)], frozenset())
    assert [y for _, y in drawn.corners] == [0, 40 + RANK_GAP, 60 + 2 * RANK_GAP]
    assert {x for line in drawn.lines for x, _ in line} == {50}


def test_a_queue_stands_to_the_left_in_the_middle_of_its_way():
    main = [Edge(i, i + 1) for i in range(6)]
    lanes = assign(8, [*main, Edge(0, 7), Edge(7, 6)], frozenset({7}))
    assert lanes.ranks == [0, 1, 2, 3, 4, 5, 6, 3]
    assert lanes.lanes == [0] * 7 + [-1]


def test_branches_with_boxes_stand_to_the_right():
    #   0 → 1 → 2 → 5 with branches 3 and 4
    edges = [Edge(0, 1), Edge(1, 2), Edge(2, 5), Edge(0, 3), Edge(3, 5), Edge(0, 4), Edge(4, 5)]
    lanes = assign(6, edges, frozenset())
    assert sorted(lanes.lanes[3:5]) == [1, 2]
    assert [lanes.lanes[v] for v in (0, 1, 2, 5)] == [0] * 4


def test_nested_skips_do_not_cross():
    """A U-Net: the skip that begins first and ends last runs outermost."""
    main = [Edge(i, i + 1) for i in range(7)]
    skips = [Edge(0, 7), Edge(1, 6), Edge(2, 5)]
    lanes = assign(8, [*main, *skips], frozenset())
    assert [lanes.edge_lanes[7 + k] for k in range(3)] == [-3, -2, -1]


def test_crossing_lines_between_two_ranks_use_ports_of_their_own():
    """Found by hypothesis: what leaves a box to the right and what enters the one below from the right went over each other, since in
    the one lane the former had to turn first, and in the other lane the latter."""
    check_apart(route([Size(40, 26)] * 4, [Edge(1, 2), Edge(0, 3), Edge(1, 3), Edge(0, 2)], frozenset()))


@pytest.mark.parametrize(
    "skips", [[(0, 3), (0, 5)], [(0, 5), (2, 5)], [(0, 5), (1, 4), (0, 4), (1, 5)], [(0, 2), (2, 5), (3, 5)]]
)
@pytest.mark.parametrize("boxes", [False, True])
def test_nested_lines_turn_without_crossing(skips: list[tuple[int, int]], boxes: bool):
    """On the left, and, where there are boxes on the way, on the right."""
    edges = [Edge(i, i + 1) for i in range(5)]
    for k, (a, b) in enumerate(skips):
        edges += [Edge(a, 6 + k), Edge(6 + k, b)] if boxes else [Edge(a, b)]
    at = sorted(range(6 + boxes * len(skips)), key=lambda v: v if v < 6 else skips[v - 6][0] + 0.5)  # each after what it takes
    edges = [Edge(at.index(e.src), at.index(e.dst)) for e in edges]
    drawn = route([Size(100, 40)] * len(at), edges, frozenset())
    crossings = [
        (e, f)
        for e, l1, t1, r1, b1 in stretches(drawn)
        for f, l2, t2, r2, b2 in stretches(drawn)
        if e != f and l1 < l2 == r2 < r1 and t2 < t1 == b1 < b2
    ]
    overlapping = skips == [(0, 5), (1, 4), (0, 4), (1, 5)]
    assert len(crossings) == (1 if overlapping else 0)


def test_an_input_stands_next_to_where_it_is_used():
    edges = [Edge(0, 1), Edge(1, 2), Edge(2, 4), Edge(3, 4)]
    assert assign(5, edges, frozenset()).ranks == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("linked", [True, False])
def test_boxes_without_lines_stand_below_all_others(linked: bool):
    edges = [Edge(0, 1)] if linked else []
    lanes = assign(4, edges, frozenset())
    assert lanes.ranks == [0, 1, 2, 3]
    assert lanes.lanes == [0] * 4


def test_nothing_at_all():
    assert route([], [], frozenset()) == Drawn([], [], 0.0, 0.0)
