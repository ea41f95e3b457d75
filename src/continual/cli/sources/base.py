"""What a source is: frames with their moments, as blocks of a signal or as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

BLOCK = 1024  # frames that are read at once, where they need not come in time


@dataclass(frozen=True)
class Block:
    """Some frames of a signal, one after another.

    Attributes:
        frames: ``(n, …)``.
        times: seconds of each, since the start of the source; ``None`` where its rate is not known.
    """

    frames: np.ndarray
    times: np.ndarray | None

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.frames)

    @property
    def end(self) -> float | None:
        """The moment of the last one."""
        return None if self.times is None or not len(self.times) else float(self.times[-1])


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a source.

    Attributes:
        rate: frames per second, where the source does not say it.
        pause: seconds of a signal to read at once, where it is to come in time; ``None``: as many frames as are quick to read.
        channels: those that the network takes, where a device can be opened with any number of them.
    """

    rate: float | None = None
    pause: float | None = None
    channels: int = 1

    def block(self, rate: float | None) -> int:
        """Frames of a signal to read at once."""
        return BLOCK if self.pause is None else max(1, round(self.pause * rate)) if rate else 1


@dataclass
class Facts:
    """What is known of a source once it is open.

    Attributes:
        name: for messages.
        rate: frames per second; ``None`` if it is not known.
        frames: their number; ``None`` if it is not known.
        live: whether frames come as time passes, whoever reads them or not.
        channels: names of the numbers in a frame; empty where they have none.
        notes: what the user should know, a line each.
    """

    name: str
    rate: float | None = None
    frames: int | None = None
    live: bool = False
    channels: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)


class Signal(Protocol):
    """A source of frames that are some numbers each."""

    facts: Facts

    def blocks(self) -> Iterator[Block]:
        """All frames, block by block."""

    def close(self) -> None:
        """Give back the file, the device or the connection."""


class Whole:
    """A signal that is in memory, or mapped into it: the base of readers of files.

    Args:
        facts: what is known of it.
        frames: ``(T, …)``.
        times: of the frames; by default their number divided by the rate.
        block: frames of a block.
    """

    def __init__(self, facts: Facts, frames: Any, times: np.ndarray | None = None, block: int = BLOCK):
        self.facts, self._frames, self._times, self._block = facts, frames, times, block
        self.facts.frames = len(frames)

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self._frames), self._block):
            part = np.asarray(self._frames[start : start + self._block])
            times = self._times[start : start + len(part)] if self._times is not None else moments(start, len(part), self.facts)
            yield Block(part, times)

    def close(self) -> None:
        """Nothing is open."""


def moments(start: int, count: int, facts: Facts) -> np.ndarray | None:
    """The moments of some frames of a regular signal."""
    return None if not facts.rate else np.arange(start, start + count) / facts.rate
