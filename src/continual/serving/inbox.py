"""Frames that have arrived and wait for their step: a ring for each row, in one array for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .protocol import Array, Spec


class Taken(NamedTuple):
    """The oldest frame of each row that has one.

    Attributes:
        rows: their numbers ``(n,)``.
        seq: the frame's number in its stream.
        parts: the frames ``(n, C, *S)`` of each input.
        when: they arrived.
    """

    rows: Array
    seq: Array
    parts: list[Array]
    when: Array

    def finite(self) -> tuple[Taken | None, list[tuple[int, int]]]:
        """The frames without NaN and infinities, ``None`` if there are none; and the rows and ``seq`` of the others."""
        good = np.ones(len(self.rows), bool)
        for x in self.parts:
            if x.dtype.kind == "f":
                good &= np.isfinite(x).reshape(len(x), -1).all(1)
        if good.all():
            return self, []
        bad = list(zip(self.rows[~good].tolist(), self.seq[~good].tolist(), strict=True))
        found = Taken(self.rows[good], self.seq[good], [x[good] for x in self.parts], self.when[good])
        return (found if good.any() else None), bad


class Inbox:
    """A ring of frames for each row. Pages that no frame has touched take no memory.

    Args:
        rows: their number.
        depth: frames that may wait in a row.
        specs: a frame of each input.

    Attributes:
        busy: how many rows have frames that wait.
    """

    def __init__(self, rows: int, depth: int, specs: Sequence[Spec]):
        self.depth, self.busy = depth, 0
        self._parts: list[Array] = [np.empty((rows, depth, *s.shape), s.dtype) for s in specs]
        self._seq, self._when = np.zeros((rows, depth), np.int64), np.zeros((rows, depth))
        self._last = np.full(rows, -np.inf)  # when a frame came
        self._head, self._tail = np.zeros(rows, np.int64), np.zeros(rows, np.int64)

    def waiting(self, rows: Any) -> Any:
        """How many frames wait in a row, or in each of some rows."""
        return self._tail[rows] - self._head[rows]

    def first(self, rows: Array, otherwise: Array) -> Array:
        """The number of the oldest frame of each row that waits; of a row without one its entry of ``otherwise``."""
        oldest = self._seq[rows, self._head[rows] % self.depth]
        return np.where(self.waiting(rows) > 0, oldest, otherwise)

    def put(self, rows: Array, seq: Array, parts: Sequence[Array], now: float) -> None:
        """A frame for each of some different rows, which have room."""
        tail = self._tail[rows]
        self.busy += int(np.count_nonzero(tail == self._head[rows]))
        at = tail % self.depth
        for own, x in zip(self._parts, parts, strict=True):
            own[rows, at] = x
        self._seq[rows, at], self._when[rows, at], self._last[rows] = seq, now, now
        self._tail[rows] = tail + 1

    def put_many(self, row: int, seq: int, parts: Sequence[Array], now: float) -> None:
        """Several frames for one row, which has room."""
        count, tail = len(parts[0]), int(self._tail[row])
        self.busy += count > 0 and tail == int(self._head[row])
        at = tail % self.depth
        rest = max(0, at + count - self.depth)  # what goes on at the beginning of the ring
        self._write(row, at, seq, parts if not rest else [x[:-rest] for x in parts], now)
        if rest:
            self._write(row, 0, seq + count - rest, [x[-rest:] for x in parts], now)
        self._last[row], self._tail[row] = now, tail + count

    def _write(self, row: int, at: int, seq: int, parts: Sequence[Array], now: float) -> None:
        count = len(parts[0])
        if count == 1:  # as most messages have: numbers are quicker than slices
            for own, x in zip(self._parts, parts, strict=True):
                own[row, at] = x[0]
            self._seq[row, at], self._when[row, at] = seq, now
            return
        places = slice(at, at + count)
        for own, x in zip(self._parts, parts, strict=True):
            own[row, places] = x
        self._seq[row, places], self._when[row, places] = np.arange(seq, seq + count), now

    def last(self, row: int) -> float:
        """When a frame of a row came."""
        return float(self._last[row])

    def active(self, since: float) -> int:
        """How many rows have had frames since a moment."""
        return int(np.count_nonzero(self._last > since))

    def take(self) -> Taken | None:
        """The oldest frame of each row that has one; ``None`` if no frame waits."""
        rows = np.flatnonzero(self._tail > self._head)
        if not len(rows):
            return None
        head = self._head[rows]
        at = head % self.depth
        found = Taken(rows, self._seq[rows, at], [own[rows, at] for own in self._parts], self._when[rows, at])
        head += 1
        self._head[rows] = head
        self.busy = int(np.count_nonzero(head < self._tail[rows]))
        return found

    def drop(self, row: int, count: int) -> list[tuple[int, int]]:
        """Forget the oldest frames of a row. Returns the first and the last ``seq`` of each run of them."""
        head = int(self._head[row])
        seq = self._seq[row, np.arange(head, head + count) % self.depth]
        self._head[row] = head + count
        self.busy -= count > 0 and head + count == int(self._tail[row])
        runs = np.split(seq, np.flatnonzero(np.diff(seq) != 1) + 1) if count else []
        return [(int(run[0]), int(run[-1])) for run in runs]

    def clear(self, row: int) -> None:
        """Forget all frames of a row."""
        self.busy -= int(self._head[row] < self._tail[row])
        self._head[row] = self._tail[row]
