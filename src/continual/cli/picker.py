"""Selects the frames of a video that are steps of a network, by time or by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from .sources.video import Picture
from .target import BadInput

LONGEST_GAP = 3600  # seconds between two frames: more is a broken time stamp


class Picker:
    """Selects the frames of a video that are steps of a network.

    Args:
        period: seconds from one step to the next; the frame nearest to each multiple is taken, more than once if frames come
            more rarely.
        every: take every ``every``-th frame instead, regardless of time.
        live: frames come as time passes: what was missed is not made up for by repeating frames.

    Attributes:
        missed: steps for which a live frame came too late.
    """

    def __init__(self, period: Fraction, every: int | None = None, live: bool = False):
        self.period, self.every, self.live, self.missed = period, every, live, 0

    def __call__(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Frames, in the order of the steps.

        Raises:
            BadInput: time stamps jump by an hour, or backwards by a second.
        """
        if self.every is not None:
            every = self.every
            return (p for p in pictures if p.index % every == 0)
        return self._by_time(pictures)

    def _by_time(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        before: Picture | None = None
        last = Fraction(1, 30)  # duration of the newest frame in seconds
        wanted = Fraction(0)
        for now in pictures:
            if before is not None:
                last = now.time - before.time
                if not -1 < last < LONGEST_GAP:
                    raise BadInput(
                        f"the time stamps jump by {float(last):.1f} s at frame {now.index}: --every K takes frames by their number"
                    )
            while wanted <= now.time:
                yield before if before is not None and wanted - before.time <= now.time - wanted else now
                wanted += self.period
                if self.live and wanted <= now.time:
                    late = int((now.time - wanted) / self.period) + 1
                    self.missed += late
                    wanted += late * self.period
            before = now
        while before is not None and not self.live and wanted - before.time < last / 2:
            yield before  # the next frame is further from the wanted time
            wanted += self.period


def frames_for(step: int, period: Fraction, every: int | None, rate: Fraction) -> int:
    """The fewest frames of a video that give the steps before its last frame."""
    return step * every + 1 if every is not None else round(step * period * rate) + 1
