"""Items of a source as time passes: of a file at their moments, of a camera as they come. What waits too long is dropped."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
WAITING = 64  # items that wait for a slow network, before the oldest is dropped


class Clocked(Generic[T]):
    """Reads items in a thread of its own, and hands them on as they come.

    Args:
        items: what is read.
        moment: seconds of an item since the first; ``None`` where it has none.
        weight: frames in an item.
        pace: wait for the moment of each item, as a device would; otherwise the items themselves come in time.

    Attributes:
        dropped: frames that had to go, because the reader was too slow.
    """

    def __init__(self, items: Iterable[T], moment: Callable[[T], float | None], weight: Callable[[T], int], pace: bool):
        self._items, self._moment, self._weight, self._pace = items, moment, weight, pace
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __iter__(self) -> Iterator[T]:
        self._thread.start()
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait(0.2)  # awake now and then, so that Ctrl-C is seen
                if not self._waiting:
                    break
                item = self._waiting.popleft()
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> bool:
        """Stop reading; whether the thread has ended, and what it reads may be closed."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(2)
        return not self._thread.is_alive()

    def _read(self) -> None:
        started = time.monotonic()
        try:
            for item in self._items:
                at = self._moment(item) if self._pace else None
                if at is not None and self._stopped.wait(max(0.0, started + at - time.monotonic())):
                    break
                if self._stopped.is_set():
                    break
                self._hand_on(item)
        except BaseException as error:  # it is raised where the items are used
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _hand_on(self, item: T) -> None:
        with self._changed:
            if len(self._waiting) == WAITING:
                self.dropped += self._weight(self._waiting.popleft())
            self._waiting.append(item)
            self._changed.notify()
