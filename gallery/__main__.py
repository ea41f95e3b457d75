"""The command: ``python -m gallery``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Machine

from . import report
from .catalogue import choose, everything, tenth
from .network import Network
from .result import SAID, Result, Results
from .run import Limits, run

RESULTS = Path(".gallery.jsonl")
ABOUT = """\
Convert networks that people own, compare each with its module, and time it. Each network runs in a process of its own.

Results are kept in a file, so that a run can be interrupted and continued: --continue runs what has no result yet.
The exit status is 1 if a network has another result than the table in gallery/networks expects."""
EXAMPLES = """\
examples:
  python -m gallery --only braindecode          the networks of a package
  python -m gallery --only 'audio/*,vision/R3D' shell patterns, with commas between
  python -m gallery --only refused              the networks that are expected to be refused
  python -m gallery --tenth 3                   a tenth of those that need no package
  python -m gallery --continue --jobs 2         the rest of everything
  python -m gallery --none --markdown docs/gallery.md   the page, of the results that there are"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m gallery", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", metavar="PATTERN", help="rows by a part of the name, a shell pattern or the expected result")
    made.add_argument("--tenth", type=int, metavar="K", help="of the rows that need no package the K-th tenth, K from 0 to 9")
    made.add_argument("--none", action="store_true", help="run nothing: report on the results that are kept")
    made.add_argument("--continue", dest="more", action="store_true", help="leave out what has a result already")
    made.add_argument("--failed", action="store_true", help="run only what has another result than expected")
    made.add_argument("--list", action="store_true", help="print the rows and what is expected of them, and run nothing")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default: 1)")
    made.add_argument("--timeout", type=float, default=120.0, metavar="N", help="CPU seconds for each network (default: 120)")
    made.add_argument("--memory", type=float, default=6.0, metavar="GB", help="GiB for each network (default: 6)")
    made.add_argument("--untimed", action="store_true", help="do not measure steps")
    made.add_argument("--compiled", action="store_true", help="measure compiled programs, too: minutes for each network")
    made.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FILE", help=f"where results are kept (default: {RESULTS})"
    )
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the page, e.g. docs/gallery.md")
    made.add_argument("--verbose", action="store_true", help="print the whole message of each network that is not converted")
    return made


def commit() -> str:
    """The library's commit, with a ``+`` if files differ from it; empty without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, cwd=Path(__file__).parent
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


@contextmanager
def shown(total: int) -> Iterator[tuple[object, object]]:
    """Progress: two functions, for the name of a network that begins and for its result."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    running: list[str] = []
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def started(name: str) -> None:
            running.append(name)
            bar.update(task, description=", ".join(running))

        def done(result: Result) -> None:
            running.remove(result.name)
            bar.update(task, advance=1, description=", ".join(running))
            seconds = "" if result.seconds is None else f"{result.seconds:5.1f} s"
            off = "" if result.difference is None else f"{result.difference:.0e}"
            console.print(
                f"{result.name:<44.44} {SAID[result.outcome]:<14} {seconds:>8} {off:>6}  {result.reason}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip

        yield started, done


def chosen(args: argparse.Namespace, results: Results) -> list[Network]:
    """The rows that the command names."""
    rows = choose(args.only)
    if not rows:
        known = sorted({name.partition("/")[0] for name in everything()})
        parser().error(f"no network fits {args.only!r}; names begin with: {', '.join(known)}")
    if args.tenth is not None:
        rows = tenth(rows, args.tenth)
    if args.more:
        rows = results.missing(rows)
    if args.failed:
        rows = [n for n in rows if n.name in results.found and results.found[n.name].changed(n)]
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = parser().parse_args(argv)
    if args.jobs < 1 or args.timeout <= 0 or args.memory <= 0:
        parser().error("--jobs is at least 1; --timeout and --memory are above 0")
    results = Results(args.results)
    rows = chosen(args, results)
    if args.list:
        for network in rows:
            print(f"{network.name:<44} {SAID[network.expected]:<14} {network.package:<16} {network.source}")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not args.none:
        _run(args, rows, results)
    print(report.totals(rows, results.found))
    failures = report.failures(rows, results.found)
    for text in failures:
        print(f"CHANGED {text}")
    if args.verbose:
        for network in rows:
            found = results.found.get(network.name)
            if found is not None and found.message:
                print(f"\n{network.name}\n{found.message}")
    if args.markdown:
        report.write(args.markdown, report.page(list(everything().values()), results.found, str(Machine.here())))
    return int(bool(failures))


def _run(args: argparse.Namespace, rows: Sequence[Network], results: Results) -> None:
    now = commit()
    limits = Limits(args.timeout, args.memory, not args.untimed, args.compiled)
    with shown(len(rows)) as (started, done):

        def kept(result: Result) -> None:
            result.commit = now
            results.add(result)
            done(result)  # type: ignore[operator]

        for end in (signal.SIGTERM, signal.SIGINT):  # also in the background, where shells have Ctrl-C ignored
            signal.signal(end, signal.default_int_handler)  # the networks' processes end, too
        try:
            run(rows, limits, args.jobs, started, kept)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            print(f"interrupted: {args.results} has what was measured; --continue goes on", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
