"""Where the boxes of a drawing go: ranks from top to bottom, lanes from left to right.

A box stands one rank below the lowest of those whose outputs it takes. The graph falls into *chains*, each in a lane of its own: the
longest path from top to bottom is the main one, in lane 0. What leaves it and comes back without a box on its way (a residual
connection and the queue in it) runs to the left, branches with boxes run to the right. A chain has its lane to itself on all ranks that
it passes, and lines change lanes between ranks only, so no line runs over a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Edge:
    """A line from a box to a later one."""

    src: int
    dst: int


@dataclass
class Chain:
    """Boxes below each other in one lane, and the lines that lead to the first and from the last. Without boxes: one line.

    Attributes:
        nodes: from top to bottom.
        edges: all lines that run in this lane.
        first, last: the ranks that it passes.
        parent: the chain that it branches off from, or else joins.
        lane: 0 for the main one.
    """

    nodes: list[int]
    edges: list[int] = field(default_factory=list)
    first: int = 0
    last: int = 0
    parent: int | None = None
    lane: int = 0


@dataclass(frozen=True)
class Lanes:
    """What was decided: ``ranks`` and ``lanes`` of the boxes, and the lane in which each line runs between its ends."""

    ranks: list[int]
    lanes: list[int]
    edge_lanes: list[int]


def assign(size: int, edges: Sequence[Edge], floating: frozenset[int]) -> Lanes:
    """Ranks and lanes.

    Args:
        size: how many boxes, each after those whose outputs it takes.
        edges: the lines.
        floating: boxes that may stand anywhere between their neighbours (queues): they go to the middle, and to the left.

    Example:
        >>> residual = [Edge(0, 1), Edge(1, 2), Edge(2, 4), Edge(0, 3), Edge(3, 4)]
        >>> assign(5, residual, frozenset({3}))
        Lanes(ranks=[0, 1, 2, 1, 3], lanes=[0, 0, 0, -1, 0], edge_lanes=[0, 0, 0, -1, -1])
    """
    ranks = _ranks(size, edges, floating)
    chains, of_node = _chains(size, edges, floating, ranks)
    _lead(chains, of_node, edges, ranks)
    _place(chains, edges, of_node, floating)
    edge_lanes = [0] * len(edges)
    for chain in chains:
        for e in chain.edges:
            edge_lanes[e] = chain.lane
    return Lanes(ranks, [chains[c].lane for c in of_node], edge_lanes)


def _ranks(size: int, edges: Sequence[Edge], floating: frozenset[int]) -> list[int]:
    below, above = _neighbours(size, edges)
    ranks = [0] * size
    for v in range(size):
        ranks[v] = 1 + max((ranks[edges[e].src] for e in above[v]), default=-1)
    for v in reversed(range(size)):
        nearest = min((ranks[edges[e].dst] for e in below[v]), default=ranks[v] + 1) - 1
        if not above[v]:
            ranks[v] = nearest  # an input stands next to where it is used
        elif v in floating:
            ranks[v] += (nearest - ranks[v]) // 2
    alone = [v for v in range(size) if not above[v] and not below[v]]
    free = 1 + max((ranks[v] for v in range(size) if v not in alone), default=-1)
    for i, v in enumerate(alone):
        ranks[v] = free + i  # below all others
    return ranks


def _neighbours(size: int, edges: Sequence[Edge]) -> tuple[list[list[int]], list[list[int]]]:
    """For each box the lines that leave it, and those that arrive."""
    below: list[list[int]] = [[] for _ in range(size)]
    above: list[list[int]] = [[] for _ in range(size)]
    for e, edge in enumerate(edges):
        below[edge.src].append(e)
        above[edge.dst].append(e)
    return below, above


def _chains(size: int, edges: Sequence[Edge], floating: frozenset[int], ranks: list[int]) -> tuple[list[Chain], list[int]]:
    """Each box goes on in the box from which the longest way leads down; of several that want to, the oldest chain does."""
    below, above = _neighbours(size, edges)
    weight = [0 if v in floating else 1 for v in range(size)]
    down = [0] * size
    onward = [-1] * size
    for v in reversed(range(size)):
        if below[v]:
            onward[v] = max(below[v], key=lambda e: (down[edges[e].dst], -e))
            down[v] = down[edges[onward[v]].dst]
        down[v] += weight[v]
    chains: list[Chain] = []
    of_node = [-1] * size
    for v in sorted(range(size), key=lambda v: (ranks[v], -down[v])):
        willing = [e for e in above[v] if onward[edges[e].src] == e]
        if willing:
            e = min(willing, key=lambda e: of_node[edges[e].src])
            of_node[v] = of_node[edges[e].src]
            chains[of_node[v]].nodes.append(v)
            chains[of_node[v]].edges.append(e)
        else:
            of_node[v] = len(chains)
            chains.append(Chain([v]))
    return chains, of_node


def _lead(chains: list[Chain], of_node: list[int], edges: Sequence[Edge], ranks: list[int]) -> None:
    """Give the other lines to a chain that they lead to or from, or make them chains of their own."""
    taken = {e for chain in chains for e in chain.edges}
    for chain in chains:
        top, bottom = chain.nodes[0], chain.nodes[-1]
        chain.first, chain.last = ranks[top], ranks[bottom]
        into = next((e for e, edge in enumerate(edges) if edge.dst == top and e not in taken), None)
        if into is not None:
            taken.add(into)
            chain.edges.append(into)
            chain.first = ranks[edges[into].src] + 1
            chain.parent = of_node[edges[into].src]
        out = [e for e, edge in enumerate(edges) if edge.src == bottom and e not in taken]
        if out:
            e = max(out, key=lambda e: ranks[edges[e].dst])
            taken.add(e)
            chain.edges.append(e)
            chain.last = ranks[edges[e].dst] - 1
            if chain.parent is None:
                chain.parent = of_node[edges[e].dst]
    for e, edge in enumerate(edges):
        if e not in taken:
            chains.append(Chain([], [e], ranks[edge.src] + 1, ranks[edge.dst] - 1, of_node[edge.src]))


def _place(chains: list[Chain], edges: Sequence[Edge], of_node: list[int], floating: frozenset[int]) -> None:
    """The nearest free lane beyond the parent's, for short chains first: nested ones then do not cross."""
    children: dict[int | None, list[int]] = {}
    for c, chain in enumerate(chains):
        children.setdefault(chain.parent if c else None, []).append(c)
    used: dict[int, list[Chain]] = {}
    placed: set[int] = set()
    for root in [*children.get(None, []), *range(len(chains))]:  # the second: chains that branch off from each other
        stack = [root]
        while stack:
            c = stack.pop()
            if c in placed:
                continue
            placed.add(c)
            chain = chains[c]
            side = -1 if _is_bare(c, chain, edges, of_node, floating) else 1
            parent = None if chain.parent is None else chains[chain.parent].lane
            lane = 0 if parent is None or c == 0 else parent + side if parent * side >= 0 else side
            while any(_meet(chain, other) for other in used.get(lane, [])):
                lane += side
            chain.lane = lane
            used.setdefault(lane, []).append(chain)
            stack += sorted(children.get(c, []), key=lambda k: (chains[k].last - chains[k].first, k), reverse=True)


def _is_bare(c: int, chain: Chain, edges: Sequence[Edge], of_node: list[int], floating: frozenset[int]) -> bool:
    """Whether a chain leaves the main one and comes back without a box on its way."""
    if c == 0 or not floating.issuperset(chain.nodes):
        return False
    own = set(chain.nodes)
    ends = {of_node[v] for e in chain.edges for v in (edges[e].src, edges[e].dst) if v not in own}
    return ends == {0}


def _meet(a: Chain, b: Chain) -> bool:
    """Whether two chains pass a common rank, or one begins right below the other, where their lines would touch."""
    if a.first > a.last or b.first > b.last:  # a line to the next rank passes none
        return False
    touch = bool(a.edges and b.edges)
    return a.first <= b.last + touch and b.first <= a.last + touch
