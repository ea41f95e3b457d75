"""Checkpoints of an engine's streams: they are written in a thread, and reported to the client once stored."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .store import Checkpoint, Store
from .streams import OpenStream

Make = Callable[[], Sequence[Checkpoint]]  # of a copy of the states
log = logging.getLogger("continual.serve")


class Checkpoints:
    """Writes to a store, one batch after another.

    Args:
        store: where checkpoints are kept.
        keep: seconds after which streams without a client are forgotten.
        lost: called with the streams that another engine has taken over.
    """

    def __init__(self, store: Store, keep: float, lost: Callable[[Sequence[OpenStream]], None]):
        self.store, self.keep, self._lost = store, keep, lost
        self._pool = ThreadPoolExecutor(1, "continual-store")
        self._due: list[tuple[Sequence[OpenStream], Make]] = []
        self._writer: asyncio.Task[None] | None = None
        self.pending: set[str] = set()  # tokens whose checkpoint is not written yet
        self.known = 0

    async def call(self, method: Callable[..., Any], *args: Any) -> Any:
        """A method of the store, in its thread if it waits."""
        if not self.store.waits:
            return method(*args)
        return await asyncio.get_running_loop().run_in_executor(self._pool, method, *args)

    def write(self, streams: Sequence[OpenStream], made: Make) -> None:
        """Keep checkpoints of some streams, and tell their clients afterwards. While some are written, others are collected."""
        self.pending |= {h.token for h in streams}
        self._due.append((streams, made))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._due:
            due, self._due = self._due, []
            makers = [made for _, made in due]
            await self.written([h for streams, _ in due for h in streams], functools.partial(_all_of, makers))

    async def written(self, streams: Sequence[OpenStream], made: Make, tell: bool = True) -> None:
        """As :meth:`write`, and wait for it."""
        tokens = {h.token for h in streams}
        try:
            checkpoints, lost = await self.call(self._put, made)
        except Exception:  # of a disk or a server: streams go on, and resume from an earlier checkpoint
            log.exception("continual serve: checkpoints of %d streams could not be written", len(tokens))
            return
        finally:
            self.pending -= tokens
        self._lost([h for h in streams if h.token in lost])
        if tell:
            for stream, checkpoint in zip(streams, checkpoints, strict=True):
                if stream.token not in lost:
                    stream.sink.control(stream, {"type": "checkpoint", "next": checkpoint.next})

    def _put(self, made: Make) -> tuple[Sequence[Checkpoint], set[str]]:
        checkpoints = made()
        return checkpoints, self.store.put(checkpoints)

    def forget(self, tokens: Sequence[str]) -> None:
        """Forget streams that are done."""
        if self.store.waits:
            self._pool.submit(self.store.drop, list(tokens))
        else:
            self.store.drop(tokens)

    async def expire(self, open: Callable[[], Sequence[str]]) -> None:
        """Forget streams without a client, again and again, until cancelled."""
        while True:
            self.known = await self.call(self.store.expire, self.keep, open())
            await asyncio.sleep(min(10.0, max(0.1, self.keep / 4)))

    async def settled(self) -> None:
        """Wait until all is written."""
        if self._writer is not None:
            await self._writer
        await self.call(lambda: None)

    def close(self) -> None:
        """Release the thread and the store."""
        self._pool.submit(self.store.close)
        self._pool.shutdown(wait=True)


def _all_of(makers: Sequence[Make]) -> list[Checkpoint]:
    return [c for made in makers for c in made()]
