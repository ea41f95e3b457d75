"""Graphs of timings while they are built: modules one after another, and branches that wait for each other."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ShapeMismatch
from .count_table import CountTable
from .timing import IDENTITY, Entry, Timing, Wiring

AHEAD = 1 << 40  # more frames than any stream is known to have


def aligned(*timings: Timing) -> Timing:
    """Branches that are fed together and wait for each other: output ``j`` leaves when the slowest has it, and exists if all have it.

    Raises:
        ShapeMismatch: if their strides differ, since their outputs then belong to different moments.
    """
    wires = Wires()
    wire = wires.meet(wires.then(0, timing) for timing in timings or (IDENTITY,))
    timing, inputs = wires.entries[wire]
    return IDENTITY if wire == 0 else wires.timing(wire) if timing is None or inputs != (0,) else timing


class Wires:
    """A graph of timings while it is built. Equal timings are one wire.

    Attributes:
        entries: of the wires so far.
        clips: the counts of all wires for clips that end, by their length.
        streams: the same while a stream goes on.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = [(None, ())]
        self._wires: dict[Entry, int] = {(None, ()): 0}
        self.clips, self.streams = CountTable(self.entries), CountTable(self.entries, AHEAD)

    def timing(self, wire: int) -> Wiring:
        """The timing of a wire, from the network's input on."""
        return Wiring(tuple(self.entries[: wire + 1]), wire)

    def then(self, wire: int, timing: Timing) -> int:
        """The wire behind a module; the graph of a composed timing becomes part of this one."""
        if not isinstance(timing, Wiring):
            return wire if timing == IDENTITY else self._add(timing, (wire,))
        place = {0: wire}
        for i in timing.order[1:]:
            own, inputs = timing.entries[i]
            places = [place[j] for j in inputs]
            place[i] = self.meet(places) if own is None else self.fit(places[0], places[-1], own)
        return place[timing.out]

    def fit(self, wire: int, to: int, timing: Timing) -> int:
        """The wire behind a timing, with as many frames as a function of the length of wire ``to`` says."""
        return self._add(timing, (wire,) if to == wire else (wire, to))

    def meet(self, wires: Iterable[int]) -> int:
        """The wire on which several wait for each other; one of them, if waiting for the others changes nothing about it.

        Raises:
            ShapeMismatch: their strides differ, so that their outputs belong to different moments.
        """
        timings = {w: self.timing(w) for w in sorted(set(wires))}
        if len(strides := {t.stride for t in timings.values()}) > 1:
            raise ShapeMismatch(
                f"parallel branches have temporal strides {sorted(strides)}: their outputs belong to different moments. "
                "Give every branch the same stride (for instance a strided 1×1 convolution in the shortcut)"
            )
        for wire in timings:
            if all(_covers(timings[wire], other) for w, other in timings.items() if w != wire):
                return wire
        return self._add(None, tuple(timings))

    def _add(self, timing: Timing | None, inputs: tuple[int, ...]) -> int:
        entry = timing, inputs
        if entry not in self._wires:
            self._wires[entry] = len(self.entries)
            self.entries.append(entry)
        return self._wires[entry]


def _covers(slow: Wiring, fast: Wiring) -> bool:
    """Whether waiting for ``fast`` changes nothing about ``slow``: it is never ahead, and sees all that ``fast`` sees."""
    p, q = slow.eventually_constant(), fast.eventually_constant()
    if p is None or q is None or p.lookahead is None or q.lookahead is None or slow.phase_dependent or fast.phase_dependent:
        return False
    no_burst = not (p.after or q.after)  # a burst of padding may come before the other wire has anything
    return no_burst and q.delay <= p.delay and slow.closed_form.covers(fast.closed_form)
