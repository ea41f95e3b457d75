"""Values over the positions of a window: their layout in a tensor, and which of them later windows share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from ..axes import BATCH, TIME, Dim, Dims, size_of, where

Ranges = tuple[tuple[int, int], ...]  # positions of a window, from and to, in order and apart from each other


@dataclass(frozen=True)
class Wire:
    """The values of an operation for one window of the stream.

    Of the window that begins at frame ``w``, position ``p`` is ``G(w + stride*p)`` for ``a <= p < n - b``, with a function ``G`` of the
    stream alone: what lies between the margins depends on no edge of the window, and the next windows have it too.

    Attributes:
        dims: the layout. Without time in it the value is one for the whole window, and the rest means nothing.
        n: positions.
        stride: frames from one position to the next.
        a, b: the margins at the start and at the end. With ``a + b >= n`` nothing is shared by windows.
        steady: whether all windows of all streams have the same value.
    """

    dims: Dims
    n: int = 1
    stride: int = 1
    a: int = 0
    b: int = 0
    steady: bool = False

    @cached_property
    def timed(self) -> bool:
        """Whether it has positions."""
        return any(TIME in dim for dim in self.dims)

    @cached_property
    def axis(self) -> Axis:
        """Where the positions are."""
        return Axis.of(self.dims)

    @property
    def dim(self) -> int:
        """The dimension that holds time."""
        return self.axis.at

    @property
    def alone(self) -> bool:
        """Whether this dimension is time alone."""
        return self.axis.alone

    @property
    def clean(self) -> int:
        """How many positions depend on no edge."""
        return max(0, self.n - self.a - self.b)

    def edged(self) -> Wire:
        """The same wire, with all positions in the margins: windows share none."""
        return replace(self, a=self.n, b=0)


@dataclass(frozen=True)
class Axis:
    """Where positions are in a tensor: dimension ``at`` is ``outer * n * inner`` long."""

    at: int
    outer: Dim
    inner: Dim

    @staticmethod
    def of(dims: Dims) -> Axis:
        """The axis of a layout with time."""
        at = where(dims, TIME)
        if at is None:
            raise ValueError(f"no time in {dims}")
        i = dims[at].index(TIME)
        return Axis(at, dims[at][:i], dims[at][i + 1 :])

    @property
    def alone(self) -> bool:
        """Whether nothing is merged with the positions."""
        return not self.outer and not self.inner

    @property
    def apart(self) -> int:
        """The dimension of the positions after it has been split from the dimensions with which it is merged."""
        return self.at + bool(self.outer)

    def split(self, x: Tensor, batch: int) -> Tensor:
        """A tensor with the positions in a dimension of their own, :attr:`apart`."""
        if self.alone:
            return x
        outer, inner = size_of(self.outer, batch, 1), size_of(self.inner, batch, 1)
        own = [*([outer] if self.outer else []), x.shape[self.at] // (outer * inner), *([inner] if self.inner else [])]
        return x.reshape([*x.shape[: self.at], *own, *x.shape[self.at + 1 :]])

    def merge(self, x: Tensor, batch: int) -> Tensor:
        """What :meth:`split` has taken apart."""
        if self.alone:
            return x
        size = size_of(self.outer, batch, 1) * x.shape[self.apart] * size_of(self.inner, batch, 1)
        last = self.apart + bool(self.inner)
        return x.reshape([*x.shape[: self.at], size, *x.shape[last + 1 :]])


@dataclass(frozen=True)
class HistoryLayout:
    """How values are kept from call to call: rows first, positions in a dimension of their own, the rest as it is.

    Args:
        dims: the layout of the values, with batch and time in it.
    """

    dims: Dims

    @cached_property
    def pieces(self) -> tuple[Dim, ...]:
        """The layout with rows and positions in dimensions of their own."""
        found: list[Dim] = []
        for dim in self.dims:
            part: list[int | str] = []
            for factor in dim:
                if factor in (BATCH, TIME):
                    found += [tuple(part)] if part else []
                    found.append((factor,))
                    part = []
                else:
                    part.append(factor)
            if part or not dim:
                found.append(tuple(part))
        return tuple(found)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The pieces as they are kept."""
        rows = self.pieces.index((BATCH,))
        return (rows, *(i for i in range(len(self.pieces)) if i != rows))

    @cached_property
    def at(self) -> int:
        """The dimension of the positions in a history."""
        return self.order.index(self.pieces.index((TIME,)))

    def shape(self, batch: int, count: int) -> tuple[int, ...]:
        """The shape of what is kept."""
        return tuple(size_of(self.pieces[i], batch, count) for i in self.order)

    def put(self, x: Tensor, batch: int, count: int) -> Tensor:
        """Values as they are kept."""
        if len(self.pieces) != len(self.dims):
            x = x.reshape([size_of(p, batch, count) for p in self.pieces])
        return x if self.order == tuple(range(len(self.order))) else x.permute(self.order)

    def take(self, x: Tensor, batch: int) -> Tensor:
        """Entries of a history as values with the positions in a dimension of their own, like the result of :meth:`Axis.split`."""
        if self.order != tuple(range(len(self.order))):
            x = x.permute([self.order.index(i) for i in range(len(self.order))])
        if len(self.pieces) == len(self.dims):
            return x
        count = x.shape[self.pieces.index((TIME,))]
        axis = Axis.of(self.dims)
        whole = [size_of(d, batch, count) for d in self.dims]
        own = [size_of(d, batch, count) for d in (axis.outer, (TIME,), axis.inner) if d]
        return x.reshape([*whole[: axis.at], *own, *whole[axis.at + 1 :]])


def resized(dims: Dims, sizes: dict[int, int]) -> Dims:
    """A layout with other sizes of some dimensions, in which there are neither rows nor positions."""
    return tuple(sized(sizes[i]) if i in sizes else d for i, d in enumerate(dims))


def sized(size: int) -> Dim:
    """A dimension of ``size`` numbers."""
    return (size,) if size != 1 else ()


def merged(ranges: list[tuple[int, int]]) -> Ranges:
    """Sorted ranges of positions. Ranges that touch are joined."""
    found: list[tuple[int, int]] = []
    for lo, hi in sorted(r for r in ranges if r[0] < r[1]):
        if found and lo <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], hi)
        else:
            found.append((lo, hi))
    return tuple(found)


def count(ranges: Ranges) -> int:
    """How many positions there are."""
    return sum(hi - lo for lo, hi in ranges)


def cut(ranges: Ranges, lo: int, hi: int) -> Ranges:
    """The positions that lie between two."""
    return tuple((max(a, lo), min(b, hi)) for a, b in ranges if max(a, lo) < min(b, hi))


def up(value: int, by: int) -> int:
    """``value / by``, rounded up."""
    return -(-value // by)


def numbers(dims: Dims) -> int:
    """How many numbers a position of a row has."""
    return math.prod(f for dim in dims for f in dim if isinstance(f, int))
