"""A stream on a server for code without ``asyncio``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from .client import ServedStream, connect

T = TypeVar("T")


class Stream:
    """A stream on a server, in a thread of its own.

    Args:
        url: as of :func:`~continual.serving.client.connect`.
        options: as of it.

    Example:
        >>> def classify(url, frames):
        ...     with co.serve.Stream(url) as stream:
        ...         stream.send(frames)
        ...         stream.finish()
        ...         return [y for seq, y in stream]
    """

    def __init__(self, url: str, **options: Any):
        self._url, self._options = url, options
        self.stream: ServedStream | None = None

    def _do(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def __enter__(self) -> Stream:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="continual-stream", daemon=True)
        self._thread.start()
        try:
            self.stream = self._do(self._opened())
        except BaseException:
            self._stop()
            raise
        return self

    async def _opened(self) -> ServedStream:
        return await connect(self._url, **self._options).__aenter__()

    def __exit__(self, *_: Any) -> None:
        if self.stream is not None:
            self._do(self.stream.close())
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def _own(self) -> ServedStream:
        if self.stream is None:
            raise ValueError("open it: with co.serve.Stream(url) as stream")
        return self.stream

    def send(self, frames: Any) -> None:
        """As :meth:`ServedStream.send`."""
        own = self._own
        self._do(own.send(frames))

    def finish(self) -> None:
        """As :meth:`ServedStream.finish`."""
        own = self._own
        self._do(own.finish())

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self

    def __next__(self) -> tuple[int, Any]:
        try:
            return self._do(self._own.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
