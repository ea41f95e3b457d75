"""The suite's rows as tables, and as the ratios of a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import report
from .report import number, plural
from .suite_plot import Ratios

if TYPE_CHECKING:
    from .suite_rows import Row

OTHERS = {"window": "window", "other": "other library", "onnxruntime": "onnxruntime", "openvino": "OpenVINO"}
NAMES = {"step": "step", "fused": "fused", "hop": "hop", "compiled": "compiled", "chunk": "chunk"} | OTHERS

LEGEND = """\
Microseconds for a step of the input (with temporal strides the mean over a period; of a thousand streams all of them), batch 1, float32,
denormals flushed, medians of alternating runs in one process; in brackets the time over that of our best step, taken within each round:
above 1, we are faster. *step*: `forward_step`. *fused*: the same of `co.fuse(net)`, where there are norms to fold. *hop*:
`forward_steps` on the steps that bring one output, where these are several. *compiled*: a call of
`co.compile(net, step, backend="aot")`. *chunk*: `forward_steps` on up to 64 steps at once. *window*: what people do without us, again
for each output: the plain network on its receptive field, by the fastest of three ways to shift the buffer; recurrent layers with the
carried state; loops by hand; networks of the zoo on the published clip. *other library*: continual-inference 1.2.4. *onnxruntime*: our
export, fused, with IO binding and states that change places. *OpenVINO*: the same file, in float32 with the hint for latency, with the
states inside or in two requests that take turns, whichever is faster, on fixed memory. Both runtimes have as many threads as torch."""

LIMITS = """\
*limit*: the least that a step can take on this machine, measured in the same run: its multiply-adds at the speed of the best float32
product of matrices (*compute*), or moving its weights, the state that it reads, the frame that comes, what windows keep of it and the
frame that leaves (*memory*: a copy of as many bytes, from the caches that they fit into), whichever is longer. *of the limit*: our best
step's time over it. *operations*: multiply-adds of the plain network for the outputs of a step, over ours; *of that*: the
share of this that the time has (window over our best step). *p99*: the 99th percentile of single calls of our best step, and of the
window: of as many as fit into half a second, 5 to 1,000. *made in*: conversion, or construction of a network of the zoo. *state*: bytes
of it, beside those of the frames that an exact method must know (none behind recurrent layers). *peak*: the most that an eager step
allocates at once."""


def cell(row: Row, name: str) -> str:
    """A time and its ratio, or why there is none."""
    if name not in row.times:
        return "–"
    ratio = "" if name == row.best else f" ({number(row.ratios[name])}×)"
    shown = f"{number(1e6 * row.times[name])}{ratio}"
    return f"**{shown}**" if name == row.best else shown


def markdown(machine: report.Machine, rows: Sequence[Row], importing: float) -> str:
    """All tables, as the part of a page; ``importing`` is in seconds."""
    parts = [f"Measured: {machine}. `import continual` takes {1e3 * importing:.0f} ms beyond torch's own import.", LEGEND]
    for threads in sorted({r.threads for r in rows}):
        own = [r for r in rows if r.threads == threads]
        body = [
            [r.name, *(cell(r, n) for n in NAMES)] if not r.error else [r.name, r.error, *["–"] * (len(NAMES) - 1)] for r in own
        ]
        parts += [f"### {plural(threads, 'thread')}", report.markdown_table(["µs a step", *NAMES.values()], body)]
        behind = [f"{r.name} ({', '.join(OTHERS[n] for n in r.behind)})" for r in own if r.behind]
        good = [r for r in own if not r.error]
        parts.append(
            f"Our best step is ahead of all others in {len(good) - len(behind)} of {len(own)} rows"
            + (f"; not in: {'; '.join(behind)}." if behind else ".")
        )
    parts += ["### What the machine could do", LIMITS]
    header = [
        "",
        "threads",
        "limit, µs",
        "bound by",
        "of the limit",
        "operations",
        "of that",
        "p99, µs",
        "p99 of the window",
        "made in, ms",
        "state",
        "least",
        "peak",
    ]
    parts.append(report.markdown_table(header, [_limits(r) for r in rows if not r.error]))
    notes = dict.fromkeys(f"- {r.name}: {NAMES[n]}: {why}" for r in rows for n, why in r.missing.items())
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _limits(r: Row) -> list[str]:
    best, late = r.times[r.best], r.late
    share = r.ratios["window"] / r.operations if r.operations else 0
    return [
        r.name,
        str(r.threads),
        number(1e6 * r.limit["seconds"]),
        r.limit["bound"],
        f"{number(best / r.limit['seconds'])}×",
        f"{number(r.operations)}×" if r.operations else "–",
        f"{100 * share:.0f} %" if share else "–",
        number(1e6 * late[r.best]),
        number(1e6 * late["window"]),
        number(1e3 * r.conversion),
        f"{r.state:,}",
        f"{r.least:,}" if r.least else "–",
        f"{r.peak:,}",
    ]


def ratios(rows: Sequence[Row]) -> tuple[int, list[Ratios]]:
    """The number of threads of the plot, the fewest that were measured, and what it shows."""
    threads = min(r.threads for r in rows)
    own = [r for r in rows if r.threads == threads and not r.error]
    return threads, [Ratios(r.name, {OTHERS[n]: r.ratios[n] for n in OTHERS if n in r.ratios}) for r in own]
