"""The display of `continual run`: the most likely classes or the newest numbers, the speed of the network, and the progress."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from rich.bar import Bar
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from . import NARROW
from .sinks import Result
from .tables import in_digits, plain

BAR = 32  # characters
ROWS = 8  # numbers of an output


@dataclass(frozen=True)
class Shown:
    """What is shown and does not change."""

    title: str
    delay: str
    needed: float | None
    frames: int | None


class LiveTable:
    """A table that changes in place, on a terminal; elsewhere it stays silent until :meth:`last`.

    Args:
        shown: what does not change.
        quiet: show nothing, ever.
    """

    def __init__(self, shown: Shown, quiet: bool = False):
        self._fixed, self._quiet = shown, quiet
        self._console = Console()
        done = TextColumn("{task.completed}" if shown.frames is None else "{task.completed}/{task.total}")
        left = TimeElapsedColumn() if shown.frames is None else TimeRemainingColumn()
        self._progress = Progress(TextColumn("frames"), BarColumn(BAR), done, left, console=self._console)
        self._task = self._progress.add_task("", total=shown.frames)
        self._result: Result | None = None
        self._speed, self._steps = 0.0, 0
        self._live: Live | None = None
        if self._console.is_terminal and self._console.width >= NARROW and not quiet:
            self._live = Live(get_renderable=self._whole, console=self._console, refresh_per_second=8)

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, frames: int, steps: int, speed: float, result: Result | None) -> None:
        """After a step: frames and steps so far, steps per second, and the newest output."""
        self._result = result or self._result
        self._speed, self._steps = speed, steps
        self._progress.update(self._task, completed=frames)

    def last(self) -> None:
        """Print the last output, unless it is on the screen or was not wanted."""
        if self._live is None and not self._quiet and self._result is not None:
            lines = [self._fixed.title, *plain(self._table(drawn=False)), self._below()]
            for line in lines:
                self._console.print(Text(line), soft_wrap=True)

    def _whole(self) -> Group:
        return Group(Text(self._fixed.title, "bold"), self._table(drawn=True), Text(self._below()), self._progress)

    def _table(self, drawn: bool) -> Table:
        now = self._result
        if now is not None and not now.top:
            table = Table("output", "value")
            flat = now.value.reshape(-1)
            for i in range(min(flat.size, ROWS)):
                table.add_row(str(i), f"{float(flat[i]):.5g}")
            if flat.size > ROWS:
                table.add_row("…", f"{flat.size:,} numbers")
            return table
        table = Table("class", "", "probability") if drawn else Table("class", "probability")
        table.columns[-1].justify = "right"
        if drawn:
            table.columns[1].width = BAR
        if now is None:
            table.add_row(Text(f"none yet, after {self._steps} steps"), *([""] * (len(table.columns) - 1)))
        for number, label, share in () if now is None else now.top:
            bar = [Bar(1, 0, share, width=BAR, color="green")] if drawn else []
            table.add_row(Text(f"{number} {label or ''}".strip()), *bar, f"{100 * share:.1f} %")
        return table

    def _below(self) -> str:
        fixed, now = self._fixed, self._result
        at = "" if now is None else f"at step {now.index}; " if now.time is None else f"at {now.time:.2f} s; "
        needed = "" if fixed.needed is None else f", {in_digits(fixed.needed)} needed"
        return f"{at}delay {fixed.delay}\n{in_digits(self._speed)} steps per second{needed}"
