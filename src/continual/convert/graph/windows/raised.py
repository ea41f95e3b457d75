"""Operations that raise the rate: transposed convolutions and interpolation. Each entry of the input becomes several.

These entries differ by their phase, so a window that begins one frame later has other entries. A position of the result is
therefore a group of entries, with the stride of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..exec_context import ExecContext
from ..instructions import Op, slots_of
from .tasks import Block, OpTask, Value, whole_of
from .wire import Ranges, Wire, count, up


@dataclass(frozen=True)
class Raise:
    """Which entries of its input an entry of the result depends on: ``q`` on those from ``(q + start - extent + 1)/factor``, rounded up, to
    ``(q + start)/factor``, rounded down.

    Attributes:
        factor: entries of the result for one of the input.
        extent, start: the length of the window, and how many entries of its first one are cut off.
        size: entries of a position of the input.
        clipped: whether nothing is beyond the edges, and the entries there are computed of those that are inside; or else zeros are.
    """

    factor: int
    extent: int
    start: int
    size: int = 1
    clipped: bool = False

    @property
    def own(self) -> int:
        """Entries of a position of the result."""
        return self.size * self.factor

    def entries(self, lo: int, hi: int) -> tuple[int, int]:
        """The first and the last input entry that some positions of the result read."""
        return up(lo * self.own + self.start - self.extent + 1, self.factor), (hi * self.own - 1 + self.start) // self.factor + 1

    def wire(self, x: Wire, dims: tuple[tuple[int | str, ...], ...], n: int) -> Wire:
        """The wire of the result."""
        first = up(self.factor * (x.a * self.size - 1) + self.extent - self.start, self.own)
        last = (self.factor * (x.n - x.b) * self.size - self.own - self.start) // self.own
        return Wire(dims, n, x.stride, max(0, first), max(0, n - 1 - last))


@dataclass(eq=False)
class Raised(OpTask):
    """An operation that raises the rate. It reads the entries of its first input that it needs, and :attr:`op` does not pad time.

    Attributes:
        full: the operation as it is, for all positions at once.
        by: its geometry.
    """

    full: Op = field(kw_only=True)
    by: Raise = field(kw_only=True)

    @property
    def reads(self) -> tuple[int, ...]:
        return (*super().reads, *slots_of(self.full))

    def _blocks(self, ranges: Ranges) -> list[Block]:
        size, n, found = self.by.size, self.inputs[0].wire.n, []
        for lo, hi in ranges:
            first, last = self.by.entries(lo, hi)
            block = Block(first // size, up(last, size))
            found.append(Block(max(0, block.lo), min(n, block.hi)) if self.by.clipped else block)
        return found

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        whole = ranges == ((0, self.wire.n),)
        return [whole_of(self.inputs[0].wire) if whole else tuple(self._blocks(ranges))]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        if ranges == ((0, self.wire.n),):
            return self.apply(m, self.full, count(ranges), xs)
        by, at, dim, found = self.by, 0, self.inputs[0].wire.dim, list[Tensor]()
        for (lo, hi), block in zip(ranges, self._blocks(ranges), strict=True):
            first, last = by.entries(lo, hi)
            if by.clipped:
                first, last = max(0, first), min(self.inputs[0].wire.n * by.size, last)
            y: Tensor = self.apply(m, self.op, last - first, [xs[0].narrow(dim, at + first - block.lo * by.size, last - first)])
            cut = 0 if by.clipped else by.start
            found.append(y.narrow(self.wire.dim, lo * by.own + cut - by.factor * first, (hi - lo) * by.own))
            at += (block.hi - block.lo) * by.size
        return found[0] if len(found) == 1 else torch.cat(found, self.wire.dim)
