"""The frames that clients send: frames within the credit go into the inbox, others are refused, stream by stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from .inbox import Inbox
from .metrics import Metrics
from .protocol import GAP, LOW, Array, Refused
from .streams import Group, OpenStream
from .table import Table

Overload = Literal["block", "drop-oldest", "refuse"]
Finite = Literal["refuse", "pass"]
NOTHING: tuple[Array, ...] = ()
NO_ROWS = np.zeros(0, np.int64)


class Intake:
    """Takes frames.

    Args:
        table: the open streams.
        inbox: where frames wait.
        overload, finite: as of :class:`~continual.serving.engine.Engine`.
        metrics: counts what is dropped.
        between: is held while frames are in a step.
        wake: is called when frames have come.
        refuse: is called for a stream that is closed for an error.

    Attributes:
        space: is set when frames have left the inbox.
    """

    def __init__(
        self,
        table: Table,
        inbox: Inbox,
        overload: Overload,
        finite: Finite,
        metrics: Metrics,
        between: asyncio.Lock,
        wake: Callable[[], None],
        refuse: Callable[[OpenStream, Refused], None],
    ):
        for name, value, allowed in (
            ("overload", overload, ("block", "drop-oldest", "refuse")),
            ("finite", finite, ("refuse", "pass")),
        ):
            if value not in allowed:
                raise ValueError(f"Engine: {name} is one of {', '.join(map(repr, allowed))}, not {value!r}")
        self._table, self._inbox, self.credit = table, inbox, inbox.depth
        self.overload, self.finite, self._metrics, self._between = overload, finite, metrics, between
        self._wake, self._refuse, self.space = wake, refuse, asyncio.Event()

    # ---- frames ---------------------------------------------------------------------------------------------------------

    def take(self, stream: OpenStream, seq: int, parts: Sequence[Array]) -> bool:
        """Take the next frames ``(n, C, *S)`` of one stream, if there is room for them. All other cases are for :meth:`put`."""
        if seq != stream.next or stream.finishing or not self._table.is_open(stream) or self._over(stream, len(parts[0])) > 0:
            return False
        stream.hear()
        self._message(stream, seq, len(parts[0]))
        self._put(stream, seq, parts)
        return True

    async def put(self, stream: OpenStream, seq: int, parts: Sequence[Array], gap: bool = False) -> None:
        """Frames ``(n, C, *S)`` of one stream, the first of which is ``seq``.

        Raises:
            Refused: ``sequence``, ``overrun``.
        """
        count = len(parts[0])
        if not self._table.is_open(stream):  # late frames of a closed stream, whose row may belong to another stream
            return
        stream.hear()
        if stream.finishing:
            raise Refused("sequence", "frames after finish")
        if seq != stream.next and not (gap and seq > stream.next):
            raise Refused(
                "sequence", f"frame {stream.next} is next, got {seq}; frames that were left out are said by the flag gap"
            )
        if not count:
            stream.sink.answer(stream, stream.next, NOTHING, 0, 0, 0)
            return
        over = self._over(stream, count)
        if over <= 0:
            self._message(stream, seq, count)
            self._put(stream, seq, parts)
        elif self.overload == "refuse":
            raise Refused("overrun", f"{over} frames more than the credit of {self.credit}", 0.0, next=stream.next)
        elif self.overload == "block" or self._had(stream.row, seq):
            self._message(stream, seq, count)
            await self._put_by_and_by(stream, seq, parts)
        else:
            async with self._between:  # a frame of this stream that is in a step is answered before those that are dropped
                if self._table.is_open(stream):
                    self._message(stream, seq, count)
                    self._put_newest(stream, seq, parts, self._over(stream, count))

    def _had(self, row: int, seq: int) -> bool:
        """Whether the client has the answer to the oldest waiting or arriving frame: a replayed frame, which is never dropped."""
        own = np.array([row])
        return bool(self._inbox.first(own, np.array([seq]))[0] <= self._table.have[row])

    def _over(self, stream: OpenStream, count: int) -> int:
        return int(self._inbox.waiting(stream.row)) + count - self.credit

    def _message(self, stream: OpenStream, seq: int, count: int) -> None:
        stream.message(seq, count)
        self._table.next[stream.row] = stream.next

    def _put(self, stream: OpenStream, seq: int, parts: Sequence[Array]) -> None:
        self._inbox.put_many(stream.row, seq, parts, time.perf_counter())
        self._wake()

    async def _put_by_and_by(self, stream: OpenStream, seq: int, parts: Sequence[Array]) -> None:
        """Put frames for which there is no room yet, as room appears. The connection reads nothing meanwhile."""
        at = 0
        while at < len(parts[0]):
            while self._over(stream, 1) > 0 and self._table.is_open(stream):
                self.space.clear()
                await self.space.wait()
            if not self._table.is_open(stream):
                return
            end = at + 1 - self._over(stream, 1)
            self._put(stream, seq + at, [x[at:end] for x in parts])
            at = min(end, len(parts[0]))

    def _put_newest(self, stream: OpenStream, seq: int, parts: Sequence[Array], over: int) -> None:
        """Drop as many frames of a stream as are too many: those that wait, then the first of a message that has more than the credit."""
        old = min(max(0, over), int(self._inbox.waiting(stream.row)))
        new = max(0, over) - old
        self._metrics.dropped["overload"] += old + new
        for first, last in self._inbox.drop(stream.row, old):
            stream.dropped(first, last)
        if new:
            stream.dropped(seq, seq + new - 1)
        self._put(stream, seq + new, [x[new:] for x in parts])

    async def put_group(self, group: Group, entries: Array, gap: bool = False) -> None:
        """Frames of multiplexed streams. Each error closes the stream that it is of."""
        if self.overload != "drop-oldest":
            self._put_group(group, entries, gap)
            return
        async with self._between:  # as of one stream
            self._put_group(group, entries, gap)

    def _put_group(self, group: Group, entries: Array, gap: bool) -> None:
        rows = entries["stream"].astype(np.int64)
        if len(np.unique(rows)) != len(rows):  # several frames of a stream: one after another
            order = np.argsort(rows, kind="stable")
            turn = np.empty(len(rows), np.int64)
            _, counts = np.unique(rows, return_counts=True)
            turn[order] = np.concatenate([np.arange(n) for n in counts])
            for n in range(int(turn.max()) + 1):
                self._put_group(group, entries[turn == n], gap)
            return
        known = rows < len(self._table.group)
        known[known] = self._table.group[rows[known]] == group.number
        self._refuse_some(group, rows, ~known, "unknown_stream", "no such stream of this connection is open")
        parts = [entries[name] for name in entries.dtype.names[2:]]
        own = np.where(known, rows, 0)
        ahead = (entries["seq"] - self._table.next[own]) & LOW
        fits = ahead < (1 << 31 if gap else 1)
        self._refuse_some(group, rows, known & ~fits, "sequence", "another frame is next")
        known &= fits
        full = self._inbox.waiting(own) >= self.credit
        if (known & full).any():
            dropped = self._beyond(group, rows, known & full)
            known &= ~full | dropped
        if known.all():
            chosen: Any = slice(None)
        else:
            chosen = np.flatnonzero(known)
        rows, ahead = rows[chosen], ahead[chosen]
        if len(rows):
            seq = self._table.next[rows] + ahead
            self._inbox.put(rows, seq, [x[chosen] for x in parts], time.perf_counter())
            self._table.next[rows] = seq + 1
            self._wake()

    def _beyond(self, group: Group, rows: Array, over: Array) -> Array:
        """Frames beyond the credit of multiplexed streams, whose connection can't wait for one of them.

        Returns for which of them the oldest frame was dropped; other streams are closed.
        """
        dropping = over & (self.overload == "drop-oldest")
        dropping[dropping] = [not self._had(row, 0) for row in rows[dropping].tolist()]
        self._refuse_some(group, rows, over & ~dropping, "overrun", f"more frames than the credit of {self.credit}")
        count = int(dropping.sum())
        if not count:
            return dropping
        self._metrics.dropped["overload"] += count
        for row in rows[dropping].tolist():
            for first, last in self._inbox.drop(row, 1):
                group.sink.control(self._table.by_row[row], {"type": "dropped", "first": first, "next": last + 1})
                self._table.done[row] = last
        group.sink.answers(NO_ROWS, NO_ROWS, NOTHING, GAP, count)
        self._table.answer_markers(group)
        return dropping

    def _refuse_some(self, group: Group, rows: Array, wrong: Array, code: str, message: str) -> None:
        for row in rows[wrong].tolist():
            error = Refused(code, message, stream=row)
            stream = self._table.by_row.get(row)
            if stream is None or stream.group is not group:
                group.sink.refused(None, error)
            else:
                self._refuse(stream, error)
