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
from .streams import Group, OpenStream, Sink
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
        pace: seconds from step to step for which a step waits until a quarter of the active streams have a frame.
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
        opened = store_of(store, keep) if store is None or isinstance(store, (str, Path)) else store
        self.checkpoints = Checkpoints(opened, keep, self._taken_over)
        self._finishing: set[OpenStream] = set()
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
            await self._move([s for s in self.table.by_row.values() if s.ended is None])

    async def _move(self, streams: Sequence[OpenStream]) -> None:
        """Store the current states of streams, tell their clients to continue on another server, and close the streams."""
        if not streams:
            return
        await self.checkpoints.settled()
        made = self._checkpoints_of(streams)
        await self.checkpoints.written(streams, made, tell=False)
        for s, checkpoint in zip(streams, made(), strict=True):
            if self.table.is_open(s):
                s.sink.control(s, {"type": "moved", "token": s.token, "next": checkpoint.next})
                self._release(s)

    # ---- streams --------------------------------------------------------------------------------------------------------

    def gauges(self) -> dict[str, float]:
        """The numbers of streams that are open, of those that are kept for clients to come back, and the capacity."""
        parked = max(0, self.checkpoints.known - len(self.table.by_row))
        return {"open": len(self.table.by_row), "parked": parked, "capacity": self.capacity}

    async def open(self, sink: Sink, group: Group | None = None, count: int = 1) -> list[OpenStream]:
        """Open streams.

        Raises:
            Refused: ``full`` or ``draining``. Then none is open.
        """
        streams: list[OpenStream] = []
        try:
            for _ in range(count):
                streams.append(await self._open(secrets.token_hex(16), 0, sink, group, None, 0, -1))
            await self._stored(self.checkpoints.store.create, [s.token for s in streams], self.model.digest)
        except Refused:
            for s in streams:
                await self.park(s)
            raise
        return streams

    async def _stored(self, method: Callable[..., Any], *args: Any) -> Any:
        """Call a method of the store, which may be unreachable."""
        try:
            return await self.checkpoints.call(method, *args)
        except Exception as error:
            log.exception("continual serve: the store fails")
            raise Refused("internal", f"the store of states fails: {type(error).__name__}", 1.0) from error

    async def _open(
        self, token: str, epoch: int, sink: Sink, group: Group | None, blob: bytes | None, next: int, have: int
    ) -> OpenStream:
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
            stream = OpenStream(token, row, epoch, sink, group, next)
            self._inbox.clear(row)
            self.table.add(stream, have, saved=next - (row * 97) % self.every)  # checkpoints are spread over time
            return stream

    async def resume(self, token: str, have: int, sink: Sink, group: Group | None = None) -> OpenStream:
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
        stream = await self._open(token, epoch, sink, group, fitting[0].blob, fitting[0].next, have)
        self.metrics.resumes["resumed"] += 1
        return stream

    async def park(self, stream: OpenStream) -> None:
        """A client is gone: free the row. The stream can be resumed from its checkpoints."""
        async with self._between:
            self._release(stream)

    async def close(self, stream: OpenStream) -> None:
        """A client is done with a stream: free the row, and forget the stream."""
        await self.park(stream)
        self.checkpoints.forget([stream.token])

    def _release(self, stream: OpenStream) -> None:
        if not self.table.is_open(stream):
            return
        self.table.remove(stream)
        self._finishing.discard(stream)
        stream.forget()
        self._inbox.clear(stream.row)
        self.streams.close(stream.token)
        self.intake.space.set()

    async def reset(self, stream: OpenStream) -> None:
        """Restart a stream at frame 0.

        Raises:
            Refused: ``unknown_stream``: it is closed.
        """
        async with self._between:
            if not self.table.is_open(stream):
                raise Refused("unknown_stream", "the stream is closed: open another one")
            stream.forget()
            self._inbox.clear(stream.row)
            self.streams.reset(stream.token)
            self.table.reset(stream)
        store = self.checkpoints.store
        await self._stored(store.drop, [stream.token])
        await self._stored(store.create, [stream.token], self.model.digest)
        stream.epoch = 0

    def finish(self, stream: OpenStream) -> None:
        """No more frames come: when those that wait have taken their steps, the stream ends."""
        if not stream.finishing and self.table.is_open(stream):
            stream.finishing = True
            self._finishing.add(stream)
            self._wake.set()

    def _arrived(self) -> None:
        self._wake.set()
        self._stepper.arrived()

    def _taken_over(self, streams: Sequence[OpenStream]) -> None:
        """Close streams that another engine continues."""
        for s in streams:
            if self.table.is_open(s):
                s.sink.refused(s, Refused("unknown_stream", "another server has resumed this stream"))
                asyncio.get_running_loop().create_task(self.park(s))

    def refuse(self, stream: OpenStream, error: Refused) -> None:
        """Close a stream for an error. It can be resumed from its last checkpoint."""
        self.metrics.refused[error.code] += 1
        stream.sink.refused(stream, error)
        self.table.group[stream.row] = 0  # takes no more frames
        asyncio.get_running_loop().create_task(self.park(stream))

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
            if (stream := self.table.by_row.get(row)) is not None:
                self.refuse(stream, Refused("not_finite", f"frame {seq} has NaN or infinities"))
        return found

    def _ends(self) -> None:
        """Start the ends of finished streams, and deliver outputs of ends."""
        for stream in list(self._finishing):
            if not self._inbox.waiting(stream.row):
                self._finishing.discard(stream)
                try:
                    self.streams.finish(stream.token)
                    stream.ended = 0
                except ShapeMismatch as error:
                    self.refuse(stream, Refused("sequence", str(error)))
        for ended in self.streams.ended():
            stream = self.table.by_token[str(ended.stream)]
            deliver_end(self.table, stream, self.model.end(ended.y), ended.done)

    def _failed(self, taken: Taken | None, error: Exception) -> None:
        for row in [] if taken is None else taken.rows.tolist():
            if (stream := self.table.by_row.get(int(row))) is not None:
                self.refuse(stream, Refused("internal", f"{type(error).__name__}: {error}"))

    # ---- checkpoints ----------------------------------------------------------------------------------------------------

    def _checkpoint(self, taken: Taken | None) -> None:
        """Write checkpoints of the streams that have taken enough frames since their last one."""
        if taken is None:
            return
        due = taken.seq + 1 - self.table.saved[taken.rows] >= self.every
        if not due.any():
            return
        rows = taken.rows[due]
        self.table.saved[rows] = taken.seq[due] + 1
        found = [s for row in rows.tolist() if (s := self.table.by_row.get(row)) is not None and s.ended is None]
        found = [s for s in found if s.token not in self.checkpoints.pending]
        if found:
            self.checkpoints.write(found, self._checkpoints_of(found))

    def _checkpoints_of(self, streams: Sequence[OpenStream]) -> Any:
        """A function that makes the checkpoints of streams, from a copy of their current states."""
        rows = np.array([s.row for s in streams])
        snapshot = self.streams.snapshot_rows(rows)
        nexts = self._inbox.first(rows, self.table.next[rows]).tolist()
        known, model = [(s.token, s.epoch, next) for s, next in zip(streams, nexts, strict=True)], self.model.digest
        self.metrics.snapshots += len(rows)

        def made() -> list[Checkpoint]:
            return [Checkpoint(*own, model, blob) for own, blob in zip(known, packed(snapshot), strict=True)]

        return made

    async def _watch(self) -> None:
        """Close idle streams, and move old ones."""
        while True:
            await asyncio.sleep(min(self.idle, self.max_age or math.inf, 4.0) / 4)
            now = time.perf_counter()
            for stream in list(self.table.by_row.values()):
                silent = now - max(stream.seen, self._inbox.last(stream.row)) > self.idle
                if silent and stream.ended is None and not self._inbox.waiting(stream.row):
                    self.refuse(stream, Refused("idle", f"no message for {self.idle:g} s", 0.0))
            if self.max_age is not None:
                async with self._between:
                    await self._move([s for s in self.table.by_row.values() if now - s.opened > self.max_age and s.ended is None])
