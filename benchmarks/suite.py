"""The suite: every workload, by all that can run it, beside what the machine could do. ``make bench`` runs it.

    python -m benchmarks.suite [--threads 1 2] [--only PATTERN] [--quick] [--no-other] [--no-compiled]
                               [--without onnxruntime] [--resume FILE] [--markdown docs/performance.md]

Compiled steps need a C++ compiler; onnxruntime (with onnx and onnxscript) and OpenVINO are measured where they are
installed. The other library is installed into an environment of its own at the first run.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import continual as co

from . import report, suite_plot, suite_report
from .candidates import RUNTIMES, Timed, chunked, compiled, copy_of, eager, in_runtime, outputs_of, window
from .limits import Limit
from .measure import Effort, WrongResult, require_equal
from .memory import peak_of
from .other_library import REPOSITORY, CantRun, OtherLibrary, install
from .runtimes import written
from .start import import_seconds
from .subjects import Subject, norms_of, stepped, subjects
from .timing import Candidate, Local, Timings, alternate, conditions, rest
from .zoo import Periods

OURS = ("step", "fused", "compiled")
OTHERS = ("window", "other", *RUNTIMES)
LATENCIES, LATENCY_SECONDS = 1000, 1.0  # single calls for the 99th percentile, fewer where they take longer


@dataclass
class Row:
    """What was measured of one workload; times in seconds a step (of the input), by candidate.

    Attributes:
        name, threads, kind: of the workload.
        times: medians.
        late: 99th percentiles of single calls.
        ratios: a candidate's time over that of our best step, taken within each round.
        best: which of ours that is.
        missing: why a candidate has no number.
        limit: the least that a step can take here (:class:`benchmarks.limits.Limit`).
        state, least: bytes of the state, and of the frames that any exact method must know.
        peak: the most bytes that an eager step allocates.
        conversion: seconds to make the network ours.
        operations: multiply-adds of the plain network for a step's outputs, over ours.
        error: why there are no numbers.
    """

    name: str
    threads: int
    kind: str = ""
    times: dict[str, float] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    best: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    limit: dict[str, Any] = field(default_factory=dict)
    state: int = 0
    least: int = 0
    peak: int = 0
    conversion: float = 0.0
    operations: float = 0.0
    error: str = ""

    @property
    def behind(self) -> list[str]:
        """What is faster than our best step."""
        return [name for name in OTHERS if self.ratios.get(name, math.inf) < 1]


# ---- a row -----------------------------------------------------------------------------------------------------------------


def measure(
    subject: Subject,
    threads: int,
    effort: Effort,
    other: OtherLibrary | None,
    why: str,
    without: Collection[str] = (),
) -> Row:
    """Time all candidates of one workload but those ``without``, under :func:`benchmarks.timing.conditions`."""
    row = Row(subject.name, threads, subject.kind, conversion=subject.conversion)
    net = subject.net
    with tempfile.TemporaryDirectory() as folder:
        with torch.inference_mode(False), torch.no_grad():
            state = net.init_state(subject.frame)
            row.state = state.nbytes
            row.least = (net.receptive_field - 1) * subject.frame.numel() * 4
            row.limit = asdict(Limit.of(net, subject.frame, threads, subject.period))
            if subject.clip_operations and row.limit["operations"]:
                row.operations = subject.clip_operations / (row.limit["operations"] * subject.period)
            fused = co.fuse(net) if norms_of(net) else None
            if fused is not None:
                require_equal("fused", stepped(fused, subject.clip).unsqueeze(2), subject.expected.unsqueeze(2))
        wanted = outputs_of(net, subject.clip)
        timed = [eager(net, subject, "step"), window(subject, effort)]
        if fused is not None:
            timed.append(eager(fused, subject, "fused"))
        row.peak = peak_of(timed[0].call)
        best_net = net if fused is None else fused
        if "compiled" in without:
            row.missing["compiled"] = "left out"
        else:
            attempt(row, timed, "compiled", partial(compiled, best_net, subject, wanted))
        file = cache(partial(written, best_net, subject.frame, folder))
        for name in RUNTIMES:
            if name in without:
                row.missing[name] = "left out"
            else:
                attempt(row, timed, name, lambda name=name: in_runtime(name, file(), subject, wanted, threads, effort))  # type: ignore[misc]
        start = time.perf_counter()
        timed[0].call()
        timed.append(chunked(copy_of(best_net), subject, (time.perf_counter() - start) / subject.period))
        candidates: list[Candidate] = [Local(t.name, t.call) for t in timed]
        steps = {t.name: t.steps for t in timed}
        if isinstance(subject.theirs, str) or other is None:
            row.missing["other"] = why if other is None else str(subject.theirs)
        else:
            try:
                found = other.build(*subject.theirs, subject.clip)
                require_equal("its forward_step", found[:, :, -1:], subject.expected.unsqueeze(2))
                candidates.append(Periods(other.candidate("other"), subject.period))
                steps["other"] = subject.period
            except (CantRun, WrongResult) as error:
                row.missing["other"] = str(error)
        timings = alternate(candidates, effort.rounds, effort.min_block)
        each = Timings({name: [t / steps[name] for t in rounds] for name, rounds in timings.rounds.items()})
        row.times = {name: each.stats(name).median for name in steps}
        row.best = each.fastest([n for n in OURS if n in steps])
        row.ratios = {name: each.ratio(name, row.best).median for name in steps}
        row.late = {t.name: late(t) for t in timed if t.name != "chunk"}
    return row


def attempt(row: Row, timed: list[Timed], name: str, make: Callable[[], Timed]) -> None:
    """A candidate, or why there is none."""
    try:
        with torch.inference_mode(False), torch.no_grad():
            timed.append(make())
    except Exception as error:  # the table goes on, and says so
        row.missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"


def late(timed: Timed) -> float:
    """The 99th percentile of single calls, in seconds a step."""
    rest()
    found, begun = [], time.perf_counter()
    while len(found) < LATENCIES and (time.perf_counter() - begun < LATENCY_SECONDS or len(found) < 20):
        start = time.perf_counter()
        timed.call()
        found.append(time.perf_counter() - start)
    return sorted(found)[min(len(found) - 1, int(0.99 * len(found)))] / timed.steps


# ---- the command -----------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.suite", description="All workloads, by all that can run them.")
    line.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="intra-op threads (default: 1 2)")
    line.add_argument("--only", metavar="PATTERN", help="rows by a part of the name or a shell pattern")
    line.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds of each comparison (default: 9)")
    line.add_argument("--quick", action="store_true", help="3 rounds of short blocks")
    line.add_argument("--no-other", action="store_true", help="leave the other library out, and install nothing")
    line.add_argument(
        "--no-compiled", dest="without", action="append_const", const="compiled", default=[], help="compile nothing"
    )
    line.add_argument("--without", action="append", choices=list(RUNTIMES), help="leave a runtime out")
    line.add_argument(
        "--resume", type=Path, metavar="FILE", help="keep the rows in this JSON file: those that are there are not measured"
    )
    line.add_argument("--row", metavar="NAME", help="measure this row in this process, and do nothing but write it to --resume")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'suite' of a page, and a plot beside it")
    return line


def kept(path: Path | None) -> dict[tuple[str, int], Row]:
    """Rows of earlier runs."""
    if path is None or not path.exists():
        return {}
    rows = [Row(**row) for row in json.loads(path.read_text())]
    return {(r.name, r.threads): r for r in rows}


def run(args: argparse.Namespace, names: Sequence[str]) -> list[Row]:
    """Measure the rows that are not there yet, each in a process of its own."""
    rows = kept(args.resume)
    todo = [(n, t) for t in args.threads for n in names if (n, t) not in rows]
    with ExitStack() as stack:
        if todo and not args.no_other:
            with suppress(CantRun):  # each row says why
                install(lambda text: print(text, file=sys.stderr))
        advance = stack.enter_context(report.progress(len(todo)))
        try:
            for name, threads in todo:
                advance(f"{name}, {report.plural(threads, 'thread')}")
                rows[name, threads] = alone(args, name, threads)
                keep(args.resume, rows.values())
        except KeyboardInterrupt:
            print("interrupted: this is what was measured", file=sys.stderr)
    order = {name: i for i, name in enumerate(names)}
    return sorted(
        (r for r in rows.values() if r.name in order and r.threads in args.threads), key=lambda r: (r.threads, order[r.name])
    )


def keep(path: Path | None, rows: Iterable[Row]) -> None:
    """Write rows where :func:`kept` finds them."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(r) for r in rows], indent=1, ensure_ascii=False))


def alone(args: argparse.Namespace, name: str, threads: int) -> Row:
    """A row in a new process. In one that has run many others before, compiled code was up to 1.5 times as slow.

    A process that a signal ends is tried again without OpenVINO, which has crashed before.
    """
    found, status = attempted(args, name, threads, args.without)
    if found is None and status < 0 and "openvino" not in args.without:
        found, second = attempted(args, name, threads, [*args.without, "openvino"])
        if found is not None:
            found.missing["openvino"] = f"its process ended with status {status}, and not without it"
        status = second
    return found or Row(name, threads, error=f"its process ended with status {status}")


def attempted(args: argparse.Namespace, name: str, threads: int, without: Collection[str]) -> tuple[Row | None, int]:
    """A row in a new process, and the status with which that ends."""
    flags = [f"--{f.replace('_', '-')}" for f in ("quick", "no_other") if getattr(args, f)]
    flags += ["--no-compiled" if left == "compiled" else f"--without={left}" for left in without]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        options = ["--threads", str(threads), "--rounds", str(args.rounds), "--resume", str(path), *flags]
        command = [sys.executable, "-m", "benchmarks.suite", "--row", name, *options]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
        return kept(path).get((name, threads)), done.returncode


def here(args: argparse.Namespace, name: str) -> Row:
    """A row in this process."""
    threads, other, why = args.threads[0], None, "left out"
    effort = Effort(3, 0.002) if args.quick else Effort(args.rounds, 0.02)
    with ExitStack() as stack:
        if not args.no_other:
            try:
                other = stack.enter_context(OtherLibrary(install()))
                other.conditions(threads)
            except CantRun as error:
                why = str(error)
        stack.enter_context(conditions(threads))
        try:
            return measure(subjects()[name](), threads, effort, other, why, args.without)
        except WrongResult as wrong:
            return Row(name, threads, error=f"wrong result: {wrong}")
        except Exception as error:  # a row that can't be measured is shown as such
            traceback.print_exc()
            return Row(name, threads, error=f"{type(error).__name__}: {str(error).splitlines()[0]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 1 if a row could not be measured."""
    args = parser().parse_args(argv)
    every = subjects()
    if args.row is not None:
        row = here(args, args.row)
        keep(args.resume, [row])
        return int(bool(row.error))
    low = (args.only or "").lower()
    chosen = [n for n in every if not low or low in n.lower() or fnmatch(n.lower(), low)]
    if not chosen or min(args.threads) < 1 or args.rounds < 1:
        parser().error(
            f"no row matches {args.only!r}; the rows are: " + "; ".join(every)
            if not chosen
            else "--rounds, --threads: at least 1"
        )
    rows = run(args, chosen)
    text = suite_report.markdown(report.Machine.here(), rows, import_seconds())
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "suite", text)
        threads, ratios = suite_report.ratios(rows)
        suite_plot.plot(ratios, threads, args.markdown.with_name("performance.png"))
    return int(any(r.error for r in rows))


if __name__ == "__main__":
    sys.exit(main())
