"""The output of `continual run`: the most likely classes, the speed of the network, and JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.bar import Bar
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .target import BadInput

BAR = 32  # characters


@dataclass(frozen=True)
class Prediction:
    """The prediction after a step.

    Attributes:
        step: from 0, of the network's steps.
        frame: from 0, of the frames of the video.
        time: of this frame, in seconds since the first.
        top: class, label if there are labels, and probability, the likeliest first.
    """

    step: int
    frame: int
    time: float
    top: tuple[tuple[int, str | None, float], ...]

    def data(self) -> dict[str, Any]:
        """As data for JSON."""
        top = [
            {"class": number, **({} if label is None else {"label": label}), "probability": share}
            for number, label, share in self.top
        ]
        return {"step": self.step, "frame": self.frame, "time": self.time, "top": top}


class Lines:
    """JSON lines to a file, to stdout (``-``) or to nowhere (``None``).

    Raises:
        BadInput: the file can't be written to, now or later.
    """

    def __init__(self, out: str | None):
        self._out = out
        self._file: TextIO | None = sys.stdout if out == "-" else None
        if out not in (None, "-"):
            self._file = self._safely(lambda: Path(str(out)).open("w", encoding="utf-8"))  # noqa: SIM115 - closed by close()

    def write(self, data: dict[str, Any]) -> None:
        """Write a line without buffering."""
        if (file := self._file) is not None:
            line = json.dumps(data)
            self._safely(lambda: (file.write(f"{line}\n"), file.flush()))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._file is not sys.stdout:
            self._safely(self._file.close)

    def _safely(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BrokenPipeError:
            raise  # whoever read has had enough
        except OSError as error:
            raise BadInput(f"can't write to --out '{self._out}' ({error.strerror or error})") from error

    @staticmethod
    def refuse(out: str | None, others: Sequence[Path]) -> None:
        """Refuse what can't be written to, before any work is done, and leave what is there as it is.

        Args:
            out: where lines will go to.
            others: files that are read.

        Raises:
            BadInput: it can't be written, or would be read and written.
        """
        if out in (None, "-"):
            return
        path = Path(str(out))
        if path.is_dir():
            raise BadInput(f"--out '{out}' is a folder; give a file, or - for stdout")
        for other in others:
            if path.exists() and other.exists() and path.samefile(other):
                raise BadInput(f"--out '{out}' is a file that is read; give another")
        there = path.exists()
        if there and not path.is_file():
            return  # a pipe, whose reader would see an end
        try:
            with path.open("a"):  # touches nothing that is there
                pass
        except OSError as error:
            raise BadInput(f"can't write to --out '{out}' ({error.strerror or error})") from error
        if not there:
            path.unlink()


@dataclass(frozen=True)
class Facts:
    """What is shown and does not change."""

    title: str
    delay: str
    needed: float
    frames: int | None


class LiveTable:
    """A table that changes in place, on a terminal; elsewhere it stays silent until :meth:`last`.

    Args:
        facts: what does not change.
        quiet: show nothing, ever.
    """

    def __init__(self, facts: Facts, quiet: bool = False):
        self._facts, self._quiet = facts, quiet
        self._console = Console()
        done = TextColumn("{task.completed}" if facts.frames is None else "{task.completed}/{task.total}")
        left = TimeElapsedColumn() if facts.frames is None else TimeRemainingColumn()
        self._progress = Progress(TextColumn("frames"), BarColumn(BAR), done, left, console=self._console)
        self._task = self._progress.add_task("", total=facts.frames)
        self._prediction: Prediction | None = None
        self._speed, self._steps = 0.0, 0
        self._live: Live | None = None
        if self._console.is_terminal and not quiet:
            self._live = Live(get_renderable=self._whole, console=self._console, refresh_per_second=8)

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, frames: int, steps: int, speed: float, prediction: Prediction | None) -> None:
        """After a step: frames and steps so far, steps per second, and the newest prediction."""
        self._prediction = prediction or self._prediction
        self._speed, self._steps = speed, steps
        self._progress.update(self._task, completed=frames)

    def last(self) -> None:
        """Print the last prediction, unless it is on the screen or was not wanted."""
        if self._live is None and not self._quiet and self._prediction is not None:
            self._console.print(self._shown())

    def _whole(self) -> Group:
        return Group(self._shown(), self._progress)

    def _shown(self) -> Group:
        facts, now = self._facts, self._prediction
        table = Table("class", "", "probability")
        table.columns[1].width = BAR
        table.columns[2].justify = "right"
        if now is None:
            table.add_row(Text(f"none yet, after {self._steps} steps"), "", "")
        for number, label, share in () if now is None else now.top:
            bar = Bar(1, 0, share, width=BAR, color="green")
            table.add_row(Text(f"{number} {label or ''}".strip()), bar, f"{100 * share:.1f} %")
        place = "" if now is None else f"after frame {now.frame}, {now.time:.2f} s; "
        speed = f"{self._speed:.1f} steps per second, {facts.needed:.4g} needed"
        return Group(Text(facts.title, "bold"), table, Text(f"{place}delay {facts.delay}\n{speed}"))
