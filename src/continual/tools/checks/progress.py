"""The progress of a verification."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Say = Callable[[int, int, str], None]


@contextmanager
def shown(progress: bool | Say) -> Iterator[Say]:
    """What to call with how many checks are done, of how many, and the name of the next one.

    Args:
        progress: such a function itself; ``True`` for a bar on standard error, which without rich, or where standard error is no
            terminal, is a line for each check; ``False`` for nothing.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total, name: None
    elif (bar := _bar()) is not None:
        with bar:
            task = bar.add_task("verify", total=None)
            yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)
    else:
        yield lambda done, total, name: print(f"co.verify [{done}/{total}] {name}", file=sys.stderr, flush=True)


def _bar() -> Progress | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        return None
    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    columns = (
        TextColumn("co.verify"),
        BarColumn(32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=console, transient=True)
