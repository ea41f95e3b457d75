"""Layouts of tensors: every dimension is a product of factors, of which some are the batch and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul

from torch import Tensor

BATCH, TIME = "B", "T"
Factor = int | str
Dim = tuple[Factor, ...]  # major first; no factor of 1, so that a dimension of size 1 is ()
Dims = tuple[Dim, ...]
MAX_SHAPES = 64  # of chunks, that a view keeps


def fixed(shape: Sequence[int]) -> Dims:
    """The layout of a tensor without batch and time."""
    return tuple(dim_of(int(s)) for s in shape)


def dim_of(size: int) -> Dim:
    """A dimension without batch and time."""
    return (size,) if size != 1 else ()


def with_dim(dims: Dims, at: int, dim: Dim) -> Dims:
    """A layout in which one dimension is exchanged."""
    return (*dims[:at], dim, *dims[at + 1 :])


def with_size(dims: Dims, at: int, size: int) -> Dims:
    """A layout in which one dimension has another size, without batch and time."""
    return with_dim(dims, at, dim_of(size))


def size_of(dim: Dim, batch: int, time: int) -> int:
    """The size of a dimension."""
    return math.prod(batch if f == BATCH else time if f == TIME else int(f) for f in dim)


def shape_of(dims: Dims, batch: int, time: int) -> tuple[int, ...]:
    """The shape of a tensor, for a batch size and a number of frames."""
    return tuple(size_of(dim, batch, time) for dim in dims)


def where(dims: Dims, factor: str) -> int | None:
    """The dimension that holds a factor."""
    return next((i for i, dim in enumerate(dims) if factor in dim), None)


def grouped(dims: Dims, size: int) -> Dims:
    """The layout in which one frame stands for ``size`` frames: time stays major, and a factor ``size`` follows it."""
    return tuple(tuple(g for f in dim for g in ((f, size) if f == TIME and size > 1 else (f,))) for dim in dims)


def frames_together(dims: Dims, target: Sequence[int], batch: int, time: int) -> int:
    """How many frames a reshape to ``target`` takes together: time becomes so many times shorter.

    Every dimension of the target ends behind a whole number of elements. Where one ends within the clip's frames, time has to end there.

    Args:
        dims: the layout before.
        target: the sizes after the reshape, without -1.
        batch, time: the sizes of batch and time in the example.

    Example:
        >>> frames_together((("B",), ("T",), (6,)), (2, 3, 24), 2, 12)  # 4 frames of 6 channels side by side
        4
    """
    factors = [f for dim in dims for f in dim]
    if TIME not in factors:
        return 1
    major = size_of(tuple(factors[: factors.index(TIME)]), batch, time)
    ends = [end // major for end in accumulate(target, mul) if end > major and end % major == 0]
    return time // math.gcd(time, *ends)


def regrouped(dims: Dims, target: Sequence[int], batch: int, time: int) -> Dims | None:
    """The layout after a reshape to ``target``; ``None`` if it splits batch or time, or mixes factors.

    Args:
        dims: the layout before.
        target: the sizes after the reshape, without -1.
        batch, time: the sizes of batch and time in the example.
    """
    left = [(f, i) for i, dim in enumerate(dims) for f in dim]  # factors, and the dimension of each
    made: list[Dim] = []
    for wanted in target:
        dim: list[Factor] = []
        size, last = 1, -1
        while size != wanted:
            if not left or wanted % size:
                return None
            factor, last = left.pop(0)
            own = size_of((factor,), batch, time)
            need = wanted // size
            if 0 < own <= need and need % own == 0:
                dim.append(factor)
                size *= own
            elif isinstance(factor, int) and need and own % need == 0:
                dim.append(need)
                left.insert(0, (own // need, last))
                size = wanted
            elif isinstance(factor, int) and left and isinstance(left[0][0], int):  # two fixed factors become one
                other, last = left.pop(0)
                left.insert(0, (factor * other, last))
            else:
                return None
        while (
            left and left[0][1] == last and size_of((left[0][0],), batch, time) == 1
        ):  # a factor of one window stays with the batch
            dim.append(left.pop(0)[0])
        made.append(tuple(dim))
    if any(size_of((f,), batch, time) != 1 for f, _ in left) or (left and not made):
        return None
    if left:  # a time of one frame in the example, which the reshape drops
        made[-1] = (*made[-1], *(f for f, _ in left))
    return tuple(made)


def joined_dims(layouts: Sequence[Dims]) -> Dims | None:
    """The layout of an elementwise result, after broadcasting; ``None`` where two layouts do not fit."""
    rank = max(map(len, layouts))
    padded = [((),) * (rank - len(dims)) + dims for dims in layouts]
    out: list[Dim] = []
    for parts in zip(*padded, strict=True):
        found = {p for p in parts if p}
        if len(found) > 1:
            ints = {p for p in found if all(isinstance(f, int) for f in p)}
            if ints != found or len({math.prod(map(int, p)) for p in found}) > 1:
                return None
            found = {max(found, key=len)}
        out.append(found.pop() if found else ())
    return tuple(out)


@dataclass(frozen=True)
class View:
    """The conversion between a layout and chunks ``(B, C, n, *S)``.

    The dimension that holds time is split; the others stay whole. The batch comes first, then the first other dimension (or one of
    size 1), then time, then the rest.

    Args:
        dims: the layout, with batch and time in it.
    """

    dims: Dims

    @cached_property
    def pieces(self) -> tuple[Dim, ...]:
        """The dimensions, with time split off."""
        pieces: list[Dim] = []
        for dim in self.dims:
            if TIME in dim:
                at = dim.index(TIME)
                pieces += [p for p in (dim[:at], (TIME,), dim[at + 1 :]) if p]
            else:
                pieces.append(dim)
        return tuple(pieces)

    @cached_property
    def _split(self) -> bool:
        return len(self.pieces) != len(self.dims)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The order of the pieces in a chunk."""
        pieces = self.pieces
        batch, time = next(i for i, p in enumerate(pieces) if BATCH in p), pieces.index((TIME,))
        others = [i for i in range(len(pieces)) if i not in (batch, time)]
        return (batch, *others[:1], time, *others[1:])

    @cached_property
    def lonely(self) -> bool:
        """Whether there is no dimension beside batch and time."""
        return len(self.pieces) == 2

    @cached_property
    def _back(self) -> tuple[int, ...]:
        return tuple(sorted(range(len(self.order)), key=self.order.__getitem__))

    @cached_property
    def _straight(self) -> bool:
        """Whether the pieces are in a chunk's order."""
        return self.order == tuple(range(len(self.order)))

    @cached_property
    def in_order(self) -> bool:
        """Whether a frame ``(B, C, *S)`` has the dimensions of the layout in their order, without time."""
        rest = [i for i, piece in enumerate(self.pieces) if piece != (TIME,)]
        return not self._split and not self.lonely and [i for i in self.order if i in rest] == rest

    @cached_property
    def same(self) -> bool:
        """Whether the layout is that of chunks."""
        return not self._split and not self.lonely and self._straight

    def enter(self, x: Tensor, batch: int, time: int) -> Tensor:
        """A tensor of ``time`` frames, as a chunk."""
        if self.same:
            return x
        if self._split:
            x = x.reshape(self._shape(True, batch, time))
        if not self._straight:
            x = x.permute(self.order)
        return x.unsqueeze(1) if self.lonely else x

    def leave(self, x: Tensor, batch: int, time: int) -> Tensor:
        """A chunk, as a tensor in this layout."""
        if self.same:
            return x
        if self.lonely:
            x = x.squeeze(1)
        if not self._straight:
            x = x.permute(self._back)
        return x.reshape(self._shape(False, batch, time)) if self._split else x

    def enter_frame(self, x: Tensor, batch: int) -> Tensor:
        """A tensor of one frame, as a frame ``(B, C, *S)``."""
        if self._time_alone is not None:
            return x.squeeze(self._time_alone)
        return self.enter(x, batch, 1).squeeze(2)

    def leave_frame(self, x: Tensor, batch: int) -> Tensor:
        """A frame, as a tensor of one frame in this layout."""
        if self._time_alone is not None:
            return x.unsqueeze(self._time_alone)
        return self.leave(x.unsqueeze(2), batch, 1)

    @cached_property
    def _time_alone(self) -> int | None:
        """The dimension of time, if it is all that a frame lacks."""
        return self.dims.index((TIME,)) if self.in_order else None

    def _shape(self, apart: bool, batch: int, time: int) -> tuple[int, ...]:
        """The shape in this layout, with time split off or not. A few are kept: chunks come in few sizes."""
        if type(batch) is not int or type(time) is not int:  # symbolic
            return shape_of(self.pieces if apart else self.dims, batch, time)
        key, known = (apart, batch, time), self._shapes
        if key not in known:
            if len(known) >= MAX_SHAPES:
                known.clear()
            known[key] = shape_of(self.pieces if apart else self.dims, batch, time)
        return known[key]

    @cached_property
    def _shapes(self) -> dict[tuple[bool, int, int], tuple[int, ...]]:
        return {}
