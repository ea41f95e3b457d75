"""`Engine`: the streams of one network on one machine, without a transport."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..core.step_spec import Inputs
from ..errors import ShapeMismatch, StateMismatch
from ..programs.compile import Backend
from ..programs.stream_batch import StreamBatch
from .blobs import packed, unpacked
from .checkpoints import Checkpoints
from .delivery import deliver, deliver_end
from .inbox import Inbox, Taken
from .intake import Finite, Intake, Overload
from .metrics import Metrics
from .model import Served
from .protocol import Refused
from .stepper import Stepper
from .store import Checkpoint, Store, store_of
from .streams import Group, Held, Sink
from .table import Table

log = logging.getLogger("continual.serve")


class Engine:
    """The streams of one network: their frames wait in queues, and each step takes one frame of every stream that has one.

    A step starts as soon as the last one is done, with the frames that are there: more streams make larger steps.

    Args:
        net: a streaming network in eval mode, or an exported file opened by :func:`continual.load`.
        step: an example step ``(B, C, *S)``; not for a file.
        capacity, shards, backend: as of :class:`~continual.StreamBatch`.
        store: where checkpoints are kept: a folder, ``redis://…``, or ``None``: the memory of this process.
        credit: frames that a stream may have in the server.
        overload: what happens to frames beyond the credit: their connection waits (``"block"``), they take the place of the oldest ones
            (``"drop-oldest"``), or they are refused (``"refuse"``).
        finite: whether frames with NaN or infinities close their stream (``"refuse"``) or pass (``"pass"``).
        checkpoint_every: frames between checkpoints of a stream, at least ``credit``.
        pace: seconds between steps for which frames of other streams that send are waited for; not for those of a quarter of them.
        idle: seconds of silence after which a stream is closed, which can be resumed.
        keep: seconds for which a stream can be resumed.
        max_age: seconds after which a stream is moved; ``None``: never.
        rate: steps per second, for clients.

    Example:
        >>> import asyncio
        >>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU())).eval()
        >>> async def serve():
        ...     async with co.serve.Engine(net, torch.zeros(1, 2), capacity=8, backend="eager") as engine:
        ...         return engine.capacity, engine.gauges()["open"]
        >>> asyncio.run(serve())
        (8, 0)
    """

    def __init__(
        self,
        net: Any,
        step: Inputs | None = None,
        *,
        capacity: int = 64,
        shards: int = 1,
        backend: Backend = "aot",
        store: str | Path | Store | None = None,
        credit: int = 32,
        overload: Overload = "block",
        finite: Finite = "refuse",
        checkpoint_every: int = 256,
        pace: float = 0.005,
        idle: float = 60.0,
        keep: float = 300.0,
        max_age: float | None = None,
        rate: float | None = None,
    ):
        if not 1 <= credit <= 0xFFFF:
            raise ValueError(f"Engine: credit is from 1 to 65535 frames, got {credit}")
        self.streams = StreamBatch(net, step, capacity, shards=shards, backend=backend)
        self.model = Served(self.streams, rate)
        self.capacity, self.credit = capacity, credit
        self.every, self.idle, self.max_age = max(checkpoint_every, credit), idle, max_age
        self.metrics, self.draining, self.ready = Metrics(), False, False
        self.table, self._wake, self._between = Table(capacity), asyncio.Event(), asyncio.Lock()
        self._inbox = Inbox(capacity, credit, self.model.inputs.specs)
        self.intake = Intake(self.table, self._inbox, overload, finite, self.metrics, self._between, self._arrived, self.refuse)
        given = store_of(store, keep) if store is None or isinstance(store, (str, Path)) else store
        self.checkpoints = Checkpoints(given, keep, self._taken_over)
        self._finishing: set[Held] = set()
        self._pool = ThreadPoolExecutor(1, "continual-step")
        self._tasks: list[asyncio.Task[Any]] = []
        self._stepper = Stepper(self.model, self._inbox, self.metrics, self._pool, pace)

    # ---- life -----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.stop()

    async def start(self) -> None:
        """Compile, and begin to serve."""
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        await loop.run_in_executor(self._pool, self.streams.warm_up)
        self.metrics.compile = time.perf_counter() - started
        self._stepper.first()
        self._tasks = [
            loop.create_task(t) for t in (self._run(), self._watch(), self.checkpoints.expire(lambda: [*self.table.by_token]))
        ]
        self.ready = True

    async def stop(self, grace: float = 0.0) -> None:
        """Stop: with ``grace`` after frames that wait have taken their steps and all streams are kept, and their clients moved."""
        self.ready, self.draining = False, True
        if grace:
            await self._drain(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.checkpoints.settled()
        self.checkpoints.close()
        self._pool.shutdown(wait=True)

    async def _drain(self, grace: float) -> None:
        until = time.monotonic() + grace
        while (self._inbox.busy or self.streams.ending or self._finishing) and time.monotonic() < until - grace / 2:
            await asyncio.sleep(0.005)
        async with self._between:
            await self._move([h for h in self.table.by_row.values() if h.ended is None])

    async def _move(self, held: Sequence[Held]) -> None:
        """Keep the present states of some streams, say to their clients that another server goes on, and close them."""
        if not held:
            return
        await self.checkpoints.settled()
        made = self._checkpoints_of(held)
        await self.checkpoints.written(held, made, tell=False)
        for h, checkpoint in zip(held, made(), strict=True):
            if self.table.is_open(h):
                h.sink.control(h, {"type": "moved", "token": h.token, "next": checkpoint.next})
                self._release(h)

    # ---- streams --------------------------------------------------------------------------------------------------------

    def gauges(self) -> dict[str, float]:
        """The numbers of streams that are open, of those that are kept for clients to come back, and the capacity."""
        parked = max(0, self.checkpoints.known - len(self.table.by_row))
        return {"open": len(self.table.by_row), "parked": parked, "capacity": self.capacity}

    async def open(self, sink: Sink, group: Group | None = None, count: int = 1) -> list[Held]:
        """Open streams.

        Raises:
            Refused: ``full`` or ``draining``. Then none is open.
        """
        held: list[Held] = []
        try:
            for _ in range(count):
                held.append(await self._open(secrets.token_hex(16), 0, sink, group, None, 0, -1))
            await self._stored(self.checkpoints.store.create, [h.token for h in held], self.model.digest)
        except Refused:
            for h in held:
                await self.park(h)
            raise
        return held

    async def _stored(self, method: Callable[..., Any], *args: Any) -> Any:
        """A method of the store, which may be out of reach."""
        try:
            return await self.checkpoints.call(method, *args)
        except Exception as error:
            log.exception("continual serve: the store fails")
            raise Refused("internal", f"the store of states fails: {type(error).__name__}", 1.0) from error

    async def _open(
        self, token: str, epoch: int, sink: Sink, group: Group | None, blob: bytes | None, next: int, have: int
    ) -> Held:
        async with self._between:
            if self.draining:
                raise Refused("draining", "this server is about to stop", 1.0)
            if len(self.table.by_row) >= self.capacity:
                raise Refused("full", f"all {self.capacity} streams are in use", 1.0)
            if token in self.table.by_token:
                raise Refused("unknown_stream", "another connection has resumed this stream")
            self.streams.open(token)
            row = int(self.streams.rows([token])[0])
            try:
                if blob:
                    self.streams.restore_rows([row], unpacked([blob], self.streams.snapshot_rows([row])))
            except Exception as error:
                self.streams.close(token)
                if not isinstance(error, StateMismatch):
                    raise
                self.metrics.resumes["damaged"] += 1
                raise Refused("unknown_stream", f"stream {token[:8]}… can't go on: {error}") from error
            held = Held(token, row, epoch, sink, group, next)
            self._inbox.clear(row)
            self.table.add(held, have, saved=next - (row * 97) % self.every)  # not all streams are kept at once
            return held

    async def resume(self, token: str, have: int, sink: Sink, group: Group | None = None) -> Held:
        """Go on with a stream, whoever served it. The newest connection wins.

        Args:
            token: of the stream.
            have: the last frame whose answer the client has; -1: none.
            sink: of the new connection.
            group: of multiplexed streams.

        Raises:
            Refused: ``unknown_stream``, ``other_model``, ``full`` or ``draining``.
        """
        if self.draining:
            raise Refused("draining", "this server is about to stop", 1.0)
        store = self.checkpoints.store
        if (before := self.table.by_token.get(token)) is not None:
            before.sink.refused(before, Refused("unknown_stream", "another connection has resumed this stream"))
            await self.park(before)
        kept = await self._stored(store.get, token)
        fitting = [c for c in kept if c.next <= have + 1]
        if not fitting:
            self.metrics.resumes["unknown"] += 1
            raise Refused("unknown_stream", f"stream {token[:8]}… is not kept here, or no more from frame {have + 1} on")
        if fitting[0].model != self.model.digest:
            self.metrics.resumes["other_model"] += 1
            raise Refused("other_model", f"stream {token[:8]}… is of another network or of other weights")
        epoch = await self._stored(store.claim, token, fitting[0].next)
        held = await self._open(token, epoch, sink, group, fitting[0].blob, fitting[0].next, have)
        self.metrics.resumes["resumed"] += 1
        return held

    async def park(self, held: Held) -> None:
        """A client is gone: free the row. The stream can be resumed from its checkpoints."""
        async with self._between:
            self._release(held)

    async def close(self, held: Held) -> None:
        """A client is done with a stream: free the row, and forget the stream."""
        await self.park(held)
        self.checkpoints.forget([held.token])

    def _release(self, held: Held) -> None:
        if not self.table.is_open(held):
            return
        self.table.remove(held)
        self._finishing.discard(held)
        held.forget()
        self._inbox.clear(held.row)
        self.streams.close(held.token)
        self.intake.space.set()

    async def reset(self, held: Held) -> None:
        """Restart a stream at frame 0.

        Raises:
            Refused: ``unknown_stream``: it is closed.
        """
        async with self._between:
            if not self.table.is_open(held):
                raise Refused("unknown_stream", "the stream is closed: open another one")
            held.forget()
            self._inbox.clear(held.row)
            self.streams.reset(held.token)
            self.table.reset(held)
        store = self.checkpoints.store
        await self._stored(store.drop, [held.token])
        await self._stored(store.create, [held.token], self.model.digest)
        held.epoch = 0

    def finish(self, held: Held) -> None:
        """No more frames come: when those that wait have taken their steps, the stream ends."""
        if not held.finishing and self.table.is_open(held):
            held.finishing = True
            self._finishing.add(held)
            self._wake.set()

    def _arrived(self) -> None:
        self._wake.set()
        self._stepper.arrived()

    def _taken_over(self, held: Sequence[Held]) -> None:
        """Streams that another engine goes on with."""
        for h in held:
            if self.table.is_open(h):
                h.sink.refused(h, Refused("unknown_stream", "another server has resumed this stream"))
                asyncio.get_running_loop().create_task(self.park(h))

    def refuse(self, held: Held, error: Refused) -> None:
        """Close a stream for an error. It can be resumed from its last checkpoint."""
        self.metrics.refused[error.code] += 1
        held.sink.refused(held, error)
        self.table.group[held.row] = 0  # takes no more frames
        asyncio.get_running_loop().create_task(self.park(held))

    # ---- the model loop -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._stepper.company(bool(self._finishing or self.streams.ending))
            async with self._between:
                taken = self._inbox.take()
                if taken is not None and self.intake.finite == "refuse":
                    taken = self._finite(taken)
                if taken is None and not self.streams.ending and not self._finishing:
                    self._wake.clear()
                    continue
                self.intake.space.set()
                try:
                    y, valid = await self._stepper.step(taken)
                    if taken is not None:
                        deliver(self.table, taken, y, valid)
                        self.metrics.frame.observe(time.perf_counter() - taken.when)
                    self._ends()
                    self._checkpoint(taken)
                except Exception as error:
                    log.exception("continual serve: a step failed")
                    self._failed(taken, error)
            await asyncio.sleep(0)

    def _finite(self, taken: Taken) -> Taken | None:
        """Close the streams whose frames have NaN or infinities. Returns the frames of the others."""
        found, bad = taken.finite()
        for row, seq in bad:
            if (held := self.table.by_row.get(row)) is not None:
                self.refuse(held, Refused("not_finite", f"frame {seq} has NaN or infinities"))
        return found

    def _ends(self) -> None:
        """Begin and go on with the ends of streams."""
        for held in list(self._finishing):
            if not self._inbox.waiting(held.row):
                self._finishing.discard(held)
                try:
                    self.streams.finish(held.token)
                    held.ended = 0
                except ShapeMismatch as error:
                    self.refuse(held, Refused("sequence", str(error)))
        for ended in self.streams.ended():
            held = self.table.by_token[str(ended.stream)]
            deliver_end(self.table, held, self.model.end(ended.y), ended.done)

    def _failed(self, taken: Taken | None, error: Exception) -> None:
        for row in [] if taken is None else taken.rows.tolist():
            if (held := self.table.by_row.get(int(row))) is not None:
                self.refuse(held, Refused("internal", f"{type(error).__name__}: {error}"))

    # ---- checkpoints ----------------------------------------------------------------------------------------------------

    def _checkpoint(self, taken: Taken | None) -> None:
        """Keep the states of streams that have gone far since their last checkpoint."""
        if taken is None:
            return
        due = taken.seq + 1 - self.table.saved[taken.rows] >= self.every
        if not due.any():
            return
        rows = taken.rows[due]
        self.table.saved[rows] = taken.seq[due] + 1
        found = [h for row in rows.tolist() if (h := self.table.by_row.get(row)) is not None and h.ended is None]
        found = [h for h in found if h.token not in self.checkpoints.pending]
        if found:
            self.checkpoints.write(found, self._checkpoints_of(found))

    def _checkpoints_of(self, held: Sequence[Held]) -> Any:
        """The checkpoints of streams as they are now, made of a copy when they are asked for."""
        rows = np.array([h.row for h in held])
        snapshot = self.streams.snapshot_rows(rows)
        nexts = self._inbox.first(rows, self.table.next[rows]).tolist()
        known, model = [(h.token, h.epoch, next) for h, next in zip(held, nexts, strict=True)], self.model.digest
        self.metrics.snapshots += len(rows)

        def made() -> list[Checkpoint]:
            return [Checkpoint(*own, model, blob) for own, blob in zip(known, packed(snapshot), strict=True)]

        return made

    async def _watch(self) -> None:
        """Close streams that are silent, and move those that are old."""
        while True:
            await asyncio.sleep(min(self.idle, self.max_age or math.inf, 4.0) / 4)
            now = time.perf_counter()
            for held in list(self.table.by_row.values()):
                silent = now - max(held.seen, self._inbox.last(held.row)) > self.idle
                if silent and held.ended is None and not self._inbox.waiting(held.row):
                    self.refuse(held, Refused("idle", f"no message for {self.idle:g} s", 0.0))
            if self.max_age is not None:
                async with self._between:
                    await self._move([h for h in self.table.by_row.values() if now - h.opened > self.max_age and h.ended is None])
