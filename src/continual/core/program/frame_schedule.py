"""Where the frames of a wire stand in a step program: every call brings equally many of each row, and their indices follow from the clock.

What a network delivers becomes periodic. From there on each call of a program, which brings `chunk` input frames, brings a fixed number of
frames on every wire, the first of which has an index that grows by that number. So shapes are static, and a row's clock says it all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ...errors import NotStreamable
from ..timing import Timing

OPEN = 1 << 62  # the end of a stream that has none
FAR = 1 << 48  # an end so far away that no stream comes there, and so near that counts behind upsampling do not overflow
FAR_IN_32_BITS = 1 << 30


@dataclass(frozen=True)
class Pace:
    """The frames of a wire in a program: call ``k`` of a row brings the frames ``first + frames*k`` up to ``first + frames*(k+1) - 1``.

    Frames with a negative index are from before the stream's beginning; what they hold means nothing.
    """

    frames: int
    first: int


@functools.lru_cache(maxsize=4096)
def pace_of(timing: Timing, chunk: int, start: int) -> Pace:
    """The pace of a wire.

    Args:
        timing: of the wire, from the network's input on.
        chunk: input frames per call.
        start: the index of the first input frame of call 0, not above 0.

    Raises:
        NotStreamable: a chunk with which the wire does not get equally many frames in every call.
    """
    call = timing.settled // chunk + timing.period + 2
    before, now, then = (timing.counts(n, n)[0] for n in (start + chunk * (call + i) for i in range(3)))
    if now - before != then - now:
        raise NotStreamable(f"a chunk of {chunk} steps does not fit a wire of stride {timing.stride}")
    return Pace(now - before, before - (now - before) * call)


def chunk_of(timings: Iterable[Timing]) -> int:
    """The smallest chunk that brings a whole number of frames on every wire."""
    return math.lcm(*(Fraction(t.stride).numerator for t in timings))


def start_of(timing: Timing, chunk: int) -> int:
    """Where call 0 starts, so that outputs are completed by the last frame of a chunk: the latest such phase, 0 or below."""
    calls = timing.settled // chunk + timing.period + 2
    for start in range(0, -chunk, -1):
        last = start + chunk * calls
        if timing.counts(last, last)[0] > timing.counts(last - 1, last - 1)[0]:
            return start
    return 0
