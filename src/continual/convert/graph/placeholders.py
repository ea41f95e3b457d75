"""Placeholders for the results of refused operations, guessed from sizes, so that later operations are checked too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...core.timing import Crop, Timing, Window
from .axes import BATCH, TIME, Dims, fixed, regrouped, where
from .shape_queries import ShapeQueries
from .values import Stream

SUMS = {
    "matmul",
    "bmm",
    "mm",
    "mv",
    "baddbmm",
    "addmm",
    "einsum",
    "linear",
    "cdist",
}  # their output has another size where time was


@dataclass(frozen=True)
class StandIn:
    """A guessed layout.

    Attributes:
        like: the stream whose timing and rows the result has.
        dims: the layout.
        change: how the number of frames changes.
    """

    like: Stream
    dims: Dims
    change: Timing | None = None

    @property
    def sure(self) -> bool:
        """Whether it is the layout of an argument."""
        return self.change is None and self.dims == self.like.dims


def stand_in(
    shapes: ShapeQueries, op: str, inputs: Sequence[Stream], shape: tuple[int, ...], before: Sequence[Stream] = ()
) -> StandIn | None:
    """The probable layout of an operation's result.

    Args:
        shapes: answers questions on sizes.
        op: the operation's name.
        inputs: the streams that it takes.
        shape: of its result for the example.
        before: streams behind its unknown arguments.

    Returns:
        The layout, from the stream that needs the least change; ``None`` where batch or time can't be located.
    """
    whole = [s for s in (*inputs, *before) if where(s.dims, TIME) is not None and where(s.dims, BATCH) is not None]
    if any(_pairs(shapes.shape(s), where(s.dims, TIME) or 0, shape) for s in whole):
        return None  # a value for each pair of frames
    streams = sorted(whole, key=lambda s: s.windows)  # streams of frames before streams of windows
    for s in streams:
        dims = regrouped(s.dims, shape, shapes.batches[0], shapes.length(s.wire).now)
        if dims is not None and where(dims, TIME) is not None and where(dims, BATCH) is not None:
            return StandIn(s, dims)
    found = [g for s in streams for g in _matched(shapes, op, s, shape) if g[1].change is None or s in inputs]
    return max(found, key=lambda g: g[0])[1] if found else None


def _pairs(sizes: tuple[int, ...], time: int, shape: tuple[int, ...]) -> bool:
    """Whether the size of time occurs once more in a shape."""
    return sizes[time] > 2 and shape.count(sizes[time]) > sizes.count(sizes[time])


def _matched(shapes: ShapeQueries, op: str, s: Stream, shape: tuple[int, ...]) -> Iterator[tuple[int, StandIn]]:
    """Layouts for a shape with one dimension more or less, or other sizes, each with the number of sizes that agree."""
    frames = shapes.length(s.wire).now
    for dims, sizes in _ranks(s.dims, shapes.shape(s), len(shape)):
        at, rows = where(dims, TIME), where(dims, BATCH)
        if at is None or rows is None or sizes[rows] != shape[rows]:
            continue
        change = None
        if sizes[at] != shape[at]:
            split = len(shape) > len(s.dims) and at + 1 < len(shape) and shape[at] * shape[at + 1] == frames
            if op in SUMS or shape[at] < 2 or (len(shape) != len(s.dims) and not split):
                continue
            dims, change = (*dims[:at], (TIME,), *dims[at + 1 :]), _change(frames, shape[at])
        out = tuple(d if i in (at, rows) or own == n else fixed((n,))[0]
                    for i, (d, own, n) in enumerate(zip(dims, sizes, shape, strict=True)))  # fmt: skip
        yield sum(own == n for own, n in zip(sizes, shape, strict=True)), StandIn(s, out, change)


def _ranks(dims: Dims, sizes: tuple[int, ...], rank: int) -> Iterator[tuple[Dims, tuple[int, ...]]]:
    """A layout and its sizes, with one dimension more or less where the rank differs. New dimensions come late, as when time is split."""
    if len(dims) == rank:
        yield dims, sizes
    for i in reversed(range(len(dims) + 1) if len(dims) + 1 == rank else ()):
        yield (*dims[:i], (), *dims[i:]), (*sizes[:i], 1, *sizes[i:])
    for i in range(len(dims)) if len(dims) - 1 == rank else ():
        yield dims[:i] + dims[i + 1 :], sizes[:i] + sizes[i + 1 :]


def _change(now: int, wanted: int) -> Timing:
    """A timing that gives a number of frames for the example: by a stride where it divides, otherwise by a cut or padding."""
    if now % wanted == 0:
        return Window(now // wanted, now // wanted)
    return Crop(0, now - wanted) if wanted < now else Window(end=wanted - now)
