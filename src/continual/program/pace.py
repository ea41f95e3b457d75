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

import torch
from torch import Tensor

from ..errors import NotStreamable
from ..graph.wiring import Wiring
from ..resampling import Interpolation, Upsampling
from ..timing import Crop, Parallel, Sequence, Timing, Window

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


def divided(n: Tensor, by: int) -> Tensor:
    """Whole numbers of 0 or more, divided and rounded down. ONNX has no such division but this: others go through floating point."""
    return n if by == 1 else n.div(by, rounding_mode="trunc")


# ---- ends ---------------------------------------------------------------------------------------------------------------


@functools.singledispatch
def ended(timing: Timing, e: Tensor) -> Tensor:
    """How many frames a wire has in the end, for a stream of ``e`` frames: :meth:`Timing.ended` on tensors of whole numbers."""
    raise NotStreamable(f"step programs do not know how a wire of {type(timing).__name__} ends")


@ended.register
def _(timing: Window, e: Tensor) -> Tensor:
    if (timing.receptive_field, timing.stride, timing.start, timing.end, timing.least) == (1, 1, 0, 0, 1):
        return e
    count = divided((e + (timing.start + timing.end - timing.receptive_field + timing.stride)).clamp(min=0), timing.stride)
    return torch.where(e >= timing.least, count, 0)


@ended.register
def _(timing: Crop, e: Tensor) -> Tensor:
    return (e - timing.first - timing.last).clamp(min=0)


@ended.register
def _(timing: Upsampling, e: Tensor) -> Tensor:
    count = (e - 1) * timing.rate + (timing.extent + timing.output_padding - 2 * timing.padding)
    return torch.where(e > 0, count.clamp(min=0), 0)


@ended.register
def _(timing: Interpolation, e: Tensor) -> Tensor:
    return divided(e * timing.factor.numerator, timing.factor.denominator)


@ended.register
def _(timing: Sequence, e: Tensor) -> Tensor:
    for part in timing.parts:
        e = ended(part, e)
    return e


@ended.register
def _(timing: Parallel, e: Tensor) -> Tensor:
    return functools.reduce(torch.minimum, (ended(branch, e) for branch in timing.branches))


@ended.register
def _(timing: Wiring, e: Tensor) -> Tensor:
    found = {0: e}
    for i in timing._order:
        own, inputs = timing.entries[i]
        if own is not None:
            found[i] = ended(own, found[inputs[0]])
        elif inputs:
            found[i] = functools.reduce(torch.minimum, (found[j] for j in inputs))
    return found[timing.out]


# ---- lengths at which branches do not meet -------------------------------------------------------------------------------


@functools.singledispatch
def meets(timing: Timing, e: Tensor) -> Tensor:
    """Whether all branches in a network have equally many frames in the end, for streams of ``e`` frames. ``forward`` refuses others."""
    return torch.ones_like(e, dtype=torch.bool)


@meets.register
def _(timing: Sequence, e: Tensor) -> Tensor:
    found = torch.ones_like(e, dtype=torch.bool)
    for part in timing.parts:
        found, e = found & meets(part, e), ended(part, e)
    return found


@meets.register
def _(timing: Parallel, e: Tensor) -> Tensor:
    return _equal([ended(branch, e) for branch in timing.branches], [meets(branch, e) for branch in timing.branches])


@meets.register
def _(timing: Wiring, e: Tensor) -> Tensor:
    counts, found = {0: e}, torch.ones_like(e, dtype=torch.bool)
    for i in timing._order:
        own, inputs = timing.entries[i]
        if own is not None:
            found, counts[i] = found & meets(own, counts[inputs[0]]), ended(own, counts[inputs[0]])
        elif inputs:
            joined = [counts[j] for j in inputs]
            found, counts[i] = found & _equal(joined, []), functools.reduce(torch.minimum, joined)
    return found


def _equal(counts: list[Tensor], inside: list[Tensor]) -> Tensor:
    """Where all counts are the same, or one is 0: such a clip is too short, and has no outputs."""
    stacked = torch.stack(counts)
    same = (stacked == stacked[0]).all(0) | (stacked == 0).any(0)
    return functools.reduce(torch.logical_and, inside, same)
