"""What a refused operation gives, as far as sizes tell: the operations behind it are then looked at too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...core.timing import Crop, Timing, Window
from .axes import BATCH, TIME, Dims, fixed, regrouped, where
from .shape_queries import Enquiry
from .values import Stream

SUMS = {"matmul", "bmm", "mm", "mv", "baddbmm", "addmm", "einsum", "linear", "cdist"}  # a size in the place of time is another's


@dataclass(frozen=True)
class StandIn:
    """The layout that a result seems to have.

    Attributes:
        like: the stream whose timing and rows it has.
        dims: its layout.
        change: what happens to the number of frames.
    """

    like: Stream
    dims: Dims
    change: Timing | None = None

    @property
    def sure(self) -> bool:
        """Whether it is that of a stream that the operation was given."""
        return self.change is None and self.dims == self.like.dims


def stand_in(
    b: Enquiry, op: str, given: Sequence[Stream], shape: tuple[int, ...], before: Sequence[Stream] = ()
) -> StandIn | None:
    """What an operation seems to give.

    Args:
        b: knows the sizes of streams.
        op: the operation's name.
        given: the streams that it takes.
        shape: of its result for the example.
        before: streams of which what it takes was made, in a way that is not known.

    Returns:
        The layout of the stream among those given that needs the least change; ``None`` where rows or time are not to be found.
    """
    whole = [s for s in (*given, *before) if where(s.dims, TIME) is not None and where(s.dims, BATCH) is not None]
    if any(_pairs(b.shape(s), where(s.dims, TIME) or 0, shape) for s in whole):
        return None  # a value for each pair of frames
    streams = sorted(whole, key=lambda s: s.windows)  # frames before what was made of a whole clip
    for s in streams:
        dims = regrouped(s.dims, shape, b.batches[0], b.length(s.wire).now)
        if dims is not None and where(dims, TIME) is not None and where(dims, BATCH) is not None:
            return StandIn(s, dims)
    found = [g for s in streams for g in _matched(b, op, s, shape) if g[1].change is None or s in given]
    return max(found, key=lambda g: g[0])[1] if found else None


def _pairs(sizes: tuple[int, ...], time: int, shape: tuple[int, ...]) -> bool:
    """Whether the size of time is in a shape once more."""
    return sizes[time] > 2 and shape.count(sizes[time]) > sizes.count(sizes[time])


def _matched(b: Enquiry, op: str, s: Stream, shape: tuple[int, ...]) -> Iterator[tuple[int, StandIn]]:
    """Layouts of a shape that has a dimension more or less, or other sizes; and how many sizes are the same."""
    frames = b.length(s.wire).now
    for dims, sizes in _ranks(s.dims, b.shape(s), len(shape)):
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
    """A layout and its sizes with a dimension more, or one less, where the rank says so. New dimensions come late: time is split so."""
    if len(dims) == rank:
        yield dims, sizes
    for i in reversed(range(len(dims) + 1) if len(dims) + 1 == rank else ()):
        yield (*dims[:i], (), *dims[i:]), (*sizes[:i], 1, *sizes[i:])
    for i in range(len(dims)) if len(dims) - 1 == rank else ():
        yield dims[:i] + dims[i + 1 :], sizes[:i] + sizes[i + 1 :]


def _change(now: int, wanted: int) -> Timing:
    """A timing that makes so many frames of the example's: fewer by a stride where it divides them, otherwise by a cut or padding."""
    if now % wanted == 0:
        return Window(now // wanted, now // wanted)
    return Crop(0, now - wanted) if wanted < now else Window(end=wanted - now)
