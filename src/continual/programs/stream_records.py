"""Records that a batch of streams returns: statistics, and the outputs of finished streams."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Statistics:
    """Counters of a batch of streams.

    Attributes:
        streams: open streams.
        capacity: rows of the program.
        steps: steps of all streams so far.
        calls: calls of the program so far.
        milliseconds: the mean duration of a call; on a GPU, the time to launch it.
    """

    streams: int
    capacity: int
    steps: int
    calls: int
    milliseconds: float


class Ended(NamedTuple):
    """The outputs of a finished stream since they were last returned.

    Attributes:
        stream: its id.
        y: the outputs ``(C', n, *S')``; ``None`` if there are none.
        done: whether these are the last. Then the stream is closed.
    """

    stream: Hashable
    y: Any
    done: bool
