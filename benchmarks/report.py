"""What was measured, as a table on the terminal, as Markdown and as JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .measure import CHUNK, CHUNK_TARGET, OTHER_TARGET, RECURRENT_TARGET, Row
from .memory import Point, StateSize
from .timing import Stats

Cells = list[str]
MARK = {True: "pass", False: "FAIL", None: "–"}

HEADER: Cells = [
    "",
    "step, µs",
    "window, µs",
    "(a) step / window",
    f"{CHUNK}-step chunk, ms",
    "clip, ms",
    "(b) chunk / clip",
    "other step, µs",
    "(c) other / step",
    "a b c",
]

LEGEND = f"""\
*step*: `forward_step`. *window*: the plain `torch.nn` module on a clip buffer of the receptive field that is shifted by one
frame, shift included, by the fastest of three ways (named beside the number); for a recurrent layer the plain module called
with one step and the state that it returned before (*carried*); for an encoder `nn.TransformerEncoder` on the window's tokens (with
the band for a mask where it is causal), and for its *clip* on all windows as a batch. *chunk*: `forward_steps` on {CHUNK} steps of a
running stream. *clip*: the plain module's `forward` on as many outputs ({CHUNK} + R - 1 frames). *other*: `forward_step` of
the other library. Batch 1, float32, `torch.inference_mode`, denormals flushed; medians, and ratios taken within each round.

Targets: (a) at most 1 for a layer, {RECURRENT_TARGET:g} for a recurrent one, below 1 for a network; (b) at most
{CHUNK_TARGET:g}; (c) at least {OTHER_TARGET["dense"]:g} for a dense convolution,
{OTHER_TARGET["encoder"]:g} for an encoder of 2 layers, {OTHER_TARGET["network"]:g} for all else, none for a recurrent layer
and for other encoders."""


@dataclass(frozen=True)
class Machine:
    """Where and when it was measured."""

    date: str
    cpu: str
    torch: str
    python: str
    other: str = ""

    @staticmethod
    def here(other: str = "") -> Machine:
        """This machine, now."""
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        return Machine(today, cpu_name(), torch.__version__, platform.python_version(), other)

    def __str__(self) -> str:
        parts = [self.date, self.cpu, f"torch {self.torch}", f"Python {self.python}"]
        return ", ".join(parts + ([f"other library: {self.other}"] if self.other else []))


def cpu_name() -> str:
    """The processor's model and the number of logical cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name} ({os.cpu_count()} logical cores)"


# ---- cells -------------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _time(stats: Stats | None, unit: float) -> str:
    return "–" if stats is None else number(unit * stats.median)


def _ratio(stats: Stats | None) -> str:
    return "–" if stats is None else f"{stats.median:.2f}"


def cells(row: Row) -> Cells:
    """A row of the table."""
    if row.error:
        return [row.name, row.error, *["–"] * (len(HEADER) - 3), "FAIL"]
    other = "can't run" if row.other is None and row.cant_run else _time(row.other, 1e6)
    return [
        row.name,
        _time(row.step, 1e6),
        f"{_time(row.window, 1e6)} {row.shift}",
        _ratio(row.to_window),
        _time(row.chunk, 1e3),
        _time(row.forward, 1e3),
        _ratio(row.to_forward),
        other,
        _ratio(row.to_other),
        " ".join(MARK[v] for v in row.verdicts.values()),
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """Why the other library has no number, once per workload."""
    found = {row.name: row.cant_run for row in rows if row.cant_run and row.other is None}
    return [f"{name}: the other library can't run it ({why})" for name, why in found.items()]


def threads_of(rows: Sequence[Row]) -> list[int]:
    """The thread counts, in order."""
    return sorted({row.threads for row in rows})


def plural(count: int, what: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


# ---- terminal ----------------------------------------------------------------------------------------------------------


def show(title: str, header: Cells, body: Sequence[Cells]) -> None:
    """Print a table, with rich if it is installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(plain_table(title, header, body))
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for line in body:
        table.add_row(*(c.replace("FAIL", "[bold red]FAIL[/]").replace("pass", "[green]pass[/]") for c in line))
    console = Console()
    # Redirected output has no width of its own: don't fold the table there.
    Console(width=None if console.is_terminal else 200).print(table)


def plain_table(title: str, header: Cells, body: Sequence[Cells]) -> str:
    """A table of text."""
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    lines = ["  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))) for line in (header, *body)]
    return "\n".join((title, *lines))


@contextmanager
def progress(total: int, what: str = "", weights: Sequence[float] = ()) -> Iterator[Callable[[str], None]]:
    """Show on the error stream what is being measured: call the value with the name of what comes next.

    Args:
        total: how much there is.
        what: is done with it.
        weights: about how long each takes, in any unit, for the time that is left; the same for all by default.
    """
    count, begun = 0, time.perf_counter()
    weights = weights or [1.0] * total

    def said(text: str) -> str:
        done = sum(weights[:count])
        left = (time.perf_counter() - begun) * sum(weights[count:]) / done if done else 0
        return f"{what} {text}".strip() + (f", about {left / 60:.0f} min left" if left > 60 else "")

    def plainly(text: str) -> None:
        nonlocal count
        line = said(text)
        count += 1
        print(f"[{count}/{total}] {line}", file=sys.stderr, flush=True)

    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield plainly
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield plainly
        return
    # Redrawn by hand between the measurements: a refreshing thread would take time from them.
    with Progress(console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=total)

        def drawn(text: str) -> None:
            nonlocal count
            bar.update(task, completed=count, description=said(text), refresh=True)
            count += 1

        yield drawn


# ---- files -------------------------------------------------------------------------------------------------------------


def markdown_table(header: Cells, body: Sequence[Cells]) -> str:
    """A table in Markdown, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in (header, rule, *body))


def speed_markdown(machine: Machine, rows: Sequence[Row]) -> str:
    """The measured speed, as the part of a page."""
    parts = [f"Measured: {machine}.", LEGEND]
    for threads in threads_of(rows):
        parts += [f"### {plural(threads, 'thread')}", markdown_table(HEADER, [cells(r) for r in rows if r.threads == threads])]
    parts += ["\n".join(f"- {note}" for note in notes(rows))] if notes(rows) else []
    return "\n\n".join(parts)


POINT_HEADER: Cells = ["steps", "resident, MB", "µs per step"]
SIZE_HEADER: Cells = ["", "state, bytes", "R - 1 input frames, bytes", "ratio"]


def point_cells(points: Sequence[Point]) -> list[Cells]:
    """The rows of a long run."""
    return [[f"{p.steps:,}", f"{p.rss:.1f}", number(p.micros)] for p in points]


def size_cells(sizes: Sequence[StateSize]) -> list[Cells]:
    """The rows of the state's sizes."""
    return [[s.name, f"{s.state:,}", f"{s.frames:,}", f"{s.state / s.frames:.2f}" if s.frames else "–"] for s in sizes]


def memory_markdown(machine: Machine, points: Sequence[Point], sizes: Sequence[StateSize]) -> str:
    """The long run and the state's sizes, as the part of a page."""
    return "\n\n".join(
        (
            f"Measured: {machine}; 1 thread.",
            "A small network over a long time. Its last output is checked against the plain module's on the last frames.",
            markdown_table(POINT_HEADER, point_cells(points)),
            "The state of a stream at batch 1, float32, beside the input frames that the next output depends on "
            "(none for a recurrent layer, whose state stands for all of them).",
            markdown_table(SIZE_HEADER, size_cells(sizes)),
        )
    )


PAGE = """\
# Performance

Written by `make bench`. What stands between the marks is replaced by the next run; the rest of the page is kept.

## All workloads

<!-- suite: begin -->
<!-- suite: end -->

## Growth

<!-- growth: begin -->
<!-- growth: end -->

## Layers and their targets

<!-- speed: begin -->
<!-- speed: end -->

## Memory

<!-- memory: begin -->
<!-- memory: end -->
"""


def write_markdown(path: Path, section: str, text: str) -> None:
    """Replace a section of a page, such as ``"suite"``, between its marks. The page is created if need be.

    Raises:
        ValueError: if the page has no such marks.
    """
    page = path.read_text(encoding="utf-8") if path.exists() else PAGE
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no lines {begin!r} and {end!r}: add them where the results should stand")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{begin}\n\n{wrapped(text)}\n\n{end}{after}", encoding="utf-8")


def wrapped(text: str) -> str:
    """Markdown with lines of at most 120 characters. Rows of tables stay as they are."""
    lines = []
    for line in text.split("\n"):
        indent = "  " if line.startswith("- ") else ""
        whole = line.startswith("|") or len(line) <= 120
        lines += [line] if whole else textwrap.wrap(line, 118, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)


def write_json(path: Path, machine: Machine, **what: Any) -> None:
    """Everything that was measured: times in seconds, with percentiles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {name: [plain_data(item) for item in items] for name, items in what.items()}
    path.write_text(json.dumps({"machine": asdict(machine), **found}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def plain_data(item: Any) -> dict[str, Any]:
    """A row as JSON data; the verdicts go with it."""
    return asdict(item) | ({"verdicts": item.verdicts} if isinstance(item, Row) else {})
