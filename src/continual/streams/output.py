"""The outputs of a stream: values with the moment that they are about, and what they were computed from."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .clock import Axis
from .moments import Moments

WARMING_UP, GAP, INTERPOLATED = "warming_up", "gap", "interpolated"


class Flags(frozenset[str]):
    """What an output was computed from: a set of names, and attributes of the same names.

    Example:
        >>> flags = Flags({"gap"})
        >>> flags.gap, flags.warming_up, "gap" in flags
        (True, False, True)
    """

    __slots__ = ()

    @property
    def warming_up(self) -> bool:
        """Whether the output sees padding before the first frame, or before the first one after a restart."""
        return WARMING_UP in self

    @property
    def gap(self) -> bool:
        """Whether it sees a step that stands for a missing frame."""
        return GAP in self

    @property
    def interpolated(self) -> bool:
        """Whether it sees a step that was computed between two frames."""
        return INTERPOLATED in self

    def __repr__(self) -> str:
        return f"Flags({', '.join(sorted(self))})"


_SETS = {n: Flags(name for i, name in enumerate((WARMING_UP, GAP, INTERPOLATED)) if n >> i & 1) for n in range(8)}


@dataclass(frozen=True)
class StreamOutput:
    """One output of a stream.

    Attributes:
        value: what the network gives for a step, ``(B, C', *S')``; of a stream of a batch, without ``B``.
        time: the moment of the input that it is about, in seconds; ``None`` if the rate of the stream is not known.
        index: the same as the sequence number of a frame, or where frames have none, the number of steps since the first one.
        flags: what it was computed from.
    """

    value: Any
    time: float | None
    index: int | float
    flags: Flags


@dataclass
class Numbering:
    """The steps and the outputs of a network since it last started, and which of these steps had no frame of their own.

    Attributes:
        axis: of the steps.
        steps: taken.
        outputs: returned.
        gaps, between: the first and the last of steps that stand for missing frames, and of steps between two frames, as far as outputs to
            come see them.
    """

    axis: Axis
    steps: int = 0
    outputs: int = 0
    gaps: deque[tuple[int, int]] = field(default_factory=deque)
    between: deque[tuple[int, int]] = field(default_factory=deque)

    def copy(self) -> Numbering:
        """An independent copy."""
        return Numbering(self.axis, self.steps, self.outputs, deque(self.gaps), deque(self.between))

    def took(self, count: int, gap: bool, between: bool) -> None:
        """Count steps."""
        first, last = self.steps, self.steps + count - 1
        for runs, marked in ((self.gaps, gap), (self.between, between)):
            if marked and runs and runs[-1][1] == first - 1:
                runs[-1] = runs[-1][0], last
            elif marked:
                runs.append((first, last))
        self.steps += count

    def numbered(self, values: list[Any], moments: Moments) -> list[StreamOutput]:
        """The next outputs."""
        return [self._next(value, moments) for value in values]

    def _next(self, value: Any, moments: Moments) -> StreamOutput:
        first, last = moments.span(self.outputs)
        moment = moments.moment(self.outputs)
        self.outputs += 1
        flags = (first < 0) + 2 * _meets(self.gaps, first, last) + 4 * _meets(self.between, first, last)
        return StreamOutput(value, self.axis.time_of(moment), self.axis.index_of(moment), _SETS[flags])


def _meets(runs: deque[tuple[int, int]], first: int, last: int) -> bool:
    """Whether one of some runs of steps meets those from ``first`` to ``last``. Runs before these are forgotten."""
    while runs and runs[0][1] < first:
        runs.popleft()
    return bool(runs) and runs[0][0] <= last


__all__ = ["Flags", "StreamOutput"]
