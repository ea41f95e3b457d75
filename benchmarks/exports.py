"""Exported networks: ``python -m benchmarks.exports`` checks every network in every format over 1,000 steps, and times a step."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co
from tests.export.networks import FORMATS, NETWORKS

from . import report
from .measure import Effort
from .timing import Candidate, Local, alternate, conditions

COLUMNS = {"onnx": ("onnx", None), "pt2": ("pt2", None), "pt2, one row": ("pt2", 1), "executorch": ("executorch", None),
           "openvino": ("openvino", None)}  # format and rows  # fmt: skip
STEPS = 1000
ALLOWED = 1e-5

LEGEND = """\
Each cell has the largest difference from the clip network over 1,000 steps from a cold start, relative to its largest output. Behind it
is the time of a step through `co.load(path).forward_step` in µs, with its ratio to the eager `forward_step` of the same network (above
1: faster than eager). For networks with strides a step is the mean over a chunk. *compiled*: `co.compile(net, step, backend="aot")`.
Batch 1, float32, one thread, medians of alternating runs, every format in a process of its own beside eager; compiled ran beside ONNX.
Files take any number of rows, in ExecuTorch and under *one row* one alone (`batch=1`)."""


def difference(net: Any, runner: Any, clip: Tensor) -> float:
    """The largest relative difference of a stream from the clip."""
    with torch.no_grad():
        y = net.forward_steps(clip, update_state=False)
        found = [out for frame in clip.unbind(2) if (out := runner.forward_step(frame)) is not None]
    several = runner.metadata.per_call > 1
    got = torch.cat(found, 2) if several else torch.stack(found, 2)
    if got.shape != y.shape:
        raise ArithmeticError(f"{tuple(got.shape)} outputs instead of {tuple(y.shape)}")
    return float((got - y).abs().max() / y.abs().max().clamp(min=1.0))


def cell(name: str, column: str, effort: Effort) -> dict[str, float]:
    """One network in one format: export, parity, times in µs. Runs in a process of its own."""
    case, (format, batch) = NETWORKS[name], COLUMNS[column]
    net, step = case.net(), case.step()
    with tempfile.TemporaryDirectory() as folder, conditions(1), torch.inference_mode(False), torch.no_grad():
        start = time.perf_counter()
        path = co.export(net, step, Path(folder) / f"net{FORMATS[format]}", format=format, batch=batch)
        took = time.perf_counter() - start
        runner = co.load(path, threads=1)
        clip = case.clip(STEPS)
        off = difference(net, runner, clip)
        frames = [f.contiguous() for f in clip[:, :, : runner.chunk].unbind(2)]

        def many(call: Any) -> Any:
            def run() -> None:
                for frame in frames:
                    call(frame)

            return run

        steps = {format: runner.forward_step, "eager": net.forward_step}
        if format == "onnx":  # once for each network: compiling takes its time
            steps["compiled"] = co.compile(net, step, backend="aot").step
        for frame in clip[:, :, : net.receptive_field + runner.chunk].unbind(2):
            for call in steps.values():
                call(frame)
        calls: list[Candidate] = [Local(name, many(call)) for name, call in steps.items()]
        timings = alternate(calls, effort.rounds, effort.min_block)
        times = {c.name: 1e6 * timings.stats(c.name).median / len(frames) for c in calls}
        size = sum(p.stat().st_size for p in Path(folder).iterdir())
        return {
            "off": off,
            "step": times[format],
            "eager": times["eager"],
            "ratio": timings.ratio("eager", format).median,
            **({"compiled": times["compiled"]} if "compiled" in times else {}),
            "export": took,
            "bytes": size,
        }


def apart(name: str, column: str, quick: bool) -> dict[str, Any]:
    """The same in a process of its own; or why it could not be done."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.exports", "--one", name, column, *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return {"failed": said[-1] if said else f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def table(found: dict[str, dict[str, dict[str, Any]]], columns: Sequence[str]) -> str:
    """The rows of all networks, as the part of a page."""
    rows = []
    for name, by_column in found.items():
        eager, compiled = (_median([c[k] for c in by_column.values() if k in c]) for k in ("eager", "compiled"))
        cells = []
        for column in columns:
            c = by_column.get(column, {"failed": "not run"})
            cells.append(f"**{c['failed']}**" if "failed" in c else f"{c['off']:.0e}, {c['step']:.0f} µs ({c['ratio']:.1f}×)")
        rows.append([name, eager, compiled, *cells])
    measured = f"Measured: {report.Machine.here()}."
    return "\n\n".join([measured, report.markdown_table(["network", "eager, µs", "compiled, µs", *columns], rows), LEGEND])


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.0f}" if values else "–"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.exports", description="Exported networks: parity and speed.")
    line.add_argument("--only", metavar="PATTERN", help="networks by a part of the name or a shell pattern")
    line.add_argument("--formats", nargs="+", choices=list(COLUMNS), default=list(COLUMNS), help="default: all")
    line.add_argument("--quick", action="store_true", help="3 rounds of short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'exports' of a page")
    line.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    line.add_argument("--one", nargs=2, metavar=("NETWORK", "COLUMN"), help=argparse.SUPPRESS)
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the table in Markdown."""
    args = parser().parse_args(argv)
    if args.one:
        print(json.dumps(cell(*args.one, Effort(3, 0.002) if args.quick else Effort())))
        return 0
    chosen = [n for n in NETWORKS if not args.only or args.only in n or fnmatch(n, args.only)]
    if not chosen:
        parser().error(f"no network matches {args.only!r}; there are: {', '.join(NETWORKS)}")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with report.progress(len(chosen) * len(args.formats)) as advance:
        for name in chosen:
            for column in args.formats:
                advance(f"{name}, {column}")
                found.setdefault(name, {})[column] = apart(name, column, args.quick)
    text = table(found, args.formats)
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "exports", text)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    bad = [(n, f) for n, row in found.items() for f, c in row.items() if "failed" in c or c["off"] > ALLOWED]
    for name, format in bad:
        print(f"{name}, {format}: {found[name][format]}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
