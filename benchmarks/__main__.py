"""The command: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from . import memory, report
from .measure import Effort, Row, measure
from .other_library import CantRun, OtherLibrary, install
from .timing import conditions
from .workloads import Workload, choose


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Speed of continual against plain torch.nn and another library."
    )
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="intra-op threads (default: 1 2)")
    made.add_argument("--only", metavar="PATTERN", help="rows by name (a part or a shell pattern) or kind (dense, network …)")
    made.add_argument("--rounds", type=int, metavar="N", help=f"rounds of each comparison (default: {Effort().rounds})")
    made.add_argument("--quick", action="store_true", help="a look in a minute or two: 3 rounds of short blocks")
    made.add_argument("--no-other", action="store_true", help="leave the other library out, and install nothing")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the section of a page, e.g. docs/performance.md")
    made.add_argument(
        "--memory", type=int, nargs="?", const=1_000_000, metavar="STEPS", help="a long run and the bytes of state instead"
    )
    made.add_argument("--strict", action="store_true", help="exit status 1 also if a target is missed")
    return made


def run_speed(workloads: Sequence[Workload], threads: Sequence[int], effort: Effort, with_other: bool) -> tuple[list[Row], str]:
    """Measure; return the rows and the other library's version. Ctrl-C ends it early with what there is."""
    rows: list[Row] = []
    other, why, version = None, "", ""
    with ExitStack() as stack:
        if with_other:
            try:
                python = install(lambda text: print(text, file=sys.stderr, flush=True))
                other = stack.enter_context(OtherLibrary(python))
                version = other.version
            except CantRun as error:
                why = str(error)
        advance = stack.enter_context(report.progress(len(threads) * len(workloads)))
        try:
            for count in threads:
                if other is not None:
                    other.conditions(count)
                for workload in workloads:
                    advance(f"{workload.name}, {report.plural(count, 'thread')}")
                    with conditions(count):
                        rows.append(measure(workload, count, effort, other, why))
        except KeyboardInterrupt:
            print("interrupted: this is what was measured", file=sys.stderr)
    return rows, version


def speed(args: argparse.Namespace, workloads: Sequence[Workload]) -> int:
    """Measure the speed and report it."""
    effort = Effort(3, 0.002) if args.quick else Effort()
    if args.rounds:
        effort = Effort(args.rounds, effort.min_block)
    rows, version = run_speed(workloads, args.threads, effort, not args.no_other)
    machine = report.Machine.here(version)
    print(machine)
    for count in report.threads_of(rows):
        report.show(report.plural(count, "thread"), report.HEADER, [report.cells(r) for r in rows if r.threads == count])
    for note in report.notes(rows):
        print(note)
    if args.json:
        report.write_json(args.json, machine, rows=rows)
    if args.markdown:
        report.write_markdown(args.markdown, "speed", report.speed_markdown(machine, rows))
    missed = any(v is False for r in rows for v in r.verdicts.values())
    return int(any(r.error for r in rows) or (args.strict and missed))


def long_run(args: argparse.Namespace, workloads: Sequence[Workload]) -> int:
    """The long run and the state's sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with report.progress(memory.POINTS) as advance, torch.inference_mode():
            advance("long run")
            points = memory.long_run(args.memory, lambda p: advance(f"{p.steps:,} steps") if p.steps < args.memory else None)
        sizes = memory.state_sizes(workloads)
    finally:
        torch.set_num_threads(before)
    machine = report.Machine.here()
    print(machine)
    report.show("Long run", report.POINT_HEADER, report.point_cells(points))
    report.show("State", report.SIZE_HEADER, report.size_cells(sizes))
    if args.json:
        report.write_json(args.json, machine, points=points, sizes=sizes)
    if args.markdown:
        report.write_markdown(args.markdown, "memory", report.memory_markdown(machine, points, sizes))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = parser().parse_args(argv)
    if (args.rounds is not None and args.rounds < 1) or min(args.threads) < 1:
        parser().error("--rounds and --threads are at least 1")
    workloads = choose(args.only)
    if not workloads:
        parser().error(f"no row matches {args.only!r}; the rows are: " + "; ".join(w.name for w in choose(None)))
    return speed(args, workloads) if args.memory is None else long_run(args, workloads)


if __name__ == "__main__":
    sys.exit(main())
