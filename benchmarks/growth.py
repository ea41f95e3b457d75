"""How the time of a step grows: with the receptive field, channels, rows and streams, and not with the steps taken. Plots.

python -m benchmarks.growth [--threads 1] [--only receptive] [--quick] [--markdown docs/performance.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import continual as co
from continual.tools import pictures

from . import memory, report
from .measure import Effort, shift_by_copy
from .programs import tcn
from .timing import Local, alternate, conditions

FIELDS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
WIDTHS = (8, 16, 32, 64, 128, 256, 512)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STREAMS = (1, 4, 16, 64, 256, 1000)
STEPS = 400_000


@dataclass
class Curve:
    """Microseconds for each value on the horizontal axis."""

    name: str
    points: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Panel:
    """One plot."""

    title: str
    axis: str
    curves: list[Curve] = field(default_factory=list)
    unit: str = "µs a step"
    flat: bool = False  # linear axes, from zero


def network(kind: str, size: int) -> Any:
    """A network of this receptive field: 64 channels."""
    if kind == "TCN":
        levels = size.bit_length() - 2  # dilations 1, 2, 4 …: 2 * (2^levels - 1) + 1 frames, just below the size
        convs = (co.Conv1d(64, 64, 3, dilation=2**i) for i in range(levels))
        return co.Sequential(*(m for conv in convs for m in (conv, nn.ReLU()))).eval()
    if kind == "average":
        return co.AvgPool1d(size, stride=1)
    if kind == "dilated":
        return co.Conv1d(64, 64, 3, dilation=(size - 1) // 2)
    return co.Conv1d(64, 64, size).eval()


def step_of(net: Any, frame: Tensor) -> Callable[[], Any]:
    """A step in the middle of a stream."""
    for _ in range(min(net.receptive_field, 300)):
        net.forward_step(frame)
    if net.receptive_field > 300:
        net.forward_steps(torch.stack([frame] * net.receptive_field, 2))
    return lambda: net.forward_step(frame)


def window_of(net: Any, frame: Tensor) -> Callable[[], Any]:
    """Recomputing the window, its buffer shifted by one frame."""
    first = torch.stack([frame] * net.receptive_field, 2)
    step = shift_by_copy(net.forward, first)
    return lambda: step(frame)


def timed(calls: dict[str, Callable[[], Any]], effort: Effort) -> dict[str, float]:
    """Microseconds of each."""
    timings = alternate([Local(n, c) for n, c in calls.items()], effort.rounds, effort.min_block)
    return {name: 1e6 * timings.stats(name).median for name in calls}


def receptive(effort: Effort, quick: bool) -> Panel:
    """The receptive field."""
    panel, kinds = Panel("receptive field", "frames"), ("TCN", "dilated", "average", "dense")
    curves = {f"{k}, {w}": Curve(f"{k}, {w}") for k in kinds for w in ("step", "window")}
    for size in FIELDS[:3] if quick else FIELDS:
        frame = torch.randn(1, 64)
        for kind in kinds:
            with torch.inference_mode(False):
                net = network(kind, size)
            found = timed({"step": step_of(net, frame), "window": window_of(net, frame)}, effort)
            for way, micros in found.items():
                curves[f"{kind}, {way}"].points.append((net.receptive_field, micros))
    panel.curves = list(curves.values())
    return panel


def channels(effort: Effort, quick: bool) -> Panel:
    """Channels of a convolution."""
    panel = Panel("channels (Conv1d k3)", "channels")
    curves = [Curve("step"), Curve("window")]
    for width in WIDTHS[:3] if quick else WIDTHS:
        with torch.inference_mode(False):
            net = co.Conv1d(width, width, 3).eval()
        frame = torch.randn(1, width)
        found = timed({"step": step_of(net, frame), "window": window_of(net, frame)}, effort)
        for curve in curves:
            curve.points.append((width, found[curve.name]))
    panel.curves = curves
    return panel


def rows(effort: Effort, quick: bool) -> Panel:
    """Rows of a batch in lockstep, for each row."""
    panel = Panel("rows of a batch (TCN, dilations 1…128)", "rows", unit="µs a row and step")
    curves = [Curve("step"), Curve("window")]
    for count in ROWS[:3] if quick else ROWS:
        with torch.inference_mode(False):
            net = tcn()
        frame = torch.randn(count, 64)
        found = timed({"step": step_of(net, frame), "window": window_of(net, frame)}, effort)
        for curve in curves:
            curve.points.append((count, found[curve.name] / count))
    panel.curves = curves
    return panel


def streams(effort: Effort, quick: bool) -> Panel:
    """Streams that come and go, in one compiled program."""
    panel = Panel("streams of their own (StreamBatch, TCN)", "streams", unit="µs a stream and step")
    backends = ("eager",) if quick else ("eager", "aot")
    curves = {b: Curve(b) for b in backends}
    for count in ROWS[:3] if quick else STREAMS:
        for backend in backends:
            with torch.inference_mode(False), torch.no_grad():
                batch = co.StreamBatch(tcn(), torch.zeros(1, 64), count, backend=backend)
                frames = {batch.open(): torch.randn(64) for _ in range(count)}
                batch.step(frames)
                found = timed({"step": lambda batch=batch, frames=frames: batch.step(frames)}, effort)  # type: ignore[misc]
            curves[backend].points.append((count, found["step"] / count))
    panel.curves = list(curves.values())
    return panel


def steps_taken(effort: Effort, quick: bool) -> Panel:
    """Steps taken so far."""
    points = memory.long_run(2_000 if quick else STEPS)
    curves = [
        Curve("µs a step", [(p.steps, p.micros) for p in points]),
        Curve("MB resident", [(p.steps, p.rss) for p in points]),
    ]
    return Panel("steps taken (four small layers)", "steps", curves, unit="", flat=True)


PANELS: dict[str, Callable[[Effort, bool], Panel]] = {
    "receptive": receptive, "channels": channels, "rows": rows, "steps": steps_taken, "streams": streams,
}  # fmt: skip


def plot(panels: Sequence[Panel], path: Path) -> None:
    """All panels in one picture."""
    figure = pictures.figure("benchmarks.growth", 11, 3.6 * -(-len(panels) // 2))
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(-(-len(panels) // 2), 2, i + 1)
        for n, curve in enumerate(panel.curves):
            own, way = curve.name.rpartition(", ")[::2]
            style = {
                "linestyle": "--" if way == "window" else "-",
                "color": pictures.CYCLE[(n // 2 if own else n) % len(pictures.CYCLE)],
            }
            axes.plot(*zip(*curve.points, strict=True), marker=".", label=curve.name, **style)
        axes.set_title(panel.title, loc="left")
        axes.set(xlabel=panel.axis, ylabel=panel.unit)
        if panel.flat:
            axes.set_ylim(bottom=0)
        else:
            axes.set(xscale="log", yscale="log")
        pictures.grid(axes)
        pictures.legend(axes)
    pictures.save(figure, path)


def table(panel: Panel) -> str:
    """The numbers of a panel."""
    values = [x for x, _ in panel.curves[0].points]
    body = [[c.name, *(report.number(y) for _, y in c.points)] for c in panel.curves]
    unit = f", {panel.unit}" if panel.unit else ""
    return f"**{panel.title}**{unit}\n\n" + report.markdown_table([panel.axis, *(f"{x:,.0f}" for x in values)], body)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="How the time of a step grows.")
    line.add_argument("--threads", type=int, default=1, metavar="N", help="intra-op threads (default: 1)")
    line.add_argument("--only", choices=list(PANELS), metavar="PANEL", help=f"one of {', '.join(PANELS)}")
    line.add_argument("--quick", action="store_true", help="few points, short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'growth' of a page, and a plot beside it")
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the numbers in Markdown."""
    args = parser().parse_args(argv)
    effort = Effort(3, 0.002) if args.quick else Effort(7, 0.02)
    panels = []
    chosen = [args.only] if args.only else list(PANELS)
    with report.progress(len(chosen)) as advance, conditions(args.threads):
        for name in chosen:
            advance(name)
            panels.append(PANELS[name](effort, args.quick))
    text = "\n\n".join([f"Measured: {report.Machine.here()}; {report.plural(args.threads, 'thread')}.", *map(table, panels)])
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "growth", text)
        plot(panels, args.markdown.with_name("growth.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
