"""The frames that clients send: what fits waits in the inbox, and what does not is refused, stream by stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from .inbox import Inbox
from .metrics import Metrics
from .protocol import GAP, LOW, Array, Refused, Spec
from .streams import Group, Held
from .table import Table

Overload = Literal["block", "drop-oldest", "refuse"]
Finite = Literal["refuse", "pass"]
NOTHING: tuple[Array, ...] = ()


class Intake:
    """Takes frames.

    Args:
        table: the open streams.
        inbox: where frames wait.
        specs: a frame of each input.
        overload, finite: as of :class:`~continual.serving.engine.Engine`.
        metrics: counts what is dropped.
        wake: is called when frames have come.
        refuse: is called for a stream that is closed for an error.

    Attributes:
        space: is set when frames have left the inbox.
    """

    def __init__(
        self,
        table: Table,
        inbox: Inbox,
        specs: Sequence[Spec],
        overload: Overload,
        finite: Finite,
        metrics: Metrics,
        wake: Callable[[], None],
        refuse: Callable[[Held, Refused], None],
    ):
        for name, value, allowed in (
            ("overload", overload, ("block", "drop-oldest", "refuse")),
            ("finite", finite, ("refuse", "pass")),
        ):
            if value not in allowed:
                raise ValueError(f"Engine: {name} is one of {', '.join(map(repr, allowed))}, not {value!r}")
        self._table, self._inbox, self._specs, self.credit = table, inbox, specs, inbox.depth
        self.overload, self.finite, self._metrics = overload, finite, metrics
        self._wake, self._refuse, self.space = wake, refuse, asyncio.Event()

    # ---- frames ---------------------------------------------------------------------------------------------------------

    async def room(self, held: Held) -> None:
        """Wait until a stream has no more frames than its credit. Its connection reads nothing meanwhile."""
        while self._inbox.waiting(held.row) >= self.credit and self._table.is_open(held):
            self.space.clear()
            await self.space.wait()

    async def put(self, held: Held, seq: int, parts: Sequence[Array], gap: bool = False) -> None:
        """Frames ``(n, C, *S)`` of one stream, the first of which is ``seq``.

        Raises:
            Refused: ``sequence``, ``overrun``.
        """
        count, now = len(parts[0]), time.perf_counter()
        held.hear()
        if held.finishing:
            raise Refused("sequence", "frames after finish")
        if seq != held.next and not (gap and seq > held.next):
            raise Refused("sequence", f"frame {held.next} is next, got {seq}; frames that were left out are said by the flag gap")
        if not count:
            held.sink.answer(held, held.next, NOTHING, 0, 0, 0)
            return
        over = int(self._inbox.waiting(held.row)) + count - self.credit
        if over > 0 and self.overload == "refuse":
            raise Refused("overrun", f"{over} frames more than the credit of {self.credit}", 0.0, next=held.next)
        held.message(seq, count)
        self._table.next[held.row] = held.next
        if over > 0 and self.overload == "drop-oldest":
            parts, seq = self._drop(held, seq, parts, over), seq + max(0, count - self.credit)
        at = 0
        while at < len(parts[0]):  # of more than there is room for, the rest follows
            if over > 0:
                await self.room(held)
                if not self._table.is_open(held):
                    return
            n = min(len(parts[0]) - at, self.credit - int(self._inbox.waiting(held.row)))
            self._inbox.put_many(held.row, seq + at, [x[at : at + n] for x in parts] if over > 0 else parts, now)
            at += n
            self._wake()

    def _drop(self, held: Held, seq: int, parts: Sequence[Array], over: int) -> Sequence[Array]:
        """Forget the oldest frames of a stream, and of a message that has more than the credit. Returns what is left of it."""
        self._metrics.dropped["overload"] += over
        old = min(over, int(self._inbox.waiting(held.row)))
        last = self._inbox.drop(held.row, old) if old else held.next
        if over > old:
            parts, last = [x[over - old :] for x in parts], seq + over - old - 1
        held.took(last, None, GAP)
        return parts

    def put_group(self, group: Group, entries: Array) -> None:
        """Frames of multiplexed streams. Each error closes the stream that it is of."""
        now, names = time.perf_counter(), [f"f{i}" for i in range(len(self._specs))]
        rows = entries["stream"].astype(np.int64)
        if len(np.unique(rows)) != len(rows):  # several frames of a stream: one after another
            order = np.argsort(rows, kind="stable")
            turn = np.empty(len(rows), np.int64)
            _, first, counts = np.unique(rows, return_index=True, return_counts=True)
            del first
            turn[order] = np.concatenate([np.arange(n) for n in counts])
            for n in range(int(turn.max()) + 1):
                self.put_group(group, entries[turn == n])
            return
        known = rows < len(self._table.group)
        known[known] = self._table.group[rows[known]] == group.number
        self._refuse_some(group, rows, ~known, "unknown_stream", "no such stream of this connection is open")
        parts = [entries[name] for name in names]
        own = np.where(known, rows, 0)
        fits = (self._table.next[own] & LOW) == entries["seq"]
        self._refuse_some(group, rows, known & ~fits, "sequence", "another frame is next")
        known &= fits
        full = self._inbox.waiting(own) >= self.credit
        if (known & full).any():
            self._over(group, rows, known & full)
            known &= ~full | (self.overload == "drop-oldest")
        if known.all():
            chosen: Any = slice(None)
        else:
            chosen = np.flatnonzero(known)
        rows = rows[chosen]
        if len(rows):
            self._inbox.put(rows, self._table.next[rows], [x[chosen] for x in parts], now)
            self._table.next[rows] += 1
            self._wake()

    def _over(self, group: Group, rows: Array, over: Array) -> None:
        """Frames beyond the credit of multiplexed streams, whose connection can't wait for one of them."""
        if self.overload != "drop-oldest":
            self._refuse_some(group, rows, over, "overrun", f"more frames than the credit of {self.credit}")
            return
        self._metrics.dropped["overload"] += int(over.sum())
        for row in rows[over].tolist():
            self._inbox.drop(row, 1)

    def _refuse_some(self, group: Group, rows: Array, wrong: Array, code: str, message: str) -> None:
        for row in rows[wrong].tolist():
            error = Refused(code, message, stream=row)
            held = self._table.by_row.get(row)
            if held is None or held.group is not group:
                group.sink.refused(None, error)
            else:
                self._refuse(held, error)
