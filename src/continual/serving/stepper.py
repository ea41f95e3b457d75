"""When an engine steps, and where: in the event loop if a step is short, and else in a thread."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import Executor

import numpy as np

from .inbox import Inbox, Taken
from .metrics import Metrics
from .model import Served
from .protocol import Array

QUICK = 2e-3  # seconds of the processor: shorter steps run in the event loop, since a thread costs them more
ACTIVE = 0.2  # seconds for which a stream counts as one that sends
NO_ROWS = np.zeros(0, np.int64)


class Stepper:
    """Steps of a model, one after another.

    Args:
        model: the network.
        inbox: where frames wait.
        metrics: counts steps.
        pool: of one thread.
        pace: seconds from one step to the next for which a step waits for frames of other streams.
    """

    def __init__(self, model: Served, inbox: Inbox, metrics: Metrics, pool: Executor, pace: float):
        self._model, self._inbox, self._metrics, self._pool, self._pace = model, inbox, metrics, pool, pace
        self._last = 0.0  # when the last step began
        self._typical = 0.0  # seconds of the processor for a step
        self._enough = 0  # rows with frames, for which a step does not wait any more
        self._waiting: asyncio.Future[None] | None = None

    def first(self) -> None:
        """A step of a temporary stream, so that one-time costs do not delay the first frame of a client."""
        self._model.try_out()

    async def company(self, ends: bool) -> None:
        """Wait a moment for frames of other streams: a step costs about the same for one as for many.

        Args:
            ends: whether streams are at their end, which do not wait.
        """
        now = time.perf_counter()
        wait = self._last + self._pace - now
        if ends or wait <= 0:
            return
        self._enough = math.ceil(self._inbox.active(now - ACTIVE) / 4)
        if self._inbox.busy >= self._enough:
            return
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(wait, self._go)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def arrived(self) -> None:
        """Frames have come."""
        if self._inbox.busy >= self._enough:
            self._go()

    def _go(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def step(self, taken: Taken | None) -> tuple[list[Array], Array]:
        """A step of the streams that have frames, and of those that are at their end. Returns outputs, and which exist."""
        self._last = time.perf_counter()
        if self._typical < QUICK:
            found = self._step(taken)
        else:
            found = await asyncio.get_running_loop().run_in_executor(self._pool, self._step, taken)
        self._metrics.step.observe(time.perf_counter() - self._last)
        if taken is not None:
            self._metrics.frames += len(taken.rows)
            self._metrics.batch.observe(len(taken.rows))
            self._metrics.queue.observe(self._last - taken.when)
        return found

    def _step(self, taken: Taken | None) -> tuple[list[Array], Array]:
        started = time.thread_time()
        if taken is None:
            found = self._model.step(NO_ROWS, self._model.nothing)
        else:
            found = self._model.step(taken.rows, taken.parts)
        self._typical += 0.1 * (time.thread_time() - started - self._typical)
        return found
