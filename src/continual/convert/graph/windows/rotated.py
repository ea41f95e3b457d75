"""A circular shift of the window by a number of entries; each position has several entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..axes import Dims
from ..exec_context import ExecContext
from .tasks import Block, Task, Value, whole_of
from .wire import Ranges, Wire, up


@dataclass(frozen=True)
class Rotation:
    """Entry ``e`` of the result is entry ``e - shift`` of the input; entries from beyond an edge come from the other one.

    Attributes:
        shift: entries, later ones if positive.
        size: entries of a position.
    """

    shift: int
    size: int

    def groups(self, lo: int, hi: int) -> tuple[int, int]:
        """The first and the last input position that some positions of the result read, also beyond the edges."""
        return (lo * self.size - self.shift) // self.size, up(hi * self.size - self.shift, self.size)

    def wire(self, x: Wire, dims: Dims) -> Wire:
        """The wire of the result: the positions that reach beyond an edge are in its margins."""
        first, last = self.groups(0, 1)
        return Wire(dims, x.n, x.stride, max(0, x.a - first), max(0, x.b + last - 1))


@dataclass(eq=False)
class Rotated(Task):
    """A shift around the edges.

    Attributes:
        by: how far.
    """

    by: Rotation = Rotation(0, 1)

    def _blocks(self, lo: int, hi: int) -> list[Block]:
        """The input positions that some positions need. Positions beyond an edge are wrapped around."""
        n, (first, last) = self.wire.n, self.by.groups(lo, hi)
        edges = sorted({first, last, *(e for e in (0, n) if first < e < last)})
        return [Block(a % n, a % n + b - a) for a, b in pairwise(edges)]

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        if ranges == ((0, self.wire.n),):
            return [whole_of(self.inputs[0].wire)]
        return [tuple(block for lo, hi in ranges for block in self._blocks(lo, hi))]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        dim, by, at, found = self.wire.dim, self.by, 0, list[Tensor]()
        if ranges == ((0, self.wire.n),):
            return xs[0].roll(by.shift, dim)
        for lo, hi in ranges:
            first, last = by.groups(lo, hi)
            found.append(xs[0].narrow(dim, (at - first + lo) * by.size - by.shift, (hi - lo) * by.size))
            at += last - first
        return found[0] if len(found) == 1 else torch.cat(found, dim)
