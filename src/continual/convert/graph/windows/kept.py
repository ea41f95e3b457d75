"""What windows take over from each other, and how it is kept from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ....layers.ring_views import STEPS
from ..exec_context import ExecContext
from .wire import HistoryLayout, Wire


@dataclass(frozen=True)
class History:
    """Values that earlier windows have computed and later ones take over.

    Entry ``(p - first) * rate`` is position ``p`` of the window.

    Attributes:
        task: which task's.
        first: the first position that is kept.
        rate: entries from one position to the next.
        new: entries that each window adds.
        size: how many there are.
        at: the position of the first entry that this window adds, and its index among the computed ones.
    """

    task: int
    first: int
    rate: int
    new: int
    size: int
    at: int
    wire: Wire
    dtype: torch.dtype

    @property
    def round(self) -> int:
        """Entries of a buffer. Those of old windows are overwritten."""
        return -(-self.size // self.new) * self.new

    def place(self, hop: int) -> int:
        """Where the window of a hop writes its new entries in the buffer."""
        return hop * self.new % self.round

    def old(self, buffer: Tensor, hop: int) -> Tensor:
        """The entries that a window reads: the last ones of a mirrored buffer."""
        return buffer.narrow(self.layout.at, self.place(hop) + self.round - self.size, self.size)

    def slots(self, buffer: Tensor, hop: int) -> tuple[Tensor, ...]:
        """Where the window of a hop writes its new entries."""
        at, place = self.layout.at, self.place(hop)
        return buffer.narrow(at, place, self.new), buffer.narrow(at, place + self.round, self.new)

    def buffer(self, entries: Tensor, hops: int) -> Tensor:
        """A mirrored buffer that holds the last entries after this many hops."""
        at, lost = self.layout.at, self.round - self.size
        if lost:
            shape = [*entries.shape[:at], lost, *entries.shape[at + 1 :]]
            entries = torch.cat((entries.new_zeros(shape), entries), at)
        entries = entries.roll(self.place(hops), at)
        return torch.cat((entries, entries), at)

    @cached_property
    def layout(self) -> Any:
        """How they are kept."""
        return HistoryLayout(self.wire.dims)

    @property
    def hops(self) -> int:
        """How many earlier windows together hold everything that a window reuses."""
        return self.rate

    def added(self, value: Any, m: ExecContext) -> Tensor:
        """What a window adds, of what it has computed."""
        axis = self.wire.axis
        return axis.split(value, m.batch).narrow(axis.apart, self.at, self.new)

    def pushed(self, kept: Tensor, x: Tensor, at: int) -> Tensor:
        """The last entries, including the new ones of a window; positions are dimension ``at``."""
        if self.size <= self.new:
            return x.narrow(at, self.new - self.size, self.size)
        return torch.cat((kept.narrow(at, self.new, self.size - self.new), x), at)


class BufferViews:
    """Views of the buffers of histories, made once for each place where a window begins: views cost as much as small operations.

    Args:
        histories: what windows take over.
        buffers: where.
        batch: the number of rows.
    """

    def __init__(self, histories: Sequence[History], buffers: Sequence[Tensor], batch: int):
        self._parts = [(h, b, dict[int, tuple[Tensor, tuple[Tensor, ...]]]()) for h, b in zip(histories, buffers, strict=True)]
        self._batch, self._memory = batch, {_storage(b) for b in buffers}

    def at(self, hop: int) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
        """What the window of a hop takes over from each history, and where it writes what it adds."""
        found = [self._of(hop, *part) for part in self._parts]
        return [kept for kept, _ in found], [slots for _, slots in found]

    def _of(
        self, hop: int, history: History, buffer: Tensor, known: dict[int, tuple[Tensor, tuple[Tensor, ...]]]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        place = history.place(hop)
        found = known.get(place)
        if found is None:
            kept = history.layout.take(history.old(buffer, hop), self._batch)
            found = kept, history.slots(buffer, hop)
            if len(known) < STEPS and _storage(kept) in self._memory:  # no copy, which would be old
                known[place] = found
        return found

    def apart(self, x: Tensor) -> Tensor:
        """A tensor that is not a view of a buffer, which is about to be written into."""
        return x.clone() if _storage(x) in self._memory else x


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
