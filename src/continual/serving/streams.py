"""The data of open streams, and of the connections that use them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .protocol import GAP, Array, Refused


class Sink(Protocol):
    """Where the answers of streams go: a connection of a client. No method waits."""

    def answer(self, stream: OpenStream, seq: int, outputs: Sequence[Array], count: int, flags: int, credit: int) -> None:
        """The answer to a message of one stream: ``count`` outputs ``(count, C', *S')``, and the frames that it had.

        Without outputs ``seq`` is that of the last frame.
        """

    def answers(self, rows: Array, seqs: Array, outputs: Sequence[Array], flags: int, credit: int) -> None:
        """Outputs ``(n, C', *S')`` of multiplexed streams, and how many of their frames have taken their step."""

    def control(self, stream: OpenStream | None, message: dict[str, Any]) -> None:
        """A control message, of a stream or of the connection."""

    def refused(self, stream: OpenStream | None, error: Refused) -> None:
        """A stream is closed by an error; or a message that belongs to no open stream is refused."""


class Group:
    """The multiplexed streams of one connection.

    Attributes:
        markers: for each marker the streams and frames whose answers it waits for, and the message to send back then.
    """

    def __init__(self, number: int, sink: Sink):
        self.number, self.sink = number, sink
        self.markers: deque[tuple[list[tuple[OpenStream, int]], OpenStream | None, Any]] = deque()


class OpenStream:
    """A stream that is open.

    Attributes:
        token: of the client.
        row: its row; also its number in multiplexed messages.
        epoch: of the claim in the store.
        sink: where its answers go.
        group: of multiplexed streams.
        next: the number of the next frame.
        finishing: whether the client has said that no more frames come.
        ended: outputs of the end so far; ``None`` before the end.
        seen: when the client was last heard.
    """

    def __init__(self, token: str, row: int, epoch: int, sink: Sink, group: Group | None, next: int):
        self.token, self.row, self.epoch, self.sink, self.group, self.next = token, row, epoch, sink, group, next
        self.finishing = False
        self.ended: int | None = None
        self.opened = self.seen = time.perf_counter()
        self._messages: deque[list[int]] = deque()  # the first and the last frame of each, and the flags of its answer
        self._markers: deque[tuple[int, Any]] = deque()  # each waits for a frame's answer
        self._outputs: list[Sequence[Array]] = []
        self._first = -1  # the frame of the first of these outputs

    def hear(self) -> None:
        """Note that the client is active."""
        self.seen = time.perf_counter()

    def message(self, first: int, count: int) -> None:
        """A message of ``count`` frames has come."""
        self._messages.append([first, first + count - 1, 0])
        self.next = first + count

    def marker(self, id: Any) -> None:
        """A marker has come: it is answered when all earlier frames have been."""
        if self._messages:
            self._markers.append((self._messages[-1][1], id))
        else:
            self.sink.control(self, {"type": "marker", "id": id})

    def dropped(self, first: int, last: int) -> None:
        """Frames take no step. Their client is told which: when it resumes, it leaves them out."""
        for message in self._messages:
            if message[0] <= last and message[1] >= first:
                message[2] |= GAP
        self.sink.control(self, {"type": "dropped", "first": first, "next": last + 1})
        self.took(last, None)

    def took(self, seq: int, outputs: Sequence[Array] | None) -> None:
        """A frame has taken its step, or was dropped. Answers the messages that are complete.

        Args:
            seq: the frame.
            outputs: what it brought, ``(m, C', *S')`` of each output.
        """
        if outputs is not None:
            self._first = seq if not self._outputs else self._first
            self._outputs.append(outputs)
        while self._messages and self._messages[0][1] <= seq:
            start, last, flags = self._messages.popleft()
            made = self._outputs
            if len(made) > 1:
                joined: Sequence[Array] = [np.concatenate(parts) for parts in zip(*made, strict=True)]
            else:
                joined = made[0] if made else ()
            first, self._outputs = self._first if made else last, []
            self.sink.answer(self, first, joined, len(joined[0]) if joined else 0, flags, last + 1 - start)
        while self._markers and self._markers[0][0] <= seq:
            self.sink.control(self, {"type": "marker", "id": self._markers.popleft()[1]})

    def forget(self) -> None:
        """Forget messages that have come, and what they brought."""
        self._messages.clear()
        self._markers.clear()
        self._outputs = []
