"""The open streams of an engine: by token, by row, and as arrays over rows for operations on many of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .protocol import Refused
from .streams import Group, OpenStream, Sink


class Table:
    """The open streams.

    Args:
        rows: of the engine.

    Attributes:
        by_token, by_row: the streams.
        groups: connections of multiplexed streams, by number.
        group: of each row; 0: a stream of its own.
        next: the number of the next frame of each row.
        done: the last frame of each row that has taken its step, or was dropped.
        have: the client has the outputs up to this frame.
        saved: the frame before which the last checkpoint was taken.
    """

    def __init__(self, rows: int):
        self.by_token: dict[str, OpenStream] = {}
        self.by_row: dict[int, OpenStream] = {}
        self.groups: dict[int, Group] = {}
        self.group, self.have = np.zeros(rows, np.int64), np.full(rows, -1, np.int64)
        self.next, self.saved, self.done = (np.zeros(rows, np.int64) for _ in range(3))
        self._number = 0

    def __len__(self) -> int:
        return len(self.by_row)

    def new_group(self, sink: Sink) -> Group:
        """Multiplexed streams of a connection."""
        self._number += 1
        group = self.groups[self._number] = Group(self._number, sink)
        return group

    def add(self, stream: OpenStream, have: int, saved: int) -> None:
        """A stream opens."""
        row = stream.row
        self.by_token[stream.token] = self.by_row[row] = stream
        self.group[row] = stream.group.number if stream.group else 0
        self.next[row], self.done[row], self.have[row], self.saved[row] = stream.next, stream.next - 1, have, saved

    def reset(self, stream: OpenStream) -> None:
        """A stream restarts."""
        row, stream.next = stream.row, 0
        self.next[row], self.done[row], self.have[row], self.saved[row] = 0, -1, -1, 0

    def remove(self, stream: OpenStream) -> None:
        """A stream is gone from its row."""
        del self.by_token[stream.token], self.by_row[stream.row]
        self.group[stream.row] = 0
        if stream.group is not None:
            self.answer_markers(stream.group)

    def is_open(self, stream: OpenStream) -> bool:
        """Whether the stream is open: its token still belongs to it."""
        return self.by_token.get(stream.token) is stream

    def members(self, group: Group) -> list[OpenStream]:
        """The open streams of a connection."""
        return [s for s in self.by_row.values() if s.group is group]

    def of_row(self, group: Group, row: int) -> OpenStream:
        """A stream of a connection, by its number.

        Raises:
            Refused: ``unknown_stream``.
        """
        stream = self.by_row.get(row)
        if stream is None or stream.group is not group:
            raise Refused("unknown_stream", f"no stream {row} of this connection is open", stream=row)
        return stream

    # ---- markers of multiplexed streams ---------------------------------------------------------------------------------

    def marker(self, group: Group, stream: OpenStream | None, id: Any) -> None:
        """A marker has come: it is sent back when all earlier frames of a stream, or of all of them, have been answered."""
        streams = self.members(group) if stream is None else [stream]
        group.markers.append(([(s, int(self.next[s.row]) - 1) for s in streams], stream, id))
        self.answer_markers(group)

    def answer_markers(self, group: Group) -> None:
        """Send back the markers that no longer wait, in their order."""
        while group.markers:
            waits, stream, id = group.markers[0]
            waits[:] = [(s, last) for s, last in waits if self.is_open(s) and self.done[s.row] < last]
            if waits:
                return
            group.markers.popleft()
            group.sink.control(stream, {"type": "marker", "id": id})
