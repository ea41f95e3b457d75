"""The suite: every workload, by all that can run it, beside what the machine could do. ``make bench`` runs it.

    python -m benchmarks.suite [--threads 1 2] [--only PATTERN] [--quick] [--no-other] [--without openvino] [--files FOLDER] [--prepare]
                               [--resume FILE] [--markdown docs/performance.md]

First all programs are compiled and all files exported, on all cores; then each row is measured in a process of its own. Compiled steps
need a C++ compiler; onnxruntime (with onnx and onnxscript) and OpenVINO are measured where they are installed. The other library is
installed into an environment of its own at the first run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from fnmatch import fnmatch
from pathlib import Path

from . import report, suite_plot, suite_report, suite_rows
from .other_library import REPOSITORY, CantRun, install
from .start import import_seconds
from .suite_rows import Row, keep, kept


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.suite", description="All workloads, by all that can run them.")
    line.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="intra-op threads (default: 1 2)")
    line.add_argument("--only", metavar="PATTERN", help="rows by a part of the name or a shell pattern")
    line.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds of each comparison (default: 9)")
    line.add_argument("--quick", action="store_true", help="3 rounds of short blocks")
    line.add_argument("--no-other", action="store_true", help="leave the other library out, and install nothing")
    line.add_argument(
        "--without", action="append", choices=["compiled", *suite_rows.RUNTIMES], default=[], help="leave a candidate out"
    )
    line.add_argument(
        "--resume", type=Path, metavar="FILE", help="keep the rows in this JSON file: those that are there are not measured"
    )
    line.add_argument(
        "--files", type=Path, metavar="FOLDER", help="keep exported files here: those that are there are not made again"
    )
    line.add_argument("--prepare", action="store_true", help="export and compile, and measure nothing")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'suite' of a page, and a plot beside it")
    return line


def run(args: argparse.Namespace, names: Sequence[str]) -> list[Row]:
    """Measure the rows that are not there yet."""
    rows = kept(args.resume)
    todo = {n: left for n in names if (left := [t for t in args.threads if (n, t) not in rows])}
    with ExitStack() as stack:
        if args.files is None:
            args.files = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if todo and not args.no_other:
            with suppress(CantRun):  # each row says why
                install(lambda text: print(text, file=sys.stderr))
        try:
            prepare(args, todo)
            if not args.prepare:
                measure(args, todo, rows)
        except KeyboardInterrupt:
            print("interrupted: this is what was measured", file=sys.stderr)
    order = {name: i for i, name in enumerate(names)}
    return sorted(
        (r for r in rows.values() if r.name in order and r.threads in args.threads), key=lambda r: (r.threads, order[r.name])
    )


def prepare(args: argparse.Namespace, todo: dict[str, list[int]]) -> None:
    """Compile and export on all cores. What fails here fails again where it is measured, and is told there."""
    args.files.mkdir(parents=True, exist_ok=True)
    if todo and not args.prepare:
        suite_rows.peaks(args.files, args.threads)
    with report.progress(len(todo), "prepared") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        made = {pool.submit(started, args, name, threads, args.without, "--prepare"): name for name, threads in todo.items()}
        for done in as_completed(made):
            advance(made[done])


def measure(args: argparse.Namespace, todo: dict[str, list[int]], rows: dict[tuple[str, int], Row]) -> None:
    """Measure rows, one after another."""
    weights = [suite_rows.LONG if name in suite_rows.large() else 1.0 for name in todo]
    with report.progress(len(todo), "measuring", weights) as advance:
        for name, threads in todo.items():
            advance(name)
            rows.update({(r.name, r.threads): r for r in alone(args, name, threads)})
            keep(args.resume, rows.values())


def alone(args: argparse.Namespace, name: str, threads: list[int]) -> list[Row]:
    """A row in a new process. One that a signal ends is tried again without OpenVINO, which has crashed before."""
    found, status = attempted(args, name, threads, args.without)
    if not found and status < 0 and "openvino" not in args.without:
        found, second = attempted(args, name, threads, [*args.without, "openvino"])
        for row in found:
            row.missing["openvino"] = f"its process ended with status {status}, and not without it"
        status = second
    return found or [Row(name, count, error=f"its process ended with status {status}") for count in threads]


def attempted(args: argparse.Namespace, name: str, threads: list[int], without: Collection[str]) -> tuple[list[Row], int]:
    """What a row's process found, and the status with which it ended."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        status = started(args, name, threads, without, "--rows", str(path))
        return list(kept(path).values()), status


def started(args: argparse.Namespace, name: str, threads: list[int], without: Collection[str], *options: str) -> int:
    """Run a row's process, and return its status."""
    flags = [f"--{f.replace('_', '-')}" for f in ("quick", "no_other") if getattr(args, f)]
    flags += [f"--without={left}" for left in without]
    command = [sys.executable, "-m", "benchmarks.suite_rows", name, "--threads", *map(str, threads)]
    command += ["--rounds", str(args.rounds), "--files", str(args.files.resolve()), *flags, *options]
    return subprocess.run(command, stdout=subprocess.DEVNULL, cwd=REPOSITORY).returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 1 if a row could not be measured."""
    args = parser().parse_args(argv)
    every = suite_rows.subjects()
    low = (args.only or "").lower()
    chosen = [n for n in every if not low or low in n.lower() or fnmatch(n.lower(), low)]
    if not chosen:
        parser().error(f"no row matches {args.only!r}; the rows are: " + "; ".join(every))
    if min(args.threads) < 1 or args.rounds < 1:
        parser().error("--rounds, --threads: at least 1")
    if args.prepare and args.files is None:
        parser().error("--prepare needs --files, where a later run finds what was made")
    rows = run(args, chosen)
    if args.prepare:
        return 0
    text = suite_report.markdown(report.Machine.here(), rows, import_seconds())
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "suite", text)
        threads, ratios = suite_report.ratios(rows)
        suite_plot.plot(ratios, threads, args.markdown.with_name("performance.png"))
    return int(any(r.error for r in rows))


if __name__ == "__main__":
    sys.exit(main())
