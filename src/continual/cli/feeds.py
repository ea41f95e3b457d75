"""The inputs of a network: steps made of the frames of a source, one by one for pictures and in chunks for signals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from .fitting import Layout, chosen, prepared, steps_of
from .pacing import Clocked
from .picker import Picker, frames_for
from .sources import opened
from .sources.base import Asked, Block, Facts
from .sources.video import Picture
from .target import BadInput

PAUSE = 0.02  # seconds of a signal that are taken at once in real time
TOLERATED = 0.01  # by which the rates of a source and of a network may differ


@dataclass(frozen=True)
class Steps:
    """Consecutive steps for a network.

    Attributes:
        steps: ``(n, *step)``.
        times: the moment of each, in seconds.
        signal: the frames as they came.
        picture: the frame that the step is.
    """

    steps: Tensor
    times: list[float | None]
    signal: np.ndarray | None = None
    picture: Picture | None = None


@dataclass(frozen=True)
class Wanted:
    """How steps are to be made.

    Attributes:
        columns: channels of a signal.
        rate: steps per second that were asked for; ``own`` those of the network's training.
        every: of pictures every so many are steps, regardless of time.
        gaps: what stands for missing frames of a signal; ``None``: frames follow each other.
        realtime: whether a file is read as fast as it was recorded.
        mean, std: pixels between 0 and 1 are normalised by them.
    """

    columns: str | None = None
    rate: float | None = None
    own: Fraction | None = None
    every: int | None = None
    gaps: str | None = None
    realtime: bool = False
    mean: float = 0.0
    std: float = 1.0

    @property
    def known(self) -> Fraction | None:
        """Steps per second of the network, as far as they are known."""
        return self.own if self.rate is None else Fraction(self.rate).limit_denominator(10**6)


def feed_of(source: str, layout: Layout, wanted: Wanted) -> Feed:
    """Open a source for a network.

    Raises:
        BadInput: it can't be opened, or the network takes something else.
    """
    known = None if wanted.known is None else float(wanted.known)
    in_time = wanted.realtime or source.partition(":")[0] in ("mic", "microphone", "lsl")
    found = opened(source, Asked(known, PAUSE if in_time else None, layout.channels), layout.takes_pictures)
    try:
        return (PictureFeed if hasattr(found, "pictures") else SignalFeed)(found, layout, wanted)
    except BaseException:
        found.close()
        raise


class Feed(ABC):
    """A source as steps of a network.

    Attributes:
        facts: of the source.
        period: seconds of a step; ``None`` where they are not known.
        source_rate: frames per second, if they are not the network's.
        seen: frames of the source, so far.
        missed: steps that had no frame of their own.
    """

    period: Fraction | None
    source_rate: float | None = None
    seen = missed = 0

    def __init__(self, source: Any, layout: Layout, wanted: Wanted):
        self.source, self.layout, self.wanted = source, layout, wanted
        self.facts: Facts = source.facts
        self._clocked: Clocked[Any] | None = None

    @property
    def dropped(self) -> int:
        """Frames that had to go, because the network was too slow."""
        return (0 if self._clocked is None else self._clocked.dropped) + int(getattr(self.source, "dropped", 0))

    def frames(self, steps: int) -> int:
        """The fewest frames that give so many steps."""
        return steps

    def close(self) -> None:
        """Stop reading, and give back the source."""
        if self._clocked is None or self._clocked.close():
            self.source.close()

    @abstractmethod
    def __iter__(self) -> Iterator[Steps]:
        """The steps, until the source ends."""


class SignalFeed(Feed):
    """The frames of a signal; every frame is a step."""

    def __init__(self, source: Any, layout: Layout, wanted: Wanted):
        super().__init__(source, layout, wanted)
        rate, known = self.facts.rate, wanted.known
        other = rate and known and abs(rate / float(known) - 1) > TOLERATED
        if rate and known and other and wanted.gaps is None:
            raise BadInput(
                f"'{self.facts.name}' has {rate:g} frames per second, and the network takes {float(known):g}: convert the recording to "
                f"this rate, run the network at that of the recording with --rate {rate:g}, or resample it linearly with --gaps interpolate"
            )
        self.source_rate = rate if other else None
        known = Fraction(rate).limit_denominator(10**6) if rate and not other else known
        self.period = None if known is None else 1 / known
        if wanted.realtime and self.period is None:
            raise BadInput(f"--realtime: '{self.facts.name}' does not say how many frames it has in a second: --rate says it")

    def __iter__(self) -> Iterator[Steps]:
        blocks: Iterable[Block] = self.source.blocks()
        if self.wanted.realtime and not self.facts.live:
            blocks = self._clocked = Clocked(blocks, lambda b: b.end, lambda b: b.count, pace=True)
        for block in blocks:
            frames = chosen(block, self.wanted.columns, self.facts)
            if self.wanted.gaps is None and not np.isfinite(frames).all():
                bad = int(np.flatnonzero(~np.isfinite(frames.reshape(len(frames), -1)).all(1))[0])
                raise BadInput(f"'{self.facts.name}': frame {self.seen + bad + 1} is not a finite number")
            steps = steps_of(frames, self.layout, self.facts)
            self.seen += block.count
            yield Steps(steps, [None] * block.count if block.times is None else block.times.tolist(), frames)


class PictureFeed(Feed):
    """The frames of a video that are steps, scaled and normalised."""

    def __init__(self, source: Any, layout: Layout, wanted: Wanted):
        super().__init__(source, layout, wanted)
        if not layout.takes_pictures:
            raise BadInput(f"'{self.facts.name}' is a video, and the network takes steps of shape {layout.step}")
        if wanted.gaps is not None:
            raise BadInput("--gaps is for signals: of a video the frames nearest to each step are taken")
        self._every = wanted.every if wanted.every is not None or (wanted.known and source.rate) else 1
        if self._every is not None:
            self.period = None if not source.rate else self._every / source.rate
        else:
            self.period = 1 / wanted.known if wanted.known else None
        self._picker = Picker(self.period or Fraction(1), self._every, self.facts.live or wanted.realtime)

    @property
    def missed(self) -> int:  # type: ignore[override]
        return self._picker.missed

    def frames(self, steps: int) -> int:
        return frames_for(steps - 1, self.period or Fraction(1), self._every, self.source.rate or Fraction(1))

    def __iter__(self) -> Iterator[Steps]:
        pictures: Iterable[Picture] = self.source.pictures()
        if self.facts.live or self.wanted.realtime:
            pictures = self._clocked = Clocked(pictures, lambda p: float(p.time), lambda p: 1, pace=not self.facts.live)
        timed = self.source.rate is not None
        for picture in self._picker(self._counted(pictures)):
            step = prepared(picture.frame, self.layout.step[1:], self.wanted.mean, self.wanted.std)  # type: ignore[arg-type]
            if self.layout.step[0] == 1:
                step = step.mean(1, keepdim=True)
            yield Steps(step, [float(picture.time) if timed else None], picture=picture)

    def _counted(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        for picture in pictures:
            self.seen = picture.index + 1
            yield picture
