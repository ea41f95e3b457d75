"""How many frames there are on the wires of a graph for clips of 0, 1, 2, … steps, each computed once."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from .timing import Entry

LEAST = 64  # rows of a column
Columns = tuple["array[int]", "array[int]"]  # what has come, and how many there would be at the end, by the steps of the clip


class CountTable:
    """The counts of all wires of a graph. The table grows with the lengths and the wires that are asked for.

    Args:
        entries: of the graph, which may grow, too.
        ahead: the steps of every clip that goes on; ``None``: it ends where it is looked at.

    Example:
        >>> from continual.core.timing import Window
        >>> table = CountTable([(None, ()), (Window(3, start=1, end=1), (0,))])
        >>> [table.come(1, n) for n in range(5)], [table.ended(1, n) for n in range(5)]
        ([0, 0, 1, 2, 3], [0, 1, 2, 3, 4])
    """

    def __init__(self, entries: Sequence[Entry], ahead: int | None = None):
        self._entries, self._ahead = entries, ahead
        self._columns: dict[int, Columns] = {}
        self._settled: dict[int, int] = {}

    def come(self, wire: int, steps: int) -> int:
        """The frames that have come on a wire after so many steps."""
        return self._upto(wire, steps)[0][steps]

    def ended(self, wire: int, steps: int) -> int:
        """The frames of a wire, if the clip ends where the table says."""
        return self._upto(wire, steps)[1][steps]

    def settled(self, wire: int) -> int:
        """The steps after which the counts of a wire are periodic: each timing on its way has had as many inputs as it takes to be so.

        The transient of a composition adds those of its parts, and grows with each part of a deep network. This one is as long as the
        wires need at the same time.
        """
        for i in self._needed(wire) if wire not in self._settled else ():
            timing, inputs = self._entries[i]
            found = max((self._settled[j] for j in inputs), default=0)
            for j in inputs if timing is not None else ():
                found = self._first(j, timing.transient, found)  # type: ignore[union-attr]
            self._settled[i] = found
        return self._settled[wire]

    def _first(self, wire: int, frames: int, steps: int) -> int:
        """The first number of steps from ``steps`` on after which so many frames have come, and would be there at the end."""
        while min(self.come(wire, steps), self.ended(wire, steps)) < frames:
            steps += 1
        return steps

    def _needed(self, wire: int) -> list[int]:
        """The wires on which one depends, and itself, in order."""
        needed = {wire}
        for i in range(wire, 0, -1):
            if i in needed:
                needed.update(self._entries[i][1])
        return sorted(needed)

    def _upto(self, wire: int, steps: int) -> Columns:
        """The columns of a wire, for clips of so many steps at least."""
        found = self._columns.get(wire)
        if found is None or len(found[0]) <= steps:
            rows = max(LEAST, 2 * len(found[0]) if found else 0, steps + 1)
            for i in self._needed(wire):
                self._extend(i, rows)
            found = self._columns[wire]
        return found

    def _extend(self, wire: int, rows: int) -> None:
        """Compute the columns of a wire, those of its inputs being there."""
        come, ended = self._columns.setdefault(wire, (array("q"), array("q")))
        timing, inputs = self._entries[wire]
        before = [self._columns[j] for j in inputs]
        for n in range(len(come), rows):
            pairs = [(a[n], b[n]) for a, b in before] or [(n, n if self._ahead is None else self._ahead)]
            a, b = timing.of_wires(*pairs) if timing is not None else (min(p[0] for p in pairs), min(p[1] for p in pairs))
            come.append(a)
            ended.append(b)
