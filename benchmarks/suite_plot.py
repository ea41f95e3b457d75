"""The picture of the suite: how many times faster our best step is. ``python -m benchmarks.suite_plot docs/performance.md`` draws it again
from the numbers that the page records."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .report import plural

# Okabe and Ito's, which colour-blind people tell apart, and a marker each for print.
COLOURS = {"window": "#e69f00", "other library": "#0072b2", "onnxruntime": "#009e73", "OpenVINO": "#cc79a7"}
MARKERS = {"window": "o", "other library": "s", "onnxruntime": "^", "OpenVINO": "D"}
EXPLAINED = {
    "window": "window: the plain network on all frames of its receptive field, again for each step\n"
    "(zoo: on the published clip; recurrent layers: one step with the carried state)",
    "other library": "other library: the same layers in continual-inference 1.2.4, step by step",
    "onnxruntime": "onnxruntime: our own export of the network, step by step",
    "OpenVINO": "OpenVINO: the same file",
}
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)


class Ratios(NamedTuple):
    """One workload: the time of each other way over that of our best step."""

    name: str
    ratios: dict[str, float]


def recorded(page: str) -> tuple[int, list[Ratios]]:
    """The number of threads and the ratios of the first table of a page.

    Raises:
        ValueError: there is none.
    """
    table = re.search(r"^### (\d+) threads?\n\n(\|.*\n)(\|.*\n)((?:\|.*\n)+)", page, re.MULTILINE)
    if table is None:
        raise ValueError("the page has no table of times")
    names = _cells(table[2])
    rows = []
    for line in table[4].splitlines():
        name, *cells = _cells(line)
        found = {other: ratio for other, cell in zip(names[1:], cells, strict=True) if (ratio := _ratio(cell)) is not None}
        rows.append(Ratios(name, {other: found[other] for other in COLOURS if other in found}))
    return int(table[1]), [row for row in rows if row.ratios]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _ratio(cell: str) -> float | None:
    found = re.search(r"\(([\d.,]+)×\)", cell)
    return None if found is None else float(found[1].replace(",", ""))


def plot(rows: Sequence[Ratios], threads: int, path: Path) -> Any:
    """Draw the ratios, a line for each workload, and return the figure."""
    from matplotlib.figure import Figure  # here: it takes its time

    own = list(rows)[::-1]
    figure = Figure(figsize=(9.5, 2.4 + 0.32 * len(own)), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(COLOURS):
        at = [(row.ratios[name], y + 0.24 - 0.16 * i) for y, row in enumerate(own) if name in row.ratios]
        style = {"color": COLOURS[name], "marker": MARKERS[name], "label": EXPLAINED[name]}
        axes.scatter([x for x, _ in at], [y for _, y in at], s=24, zorder=3, **style)
    for y, row in enumerate(own):
        axes.plot([1, max([1, *row.ratios.values()])], [y, y], color="#dddddd", linewidth=1, zorder=1)
    _scale(axes, own)
    axes.set_yticks(range(len(own)), [row.name for row in own])
    axes.set_ylim(-0.8, len(own) + 0.4)
    axes.set_xlabel(f"the time of each over the time of our best step, {plural(threads, 'thread')}")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    return figure


def _scale(axes: Any, rows: Sequence[Ratios]) -> None:
    """Round numbers of times, and where we are slower and faster."""
    every = [ratio for row in rows for ratio in row.ratios.values()] or [1.0]
    axes.set_xscale("log")
    axes.set_xlim(min(0.6, 0.9 * min(every)), 1.2 * max(2.0, *every))
    low, high = axes.get_xlim()
    ticks = [t for t in TICKS if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.axvline(1, color="black", linewidth=1)
    for text, side in (("slower  ", "right"), ("  faster", "left")):
        axes.text(1, len(rows) + 0.05, text, ha=side, va="center", fontsize=9, color="#52606d")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture of a page again, beside it."""
    (page,) = sys.argv[1:] if argv is None else argv
    threads, rows = recorded(Path(page).read_text())
    plot(rows, threads, Path(page).with_name("performance.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
