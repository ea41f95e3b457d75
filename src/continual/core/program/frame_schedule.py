"""The frames of each wire of a step program: every call has the same number of them in each row.

The output of a network becomes periodic. From then on, each call, which takes ``chunk`` input frames, has a fixed number of frames on every
wire, and their indices grow by that number. So shapes are static, and a row's number of calls determines the index of every frame.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import NotStreamable
from ..timing import Timing

OPEN = 1 << 62  # the end of a stream that goes on
FAR = 1 << 48  # an end that no stream reaches, and small enough that counts after upsampling do not overflow
FAR_IN_32_BITS = 1 << 30


@dataclass(frozen=True)
class FrameSchedule:
    """The frames of a wire: call ``k`` of a row has the frames ``first + frames*k`` to ``first + frames*(k+1) - 1``.

    Frames with a negative index precede the stream; their values mean nothing.

    Attributes:
        frames: frames per call.
        first: the index of the first frame of call 0.
    """

    frames: int
    first: int


@functools.lru_cache(maxsize=4096)
def frame_schedule(timing: Timing, chunk: int, start: int) -> FrameSchedule:
    """The schedule of a wire.

    Args:
        timing: from the network's input to the wire.
        chunk: input frames per call.
        start: the index of the first input frame of call 0, at most 0.

    Raises:
        NotStreamable: with this chunk, calls have different numbers of frames on the wire.
    """
    call = timing.transient // chunk + timing.period + 2
    before, now, then = (timing.counts(n, n)[0] for n in (start + chunk * (call + i) for i in range(3)))
    if now - before != then - now:
        raise NotStreamable(f"a chunk of {chunk} steps does not fit a wire of stride {timing.stride}")
    return FrameSchedule(now - before, before - (now - before) * call)


def chunk_of(timings: Iterable[Timing]) -> int:
    """The smallest chunk with a whole number of frames on every wire."""
    return math.lcm(*(t.pulse for t in timings))


def start_of(timing: Timing, chunk: int) -> int:
    """The start of call 0 with which the last frame of a chunk completes an output: the latest one, at most 0."""
    calls = timing.transient // chunk + timing.period + 2
    for start in range(0, -chunk, -1):
        last = start + chunk * calls
        if timing.counts(last, last)[0] > timing.counts(last - 1, last - 1)[0]:
            return start
    return 0
