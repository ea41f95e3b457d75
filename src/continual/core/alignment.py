"""How long parallel branches wait for each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .count_table import CountTable
from .timing import IDENTITY, Entry, Timing
from .timing_graph import aligned


def waiting(
    branches: tuple[Timing, ...], before: Timing = IDENTITY, shared: tuple[CountTable, Sequence[int]] | None = None
) -> list[int]:
    """The depth of each branch's queue: the most frames of it that wait for the slowest branch, for any chunks.

    Args:
        branches: the branches' timings.
        before: the timing from the network's input to the wire that feeds the branches.
        shared: the counts of a graph in which the branches end on these wires, where they are fed by the network's input. A table
            for each of many queues would take time that grows with the square of the network's depth.

    Example:
        >>> from continual.core.timing import Window
        >>> waiting((Window(), Window(3, start=1, end=1)))  # a residual connection
        [1, 0]
        >>> waiting((Window(stride=2), Window(3, 2, 1, 1).then(Window(3, start=1, end=1))))
        [2, 0]
    """
    arriving = before.constant_rate()
    rates = [b.constant_rate(arriving.lookahead) for b in branches] if arriving else [None]
    if all(r is not None and r.delay >= 0 for r in rates):
        slowest = max(r.delay for r in rates if r)
        return [math.ceil((slowest - r.delay) / r.stride) for r in rates if r]
    depths = [0] * len(branches)
    if shared is None:
        entries, ends = _side_by_side(branches, before)
        shared = CountTable(entries), ends
    (table, wires), period = shared, before.then(aligned(*branches)).period
    for t in range(max(map(table.settled, wires)) + 2 * period + 1):
        delivered = [table.come(wire, t) for wire in wires]
        depths = [max(d, n - min(delivered)) for d, n in zip(depths, delivered, strict=True)]
    return depths


def _side_by_side(branches: tuple[Timing, ...], before: Timing) -> tuple[list[Entry], list[int]]:
    """A graph of some branches, in which what they have in common is one wire; and the wires of their ends."""
    places: dict[Entry, int] = {(None, ()): 0}

    def added(timing: Timing, start: int) -> int:
        graph, at = timing.graph, {0: start}
        for i in graph.order[1:]:
            own, inputs = graph.entries[i]
            at[i] = places.setdefault((own, tuple(at[j] for j in inputs)), len(places))
        return at[graph.out]

    start = added(before, 0)
    ends = [added(branch, start) for branch in branches]
    return list(places), ends
