"""The number of frames of each wire of a stream that ends: short integer formulas, which programs compute for every row.

A timing maps the count of a stream layer by layer. In a program of that form, a compiler inlines the formula of each layer into all layers
after it: hundreds of thousands of operations for one number of CoX3D's last convolution, and minutes of compilation. So this module
simplifies the formulas. Most of them become "as many as the input".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ...errors import NotStreamable
from ..fitted import Fitted
from ..length_function import LengthFunction, Step
from ..polyphase import Polyphase
from ..resampling import Interpolation, Upsampling
from ..timing import Crop, Timing, Window, Wiring


@dataclass(frozen=True)
class Count:
    """``(rate*n + more) // by`` frames where another wire has ``n`` frames; none where it has fewer than ``least``.

    The fraction is in lowest terms, and the count is above 0 from ``least`` on, so wires of equal counts have equal formulas.

    Attributes:
        of: the other wire; ``None``: the network's input.
    """

    of: End | None = None
    least: int = 1
    rate: int = 1
    more: int = 0
    by: int = 1


@dataclass(frozen=True)
class Least:
    """As many frames as the shortest of several wires."""

    of: tuple[Count | Steps, ...]


@dataclass(frozen=True)
class Steps:
    """A function of the number of frames of another wire."""

    of: End
    length: LengthFunction
    least: int


End: TypeAlias = "Count | Least | Steps"
STREAM = Count()
Joins = frozenset[tuple[End, ...]]  # wires that meet, and must have equal lengths


def counted(of: End, least: int, rate: int, more: int, by: int) -> End:
    """A formula on another formula, for ``least`` and ``rate`` of at least 1: one formula where possible."""
    rate, more, by = _lowest(rate, more, by)
    inner: End | None = of
    if isinstance(of, Count) and (rate == 1 or of.by == 1):
        least = max(of.least, _up(least * of.by - of.more, of.rate))
        rate, more, by = _lowest(of.rate * rate, rate * of.more + more * of.by, of.by * by)
        inner = of.of
    found = Count(inner, max(1, least, _up(by - more, rate)), rate, more, by)
    return inner if inner is not None and found == Count(inner) else found


def _lowest(rate: int, more: int, by: int) -> tuple[int, int, int]:
    common = math.gcd(rate, by)
    return rate // common, more // common, by // common


def _up(n: int, by: int) -> int:
    """``n / by``, rounded up."""
    return -(-n // by)


def fewest(ends: Iterable[End]) -> End:
    """The shortest of several wires. Wires of the same rate become one formula."""
    found: dict[tuple[End | None, int, int], Count] = {}
    steps: dict[Steps, None] = {}
    for own in (c for end in ends for c in (end.of if isinstance(end, Least) else (end,))):
        if isinstance(own, Steps):
            steps[own] = None
            continue
        kind = own.of, own.rate, own.by
        other = found.setdefault(kind, own)
        found[kind] = Count(own.of, max(own.least, other.least), own.rate, min(own.more, other.more), own.by)
    counts: tuple[Count | Steps, ...] = (*found.values(), *steps)
    return counts[0] if len(counts) == 1 else Least(counts)


def fitted(of: End, length: LengthFunction, least: int) -> End:
    """The formula of a function of the length of another wire; a single step that recurs is one fraction."""
    if len(length.steps) > 1 or not length.steps[0].every:
        return Steps(of, length, least)
    step = length.steps[0]
    reached = counted(of, least, step.times, step.every + step.phase - step.at * step.times, step.every)
    return counted(reached, 1, step.jump, 0, 1)


# ---- of timings -----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def end_of(timing: Timing) -> tuple[End, Joins]:
    """The count of a wire, for its timing from the network's input on, and the wires that meet before it.

    Raises:
        NotStreamable: an unknown class of timing.
    """
    joins: set[tuple[End, ...]] = set()
    return _after(timing, STREAM, joins), frozenset(joins)


@functools.singledispatch
def _after(timing: Timing, end: End, joins: set[tuple[End, ...]]) -> End:
    """The count behind a timing."""
    raise NotStreamable(f"step programs do not know how a wire of {type(timing).__name__} ends")


@_after.register
def _(timing: Window, end: End, joins: set[tuple[End, ...]]) -> End:
    more = timing.start + timing.end - timing.receptive_field + timing.stride
    second = timing.stride - more + timing.stride  # the first length with two outputs
    if timing.short and second > timing.stride + 1:
        return fitted(end, LengthFunction((Step(1, 1), Step(second, 1, timing.stride))), 1)
    return counted(end, max(1, timing.least), 1, more, timing.stride)


@_after.register
def _(timing: Crop, end: End, joins: set[tuple[End, ...]]) -> End:
    return counted(end, 1, 1, -timing.first - timing.last, 1)


@_after.register
def _(timing: Upsampling, end: End, joins: set[tuple[End, ...]]) -> End:
    more = timing.extent + timing.output_padding - 2 * timing.padding - timing.rate
    return counted(end, 1, timing.rate, more, 1)


@_after.register
def _(timing: Interpolation, end: End, joins: set[tuple[End, ...]]) -> End:
    return counted(end, 1, timing.factor.numerator, 0, timing.factor.denominator)


@_after.register
def _(timing: Polyphase, end: End, joins: set[tuple[End, ...]]) -> End:
    return counted(end, 1, timing.up, timing.down - 1, timing.down)


@_after.register
def _(timing: Fitted, end: End, joins: set[tuple[End, ...]]) -> End:
    return fitted(end, timing.length, timing.least)


@_after.register
def _(timing: Wiring, end: End, joins: set[tuple[End, ...]]) -> End:
    """A wire that determines the length is the last input of a timing."""
    ends = timing.fold(end, lambda part, *ends: _after(part, ends[-1], joins), lambda parts: _joined(parts, joins))
    return ends[timing.out]


def _joined(ends: list[End], joins: set[tuple[End, ...]]) -> End:
    """The count of wires that meet."""
    different = tuple(dict.fromkeys(ends))
    if len(different) > 1:
        joins.add(different)
    return fewest(different)


# ---- on tensors -----------------------------------------------------------------------------------------------------------


def frames_in(end: End, known: dict[End, Tensor]) -> Tensor:
    """The number of frames of a wire, from the wires in ``known``, to which it adds its results."""
    found = known.get(end)
    if found is None:
        if isinstance(end, Steps):
            n = frames_in(end.of, known)
            found = torch.where(n >= end.least, end.length.on(n), 0)
        else:
            found = _shortest(end, known) if isinstance(end, Least) else _count(end, known)
        known[end] = found
    return found


def _shortest(end: Least, known: dict[End, Tensor]) -> Tensor:
    return functools.reduce(torch.minimum, (frames_in(of, known) for of in end.of))


def _count(end: Count, known: dict[End, Tensor]) -> Tensor:
    n = frames_in(end.of or STREAM, known)
    count = n * end.rate if end.rate > 1 else n
    count = count + end.more if end.more else count
    count = divided(count.clamp(min=0) if end.more < 0 else count, end.by)
    first = _up(end.by - end.more, end.rate)  # from here on the fraction is above 0 by itself
    return count if first == end.least else torch.where(n >= end.least, count, 0)


def divided(n: Tensor, by: int) -> Tensor:
    """Floor division of non-negative integers. Rounding mode ``trunc`` stays an integer division in ONNX; others go through floats."""
    return n if by == 1 else n.div(by, rounding_mode="trunc")


def ended(timing: Timing, e: Tensor) -> Tensor:
    """The number of frames of a wire, for streams of ``e`` frames: :meth:`Timing.ended` on integer tensors."""
    known: dict[End, Tensor] = {STREAM: e}
    return frames_in(end_of(timing)[0], known)


def meets(timing: Timing, e: Tensor) -> Tensor:
    """Whether all wires that meet have equal lengths, for streams of ``e`` frames. ``forward`` refuses other clips."""
    known: dict[End, Tensor] = {STREAM: e}
    found = torch.ones_like(e, dtype=torch.bool)
    for wires in end_of(timing)[1]:
        counts = torch.stack([frames_in(wire, known) for wire in wires])
        found &= (counts == counts[0]).all(0) | (counts == 0).any(0)  # a clip that is too short has no outputs
    return found
