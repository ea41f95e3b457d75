"""The stages of a slow command: on a terminal one line each, with its progress and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

BAR = 32  # characters


class Stages:
    """Shows the current stage while it is open; silent if standard error is not a terminal.

    Example:
        >>> with Stages() as stage:
        ...     with stage("converting"):
        ...         pass
        ...     with stage("checking steps", 3) as done:
        ...         for n in range(3):
        ...             done(n + 1)
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), BarColumn(BAR))
        count = TextColumn("{task.fields[count]}")
        self._progress = Progress(*columns, count, TimeElapsedColumn(), console=console, disable=not console.is_terminal)

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._progress.stop()

    @contextmanager
    def __call__(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A stage, while the block runs.

        Args:
            what: its title.
            total: the amount of work; ``None`` if unknown.

        Returns:
            A function to call with the finished amount.
        """
        task = self._progress.add_task(escape(what), total=total, count="" if total is None else f"0 of {total}")
        yield lambda done: self._progress.update(task, completed=done, count=f"{done} of {total}")
        self._progress.update(task, total=total or 1, completed=total or 1)
