"""Checkpoints of an engine's streams: written in a thread, and told to the client when they are kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .store import Checkpoint, Store
from .streams import Held

log = logging.getLogger("continual.serve")


class Checkpoints:
    """Writes to a store, one thing after another.

    Args:
        store: where checkpoints are kept.
        keep: seconds after which streams of nobody are forgotten.
        lost: is called with streams that another engine has taken over.
    """

    def __init__(self, store: Store, keep: float, lost: Callable[[Sequence[Held]], None]):
        self.store, self.keep, self._lost = store, keep, lost
        self._pool = ThreadPoolExecutor(1, "continual-store")
        self._tasks: set[asyncio.Task[None]] = set()
        self.pending: set[str] = set()  # tokens whose checkpoint is being written
        self.known = 0

    async def call(self, method: Callable[..., Any], *args: Any) -> Any:
        """A method of the store, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, method, *args)

    def write(self, streams: Sequence[Held], made: Callable[[], Sequence[Checkpoint]]) -> None:
        """Keep checkpoints of some streams, and tell their clients afterwards."""
        self.pending |= {h.token for h in streams}
        task = asyncio.get_running_loop().create_task(self.written(streams, made))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def written(self, streams: Sequence[Held], made: Callable[[], Sequence[Checkpoint]], tell: bool = True) -> None:
        """As :meth:`write`, and wait for it."""
        tokens = {h.token for h in streams}
        try:
            checkpoints = await self.call(made)
            lost = await self.call(self.store.put, checkpoints)
        except Exception:  # of a disk or a server: streams go on, and resume from an earlier checkpoint
            log.exception("continual serve: checkpoints of %d streams could not be written", len(tokens))
            return
        finally:
            self.pending -= tokens
        self._lost([h for h in streams if h.token in lost])
        if tell:
            for held, checkpoint in zip(streams, checkpoints, strict=True):
                if held.token not in lost:
                    held.sink.control(held, {"type": "checkpoint", "next": checkpoint.next})

    def forget(self, tokens: Sequence[str]) -> None:
        """Forget streams that are done."""
        self._pool.submit(self.store.drop, list(tokens))

    async def expire(self, open: Callable[[], Sequence[str]]) -> None:
        """Forget streams of nobody, for ever and ever."""
        while True:
            self.known = await self.call(self.store.expire, self.keep, open())
            await asyncio.sleep(min(10.0, max(0.1, self.keep / 4)))

    async def settled(self) -> None:
        """Wait until all is written."""
        while self._tasks:
            await asyncio.gather(*list(self._tasks), return_exceptions=True)
        await self.call(lambda: None)

    def close(self) -> None:
        """Release the thread and the store."""
        self._pool.submit(self.store.close)
        self._pool.shutdown(wait=True)
