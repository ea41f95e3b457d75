"""Operations that slide over time: convolutions, pools, frames of spectra. A position may be a group of consecutive entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..exec_context import ExecContext
from ..instructions import Op, slots_of
from .sizes import Unfollowed
from .tasks import Block, OpTask, Table, Value, whole_of
from .wire import Ranges, Wire, count, up

FEW = 32  # positions up to which a convolution over time is a product


@dataclass(eq=False)
class Sliding(OpTask):
    """A convolution or a pool over time. :attr:`op` does not pad time. Its first input has time in a dimension of its own.

    Attributes:
        full: the operation with its own padding, for all positions at once.
        extent, step, start: the length of its window, from one to the next, and padded positions at the start.
        edges: the factor of each result, where not all positions are computed at once.
        product: the same as a product of matrices, on windows side by side: on few positions it reads its weights faster.
        dilation: positions from tap to tap.
        grain: entries of a position of its input, and of its own. Behind a layer that raises the rate, entries differ by their phase, and
            only groups of them move by whole positions from window to window. ``extent``, ``step`` and ``start`` count entries.
    """

    full: Op = field(kw_only=True)
    extent: int = 1
    step: int = 1
    start: int = 0
    edges: Table | None = None
    product: Op | None = None
    dilation: int = 1
    grain: tuple[int, int] = (1, 1)

    @property
    def reads(self) -> tuple[int, ...]:
        return (*super().reads, *((self.edges.of,) if self.edges else ()), *(slots_of(self.product) if self.product else ()))

    def _entire(self, ranges: Ranges) -> bool:
        return ranges == ((0, self.wire.n),)

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        others = [whole_of(t.wire) for t in self.inputs[1:]]
        if self._entire(ranges):
            return [whole_of(self.inputs[0].wire), *others]
        if self.grain != (1, 1):
            own = [self._entries(lo, hi) for lo, hi in ranges]
            return [tuple(Block(lo // self.grain[0], up(hi, self.grain[0])) for lo, hi in own), *others]
        blocks = [Block(*self._entries(lo, hi)) for lo, hi in ranges]
        fill = [-(b.hi - b.lo) % self.step for b in blocks[:-1]] + [0]
        return [tuple(b._replace(more=f) for b, f in zip(blocks, fill, strict=True)), *others]

    def _entries(self, lo: int, hi: int) -> tuple[int, int]:
        """The first and the last input entry that some positions read."""
        own = self.grain[1]
        return self.step * lo * own - self.start, self.step * (hi * own - 1) - self.start + self.extent

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        if self._entire(ranges):
            return self.apply(m, self.full, count(ranges), xs)
        y = self._plain(m, ranges, xs)
        if self.edges is None:
            return y
        self.edges.fetch(m, ranges)
        return y * m.env[self.edges.slot]

    def _plain(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Tensor:
        """The results, without the factors at the edges."""
        if self.product is not None and count(ranges) <= FEW:
            return self._multiplied(m, self.product, ranges, xs)
        if self.grain != (1, 1):
            return self._in_groups(m, ranges, xs)
        if len(ranges) == 1:
            only: Tensor = self.apply(m, self.op, count(ranges), xs)
            return only
        blocks, dim, first = self.reach(ranges)[0], self.inputs[0].wire.dim, xs[0]
        sizes = [b.hi - b.lo + b.more for b in blocks]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        if sum(sizes) // self.step > 2 * count(ranges) + 8:  # what lies between would cost more than another call
            found = [
                self.apply(m, self.op, hi - lo, [first.narrow(dim, at, b.hi - b.lo), *xs[1:]])
                for (lo, hi), at, b in zip(ranges, starts, blocks, strict=True)
            ]
        else:
            y = self.apply(m, self.op, (sum(sizes) - self.extent) // self.step + 1, xs)
            found = [y.narrow(self.wire.dim, at // self.step, hi - lo) for at, (lo, hi) in zip(starts, ranges, strict=True)]
        return torch.cat(found, self.wire.dim)

    def _multiplied(self, m: ExecContext, product: Op, ranges: Ranges, xs: Sequence[Value]) -> Tensor:
        """As a product, of inputs ``(B, C, T)``."""
        found, at, x = list[Tensor](), 0, xs[0]
        for block in self.reach(ranges)[0]:
            size = block.hi - block.lo
            found.append(x.narrow(2, at, size).unfold(2, self.extent, self.step)[..., :: self.dilation])
            at += size + block.more
        taps = found[0] if len(found) == 1 else torch.cat(found, 2)
        rows = taps.permute(0, 2, 1, 3).flatten(2)
        y: Tensor = self.apply(m, product, count(ranges), [rows, *xs[1:]])
        return y.transpose(1, 2)

    def _in_groups(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Tensor:
        """Computes range by range, each on exactly the entries that it needs."""
        found, at, dim, (size, _) = list[Tensor](), 0, self.inputs[0].wire.dim, self.grain
        for (lo, hi), block in zip(ranges, self.reach(ranges)[0], strict=True):
            first, last = self._entries(lo, hi)
            own = xs[0].narrow(dim, at + first - block.lo * size, last - first)
            found.append(self.apply(m, self.op, hi - lo, [own, *xs[1:]]))
            at += (block.hi - block.lo) * size
        return found[0] if len(found) == 1 else torch.cat(found, self.wire.dim)


def grain_of(x: Wire, step: int) -> tuple[int, int]:
    """Entries of a position behind an operation that slides over all entries of a dimension, and of one before it.

    Raises:
        Unfollowed: something else than groups of entries lies in that dimension.
    """
    if x.axis.outer or not all(isinstance(f, int) for f in x.axis.inner):
        raise Unfollowed("over merged time")
    size = math.prod(int(f) for f in x.axis.inner)
    return size, size // math.gcd(size, step)


def sliding_wire(x: Wire, dims: Any, n: int, extent: int, step: int, start: int, grain: tuple[int, int] = (1, 1)) -> Wire:
    """The wire of the result of a window that slides over entries, where a position has several entries."""
    size, own = grain
    last = ((x.n - x.b) * size - extent + start - step * (own - 1)) // (step * own)
    first = up(x.a * size + start, step * own)
    return Wire(dims, n, x.stride * step * own // size, max(0, first), max(0, n - 1 - last))
