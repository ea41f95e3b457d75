"""The open streams of an engine: by token, by row, and as arrays over rows for what is done to many at once."""

from __future__ import annotations

import numpy as np

from .protocol import Refused
from .streams import Group, Held, Sink


class Table:
    """The open streams.

    Args:
        rows: of the engine.

    Attributes:
        by_token, by_row: the streams.
        groups: connections of multiplexed streams, by number.
        group: of each row; 0: a stream of its own.
        next: the number of the next frame of each row.
        have: the client has the outputs up to this frame.
        saved: the frame before which the last checkpoint was taken.
    """

    def __init__(self, rows: int):
        self.by_token: dict[str, Held] = {}
        self.by_row: dict[int, Held] = {}
        self.groups: dict[int, Group] = {}
        self.group, self.have = np.zeros(rows, np.int64), np.full(rows, -1, np.int64)
        self.next, self.saved = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._number = 0

    def __len__(self) -> int:
        return len(self.by_row)

    def new_group(self, sink: Sink) -> Group:
        """Multiplexed streams of a connection."""
        self._number += 1
        group = self.groups[self._number] = Group(self._number, sink)
        return group

    def add(self, held: Held, have: int, saved: int) -> None:
        """A stream opens."""
        row = held.row
        self.by_token[held.token] = self.by_row[row] = held
        self.group[row] = held.group.number if held.group else 0
        self.next[row], self.have[row], self.saved[row] = held.next, have, saved

    def remove(self, held: Held) -> None:
        """A stream is gone from its row."""
        del self.by_token[held.token], self.by_row[held.row]
        self.group[held.row] = 0

    def is_open(self, held: Held) -> bool:
        """Whether it is this stream that its token means."""
        return self.by_token.get(held.token) is held

    def members(self, group: Group) -> list[Held]:
        """The open streams of a connection."""
        return [h for h in self.by_row.values() if h.group is group]

    def of_row(self, group: Group, row: int) -> Held:
        """A stream of a connection, by its number.

        Raises:
            Refused: ``unknown_stream``.
        """
        held = self.by_row.get(row)
        if held is None or held.group is not group:
            raise Refused("unknown_stream", f"no stream {row} of this connection is open", stream=row)
        return held
