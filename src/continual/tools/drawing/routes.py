"""Coordinates: boxes in the middle of their lanes, lines that run straight down and change lanes between the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .lanes import Edge, Lanes, assign

LANE_GAP = 26  # between neighbouring lanes with boxes
LINE_GAP = 14  # beside a lane in which there are lines alone
RANK_GAP = 26  # from one rank to the next, where no line changes lanes
TRACK = 9  # between lines that change lanes in the same gap
PORT = 14  # between lines that leave or enter the same box


@dataclass(frozen=True)
class Size:
    """Of a box."""

    width: float
    height: float


@dataclass(frozen=True)
class Drawn:
    """Where everything stands.

    Attributes:
        corners: left and top of each box.
        lines: the points of each line, from its box down to the next; all stretches are upright or level.
        width, height: of all together.
    """

    corners: list[tuple[float, float]]
    lines: list[list[tuple[float, float]]]
    width: float
    height: float


@dataclass
class _Turn:
    """Where a line changes lanes: in the gap below a rank, from one x to another."""

    edge: int
    rank: int
    start: float
    stop: float
    leaving: bool
    far: int  # how many lanes
    track: int = 0

    @property
    def order(self) -> tuple[bool, int]:
        """What leaves turns above what arrives; the farthest of the former first, of the latter last."""
        return (not self.leaving, -self.far if self.leaving else self.far)

    def meets(self, other: _Turn) -> bool:
        return min(self.start, self.stop) <= max(other.start, other.stop) and min(other.start, other.stop) <= max(
            self.start, self.stop
        )


def route(sizes: Sequence[Size], edges: Sequence[Edge], floating: frozenset[int]) -> Drawn:
    """Place boxes and lines.

    Args:
        sizes: of the boxes, each after those whose outputs it takes.
        edges: the lines.
        floating: queues, as in :func:`~continual.tools.drawing.lanes.assign`.

    Example:
        >>> drawn = route([Size(60, 20), Size(60, 20)], [Edge(0, 1)], frozenset())
        >>> drawn.corners, drawn.lines
        ([(0.0, 0.0), (0.0, 46.0)], [[(30.0, 20.0), (30.0, 46.0)]])
    """
    lanes = assign(len(sizes), edges, floating)
    middle = _middles(sizes, lanes)
    starts, stops = _ports(sizes, edges, lanes, middle)
    turns = _turns(edges, lanes, middle, starts, stops)
    count = max(lanes.ranks, default=-1) + 1
    tracks = [_stack([t for t in turns if t.rank == rank]) for rank in range(count)]
    tops, bottoms = [], []
    y = 0.0
    for rank in range(count):
        tops.append(y)
        y += max(size.height for size, r in zip(sizes, lanes.ranks, strict=True) if r == rank)
        bottoms.append(y)
        y += RANK_GAP + TRACK * max(0, tracks[rank] - 1)
    corners = [
        (middle[lane] - size.width / 2, tops[rank] + (bottoms[rank] - tops[rank] - size.height) / 2 * (v in floating))
        for v, (size, lane, rank) in enumerate(zip(sizes, lanes.lanes, lanes.ranks, strict=True))
    ]
    lines = []
    for e, edge in enumerate(edges):
        points = [(starts[e], corners[edge.src][1] + sizes[edge.src].height)]
        for turn in (t for t in turns if t.edge == e):
            level = bottoms[turn.rank] + RANK_GAP / 2 + TRACK * turn.track
            points += [(turn.start, level), (turn.stop, level)]
        points.append((stops[e], corners[edge.dst][1]))
        lines.append(points)
    width = max((x + size.width for (x, _), size in zip(corners, sizes, strict=True)), default=0.0)
    width = max([width, *(x for line in lines for x, _ in line)])
    return Drawn(corners, lines, width, bottoms[-1] if bottoms else 0.0)


def _middles(sizes: Sequence[Size], lanes: Lanes) -> dict[int, float]:
    """The middle of each lane."""
    used = sorted({*lanes.lanes, *lanes.edge_lanes})
    widths = {lane: max((s.width for s, at in zip(sizes, lanes.lanes, strict=True) if at == lane), default=0.0) for lane in used}
    x, before, found = 0.0, 0.0, {}
    for k, lane in enumerate(used):
        if k:
            x += LANE_GAP if widths[lane] and before else LINE_GAP
        found[lane], before = x + widths[lane] / 2, widths[lane]
        x += widths[lane]
    return found


def _ports(
    sizes: Sequence[Size], edges: Sequence[Edge], lanes: Lanes, middle: dict[int, float]
) -> tuple[list[float], list[float]]:
    """Where each line leaves its box, and where it enters the next: in the order of the lanes to which it goes, so none cross."""
    starts, stops = [0.0] * len(edges), [0.0] * len(edges)
    for found, own, other in ((starts, "src", "dst"), (stops, "dst", "src")):
        for v, size in enumerate(sizes):
            here = [e for e, edge in enumerate(edges) if getattr(edge, own) == v]
            way = {e: _next_lane(e, edges, lanes, getattr(edges[e], other)) - lanes.lanes[v] for e in here}
            order = sorted(here, key=lambda e: (way[e], e))
            straight = next((k for k, e in enumerate(order) if way[e] == 0), (len(order) - 1) / 2)
            longer = max(straight, len(order) - 1 - straight)
            step = min(PORT, (size.width / 2 - 8) / max(1, longer))
            for k, e in enumerate(order):
                found[e] = middle[lanes.lanes[v]] + step * (k - straight)
    _part(edges, lanes, starts, stops)
    return starts, stops


def _part(edges: Sequence[Edge], lanes: Lanes, starts: list[float], stops: list[float]) -> None:
    """Move what enters a box aside where it would cover what leaves the box above, for another one.

    That is where the former turns above the latter, which lines do that go to a box in the next rank without a lane of their own.
    """
    leaving: dict[tuple[int, int], list[int]] = {}
    entering: dict[tuple[int, int], list[int]] = {}
    for e, edge in enumerate(edges):
        leaving.setdefault((lanes.lanes[edge.src], lanes.ranks[edge.src]), []).append(e)
        entering.setdefault((lanes.lanes[edge.dst], lanes.ranks[edge.dst] - 1), []).append(e)
    for place, here in entering.items():
        for e in here:
            high = _direct(e, edges, lanes) and _outward(edges[e], lanes)
            above = [
                f
                for f in leaving.get(place, [])
                if f != e and (high or (_direct(f, edges, lanes) and not _outward(edges[f], lanes)))
            ]
            if any(starts[f] == stops[e] for f in above):
                others = {starts[f] for f in leaving[place]} | {stops[f] for f in here if f != e}
                shifts = (PORT * k / 8 for k in (4, -4, 2, -2, 3, -3, 5, -5, 1, -1))
                stops[e] = next((x for shift in shifts if (x := stops[e] + shift) not in others), stops[e])


def _direct(e: int, edges: Sequence[Edge], lanes: Lanes) -> bool:
    """Whether a line leads to the next rank, and so needs no lane of its own."""
    return lanes.ranks[edges[e].dst] - lanes.ranks[edges[e].src] == 1


def _outward(edge: Edge, lanes: Lanes) -> bool:
    """Whether a line leads away from the main lane. If it needs no lane of its own it then turns above those that arrive."""
    return abs(lanes.lanes[edge.src]) < abs(lanes.lanes[edge.dst])


def _next_lane(e: int, edges: Sequence[Edge], lanes: Lanes, other: int) -> int:
    """The lane to which a line goes from its box."""
    return lanes.lanes[other] if _direct(e, edges, lanes) else lanes.edge_lanes[e]


def _turns(edges: Sequence[Edge], lanes: Lanes, middle: dict[int, float], starts: list[float], stops: list[float]) -> list[_Turn]:
    """All changes of lane, for each line from top to bottom."""
    turns = []
    for e, edge in enumerate(edges):
        above, below = lanes.ranks[edge.src], lanes.ranks[edge.dst] - 1
        src, lane, dst = lanes.lanes[edge.src], lanes.edge_lanes[e], lanes.lanes[edge.dst]
        if above == below:
            turns.append(_Turn(e, above, starts[e], stops[e], _outward(edge, lanes), abs(src - dst)))
        else:
            turns.append(_Turn(e, above, starts[e], middle[lane], True, abs(src - lane)))
            turns.append(_Turn(e, below, middle[lane], stops[e], False, abs(lane - dst)))
    return [t for t in turns if t.start != t.stop]


def _stack(turns: list[_Turn]) -> int:
    """Put the turns of a gap on tracks, so that none covers another; return how many tracks there are."""
    done: list[_Turn] = []
    for turn in sorted(turns, key=lambda t: t.order):
        turn.track = 1 + max((t.track for t in done if t.meets(turn)), default=-1)
        done.append(turn)
    return 1 + max((t.track for t in done), default=-1)
