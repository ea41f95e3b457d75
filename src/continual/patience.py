"""A line for those who wait at a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

PATIENCE = 5.0  # seconds without a word


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """Say on standard error what takes more than a few seconds, and when it has ended. Nothing is said where that is no terminal.

    Example:
        >>> with told("compiling Sequential"):
        ...     pass
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    began, said = time.monotonic(), threading.Event()

    def say() -> None:
        said.set()
        _write(f"{doing} …")

    timer = threading.Timer(PATIENCE, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if said.is_set():
            _write(f"{doing}: {time.monotonic() - began:.0f} s")


def _write(line: str) -> None:
    print(f"continual: {line}", file=sys.stderr, flush=True)
