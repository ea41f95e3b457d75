"""The progress of long operations, on one line of the terminal."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TextIO, cast

PATIENCE = 5.0  # seconds of silence
EVERY = 1.0  # seconds between lines
BAR = 24  # characters


class Progress:
    """Prints on stderr what is being done, if it takes more than a few seconds.

    Args:
        what: is being done.
        shown: whether to say anything; ``None``: if stderr is a terminal.

    Example:
        >>> with Progress("converting Net", shown=False) as doing:
        ...     doing("exporting it")
    """

    def __init__(self, what: str, shown: bool | None = None):
        self._what, self._doing = what, ""
        self._to: TextIO | None = sys.stderr  # the present one: exports redirect sys.stderr
        self._shown = self._to is not None and (self._to.isatty() if shown is None else shown)
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, doing: str) -> None:
        """Say which part of it is done from now on."""
        self._doing = f", {doing}"

    def part(self, done: int, total: int, doing: str) -> None:
        """Say how many parts of it are done, of how many, and which one is next."""
        self(f"[{'#' * (BAR * done // total):<{BAR}}] {done}/{total} {doing}")

    def __enter__(self) -> Progress:
        if self._shown:
            self._thread = threading.Thread(target=self._run, name="continual-progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        to = cast(TextIO, self._to)
        start, wide = time.monotonic(), 0
        wait, same_line = PATIENCE, to.isatty()
        while not self._done.wait(wait):
            text = f"continual: {self._what}: {time.monotonic() - start:.0f} s{self._doing}"
            wide, wait = max(wide, len(text)), EVERY if same_line else PATIENCE
            to.write(f"\r{text:<{wide}}" if same_line else f"{text}\n")
            to.flush()
        if wide and same_line:
            to.write(f"\r{'':<{wide}}\r")
            to.flush()
