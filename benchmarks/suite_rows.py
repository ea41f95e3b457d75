"""A row of the suite, in a process of its own: ``python -m benchmarks.suite_rows NAME`` measures it, and writes what was found.

In a process that has run many others before, compiled code was up to 1.5 times as slow.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co

from . import limits, strided, uses
from . import subjects as networks
from .candidates import RUNTIMES, Timed, chunked, compiled, copy_of, eager, hops, in_runtime, outputs_of, window
from .limits import Limit
from .measure import Effort, WrongResult, require_equal
from .memory import peak_of
from .other_library import CantRun, OtherLibrary, install
from .runtimes import written
from .subjects import Subject, norms_of, stepped
from .timing import Candidate, Local, Timings, alternate, conditions, rest
from .zoo import Periods

OURS = ("step", "fused", "hop", "compiled")
OTHERS = ("window", "other", *RUNTIMES)
LATENCIES, LATENCY_SECONDS, LEAST_LATENCIES = 1000, 0.5, 5  # single calls for the 99th percentile
SECONDS = 8.0  # of the rounds of a row, after the first three
PEAKS = "peaks.json"  # the speed of products of matrices, by threads


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
        seconds: that it took to measure this.
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
    seconds: float = 0.0
    error: str = ""

    @property
    def behind(self) -> list[str]:
        """What is faster than our best step."""
        return [name for name in OTHERS if self.ratios.get(name, math.inf) < 1]


def subjects() -> dict[str, Callable[[], Subject]]:
    """All rows by name."""
    return networks.subjects() | strided.rows() | uses.rows()


LONG = 3.0  # times as long as others


def large() -> set[str]:
    """The rows that take long."""
    return {*networks.ZOO, *(f"{name}, converted" for name in networks.CONVERTED)} - {"kws_ds_cnn"}


@dataclass
class Prepared:
    """A subject, and what is made once for all numbers of threads; files go into a folder, where a later process finds them."""

    subject: Subject
    files: Path

    @cached_property
    def fused(self) -> Any:
        """The network with its norms folded, checked; ``None`` without norms."""
        subject = self.subject
        if not norms_of(subject.net):
            return None
        with torch.inference_mode(False), torch.no_grad():
            made = co.fuse(subject.net)
            require_equal("fused", stepped(made, subject.clip).unsqueeze(2), subject.expected.unsqueeze(2))
        return made

    @property
    def best(self) -> Any:
        """What is compiled and exported."""
        return self.subject.net if self.fused is None else self.fused

    @cached_property
    def wanted(self) -> Tensor:
        """The outputs of the clip."""
        return outputs_of(self.subject.net, self.subject.clip)

    @cached_property
    def onnx(self) -> Path:
        """Our export."""
        path = self.files / f"{sha256(self.subject.name.encode()).hexdigest()[:16]}.onnx"
        return path if path.exists() else written(self.best, self.subject.frame, path)

    def prepare(self, threads: Iterable[int], without: Collection[str]) -> None:
        """Export, and compile into the cache of packages: what takes time and is not measured."""
        with torch.inference_mode(False), torch.no_grad():
            if set(RUNTIMES) - set(without):
                _ = self.onnx
            for count in () if "compiled" in without else threads:
                torch.set_num_threads(count)
                co.compile(self.best, self.subject.frame, backend="aot")


def measure(
    made: Prepared, threads: int, effort: Effort, other: OtherLibrary | None, why: str, without: Collection[str] = ()
) -> Row:
    """Time all candidates of one workload but those ``without``, under :func:`benchmarks.timing.conditions`."""
    subject = made.subject
    row = Row(subject.name, threads, subject.kind, conversion=subject.conversion)
    describe(row, subject, threads)
    wanted = made.wanted
    timed = [eager(subject.net, subject, "step"), window(subject, effort)]
    row.peak = peak_of(timed[0].call)
    if made.fused is not None:
        timed.append(eager(made.fused, subject, "fused"))
    if made.best.step_size > 1:
        timed.append(hops(copy_of(made.best), subject))
    attempts = {"compiled": partial(compiled, made.best, subject, wanted)}
    attempts |= {n: lambda n=n: in_runtime(n, made.onnx, subject, wanted, threads, effort) for n in RUNTIMES}  # type: ignore[misc]
    for name, attempted in attempts.items():
        attempt(row, timed, name, attempted, without)
    start = time.perf_counter()
    timed[0].call()
    timed.append(chunked(copy_of(made.best), subject, (time.perf_counter() - start) / subject.period))
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
    timings = alternate(candidates, effort.rounds, effort.min_block, SECONDS)
    each = Timings({name: [t / steps[name] for t in rounds] for name, rounds in timings.rounds.items()})
    row.times = {name: each.stats(name).median for name in steps}
    row.best = each.fastest([n for n in OURS if n in steps])
    row.ratios = {name: each.ratio(name, row.best).median for name in steps}
    row.late = {t.name: late(t) for t in timed if t.name in (row.best, "window")}
    return row


def describe(row: Row, subject: Subject, threads: int) -> None:
    """What is counted, not timed."""
    net = subject.net
    with torch.inference_mode(False), torch.no_grad():
        row.state = net.init_state(subject.frame).nbytes
        row.least = (net.receptive_field - 1) * subject.frame.numel() * 4
        row.limit = asdict(Limit.of(net, subject.frame, threads, subject.period))
    if subject.clip_operations and row.limit["operations"]:
        row.operations = subject.clip_operations / (row.limit["operations"] * subject.period)


def attempt(row: Row, timed: list[Timed], name: str, make: Callable[[], Timed], without: Collection[str]) -> None:
    """A candidate, or why there is none."""
    if name in without:
        row.missing[name] = "left out"
        return
    try:
        with torch.inference_mode(False), torch.no_grad():
            timed.append(make())
    except Exception as error:  # the table goes on, and says so
        row.missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"


def late(timed: Timed) -> float:
    """The 99th percentile of single calls, in seconds a step."""
    rest()
    found, begun = [], time.perf_counter()
    while len(found) < LATENCIES and (time.perf_counter() - begun < LATENCY_SECONDS or len(found) < LEAST_LATENCIES):
        start = time.perf_counter()
        timed.call()
        found.append(time.perf_counter() - start)
    return sorted(found)[min(len(found) - 1, int(0.99 * len(found)))] / timed.steps


# ---- files and the command -----------------------------------------------------------------------------------------------


def kept(path: Path | None) -> dict[tuple[str, int], Row]:
    """Rows of earlier runs."""
    if path is None or not path.exists():
        return {}
    rows = [Row(**row) for row in json.loads(path.read_text())]
    return {(r.name, r.threads): r for r in rows}


def keep(path: Path | None, rows: Iterable[Row]) -> None:
    """Write rows where :func:`kept` finds them."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(r) for r in rows], indent=1, ensure_ascii=False))


def peaks(files: Path, threads: Sequence[int]) -> None:
    """Measure once for all rows how fast products of matrices are."""
    found = {}
    for count in threads:
        with conditions(count):
            found[str(count)] = limits.gemm_peak(count)
    (files / PEAKS).write_text(json.dumps(found))


def rows_of(args: argparse.Namespace) -> list[Row]:
    """A row in this process, for each number of threads."""
    try:
        made = Prepared(subjects()[args.name](), args.files)
    except Exception as error:
        return [failed(args.name, threads, error) for threads in args.threads]
    if (args.files / PEAKS).exists():
        limits.PEAKS.update({int(n): value for n, value in json.loads((args.files / PEAKS).read_text()).items()})
    effort = Effort(3, 0.002) if args.quick else Effort(args.rounds, 0.02)
    found, other, why = [], None, "left out"
    with ExitStack() as stack:
        if not args.no_other:
            try:
                other = stack.enter_context(OtherLibrary(install()))
            except CantRun as error:
                why = str(error)
        for threads in sorted(args.threads):
            begun = time.perf_counter()
            try:
                if other is not None:
                    other.conditions(threads)
                with conditions(threads):
                    row = measure(made, threads, effort, other, why, args.without)
            except Exception as error:  # a row that can't be measured is shown as such
                row = failed(args.name, threads, error)
            row.seconds = time.perf_counter() - begun
            found.append(row)
    return found


def failed(name: str, threads: int, error: Exception) -> Row:
    """A row without numbers, and why."""
    if isinstance(error, WrongResult):
        return Row(name, threads, error=f"wrong result: {error}")
    traceback.print_exception(error)
    return Row(name, threads, error=f"{type(error).__name__}: {str(error).splitlines()[0]}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.suite_rows", description="A row of the suite.")
    line.add_argument("name", help="of the row")
    line.add_argument("--threads", type=int, nargs="+", default=[1])
    line.add_argument("--rounds", type=int, default=9)
    line.add_argument("--quick", action="store_true", help="3 rounds of short blocks")
    line.add_argument("--no-other", action="store_true", help="leave the other library out")
    line.add_argument("--without", action="append", choices=["compiled", *RUNTIMES], default=[], help="leave a candidate out")
    line.add_argument("--files", type=Path, required=True, help="a folder for exported files")
    line.add_argument("--prepare", action="store_true", help="export and compile, and measure nothing")
    line.add_argument("--rows", type=Path, help="where rows are written")
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 1 if a row could not be measured."""
    args = parser().parse_args(argv)
    if args.prepare:
        Prepared(subjects()[args.name](), args.files).prepare(args.threads, args.without)
        return 0
    rows = rows_of(args)
    keep(args.rows, rows)
    return int(any(r.error for r in rows))


if __name__ == "__main__":
    sys.exit(main())
