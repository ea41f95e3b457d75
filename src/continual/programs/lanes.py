"""The buffer of a batch of streams: the frames of each row that wait until a chunk is full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lane:
    """An input of a program: where its buffer has rows and time.

    Attributes:
        rows: the dimension of rows in the buffer.
        time: the dimension of time; ``None``: the buffer has none.
        stream: whether the input is a stream. If not, its last value fills the chunk.
    """

    rows: int = 0
    time: int | None = 2
    stream: bool = True

    @property
    def time_of_row(self) -> int | None:
        """The dimension of time in the buffer of one row."""
        return None if self.time is None else self.time - (self.rows < self.time)

    def view(self, buffer: Tensor) -> Tensor:
        """The buffer as ``(B, n, …)``."""
        moved = buffer.movedim(self.rows, 0)
        return moved.unsqueeze(1) if self.time_of_row is None else moved.movedim(self.time_of_row + 1, 1)

    def waiting(self, row: Tensor, slot: int) -> Tensor:
        """The frames that wait in the buffer of one row; of an input that is not a stream, its present value as one frame."""
        return row if self.time_of_row is None else row.narrow(self.time_of_row, 0, slot if self.stream else 1)


class Lanes:
    """One chunk of each input, for all rows.

    Args:
        lanes: the inputs.
        buffers: a tensor for each of them.
    """

    def __init__(self, lanes: Sequence[Lane], buffers: Sequence[Tensor]):
        self.lanes, self.buffers = list(lanes), list(buffers)
        self._views = [lane.view(t) for lane, t in zip(lanes, buffers, strict=True)]
        self._rows = [t.movedim(lane.rows, 0) for lane, t in zip(lanes, buffers, strict=True)]

    def put(self, rows: Tensor, slot: int, parts: Sequence[Tensor]) -> None:
        """Write frames ``(n, k, …)`` of some rows, the first one at ``slot``."""
        for lane, view, x in zip(self.lanes, self._views, parts, strict=True):
            if lane.stream:
                view.narrow(1, slot, x.shape[1]).index_copy_(0, rows, x)
            else:
                view.index_copy_(0, rows, x[:, -1:].expand(-1, view.shape[1], *view.shape[2:]))

    def waiting(self, row: int, slot: int) -> list[Tensor]:
        """Of one row, the ``slot`` frames of each input that wait, without rows."""
        return [lane.waiting(t[row], slot) for lane, t in zip(self.lanes, self._rows, strict=True)]

    def restore(self, row: int, slot: int, waiting: Sequence[Tensor]) -> None:
        """Write the frames that wait into a row."""
        for lane, t, value in zip(self.lanes, self._rows, waiting, strict=True):
            if lane.stream:
                lane.waiting(t[row], slot).copy_(value)
            else:
                t[row].copy_(value)

    def updated(self, waiting: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The waiting frames of a snapshot of an earlier version, with as many frames of an input that is not a stream as of others."""
        if len(waiting) != len(self.lanes):
            return waiting
        return tuple(_last(lane, t) for lane, t in zip(self.lanes, waiting, strict=True))

    def copies(self, rows: Tensor) -> list[Tensor]:
        """A copy of whole chunks of some rows, rows first."""
        return [t.index_select(0, rows) for t in self._rows]

    def write(self, rows: Tensor, chunks: Sequence[Tensor]) -> None:
        """Write whole chunks of some rows, rows first."""
        for t, value in zip(self._rows, chunks, strict=True):
            t.index_copy_(0, rows, value)


def _last(lane: Lane, waiting: Tensor) -> Tensor:
    """The last of some frames of an input that is not a stream; zeros if there is none."""
    time = lane.time_of_row
    if lane.stream or time is None or waiting.ndim <= time:
        return waiting
    length = waiting.shape[time]
    return waiting.narrow(time, length - 1, 1) if length else torch.zeros_like(waiting.sum(time, keepdim=True))
