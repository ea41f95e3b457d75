"""Converted networks: ``python -m benchmarks.conversion`` converts those of the tests in sizes of practice, checks and times them."""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.convert.networks import Case, made
from tests.convert.streaming import as_windows, stream

from . import report
from .measure import TOLERANCE, Effort
from .timing import Local, Stats, Timings, alternate, conditions

SIZES: dict[str, dict[str, Any]] = {
    "r3d_18": {"frames": 16, "size": 112, "classes": 400},
    "r2plus1d_18": {"frames": 16, "size": 112, "classes": 400},
    "resnet18_per_frame": {"frames": 16, "size": 112, "classes": 400},
    "shift_network": {"frames": 16, "size": 56, "channels": 64, "depth": 4},
    "shift_in_place": {"frames": 8, "size": 112, "channels": 64, "depth": 4, "classes": 400},
    "tcn_causal": {"frames": 1024, "inputs": 32, "channels": (64,) * 8},
    "tcn_centered": {"frames": 1024, "inputs": 32, "channels": (64,) * 8},
    "letters": {"frames": 400, "features": 40, "channels": 250},
    "conv_lstm": {"frames": 200, "features": 80, "channels": 256, "hidden": 256, "classes": 29},
    "wavenet": {"frames": 4096, "inputs": 16, "channels": 32, "skips": 128, "layers": 10},
    "spectrogram_unet": {"frames": 128, "bins": 128, "channels": 16},
    "raw_audio": {"frames": 1600, "channels": 64},
    "skeleton_graph": {"frames": 64, "channels": 64, "joints": 25, "classes": 60},
    "skeleton_graph_given": {"frames": 64, "channels": 64, "joints": 25, "classes": 60},
    "gru_classifier": {"frames": 100, "inputs": 64, "hidden": 128},
    "causal_transformer": {"frames": 128, "channels": 256, "heads": 4, "depth": 4},
}

HEADER = [
    "network",
    "clip",
    "converted in, s",
    "largest difference",
    "window",
    "outputs every",
    "step, µs",
    "window, µs",
    "window / step",
    "at the same rate",
]
LEGEND = """\
*converted in*: `co.continual(module, clip)`, its check against the module included. *largest difference*: of the stream's outputs on
the clip from the module's, relative to the largest of these, over steps and random chunks. *step*: `forward_step`, the mean over a
period of outputs. *window*: the module on as many frames as an output depends on (its receptive field; for outputs of a whole clip,
for causal attention and behind recurrent layers the clip), once: what a step costs without us, the buffer not counted. *at the same
rate*: the same where the window is recomputed only once for each period of outputs, which are those that the stream gives. Batch 1,
float32, `torch.inference_mode`, denormals flushed; medians of alternating runs, ratios taken within each."""


@dataclass
class Converted:
    """What was measured of one network; times in seconds.

    Attributes:
        clip: shapes of the example.
        conversion: seconds that it took.
        difference: the largest of streamed outputs from the module's, relative to the largest of these.
        window: frames of which the module is recomputed.
        every: input steps for each output.
        period: steps after which the pattern of outputs repeats.
        step, whole: a step, and the module on a window.
        ratio: the module's time over ours.
        error: why there are no numbers.
    """

    name: str
    threads: int
    clip: str = ""
    conversion: float = 0.0
    difference: float = 0.0
    window: int = 0
    every: float = 1
    period: int = 1
    step: Stats | None = None
    whole: Stats | None = None
    ratio: Stats | None = None
    error: str = ""

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        if self.error or self.step is None or self.whole is None or self.ratio is None:
            return [self.name, self.clip, self.error or "not measured", *["–"] * (len(HEADER) - 3)]
        times = (report.number(1e6 * stats.median) for stats in (self.step, self.whole))
        ratios = (f"{report.number(self.ratio.median / n)}×" for n in (1, self.period))
        numbers = (f"{self.conversion:.1f}", f"{self.difference:.0e}", str(self.window), f"{self.every:g}")
        return [self.name, self.clip, *numbers, *times, *ratios]


def difference(case: Case, net: Any, seed: int = 0) -> float:
    """The largest of streamed outputs from the module's on the example, over single steps and random chunks.

    Raises:
        ArithmeticError: outputs of another number or shape, or that differ by more than float32 can excuse.
    """
    rng = random.Random(seed)
    out_times = case.out_time if isinstance(case.out_time, tuple) else (case.out_time,)
    want = as_windows(case.run(), out_times)
    sizes = [1] * case.frames + [0]
    mixed: list[int] = []
    while (left := case.frames - sum(mixed)) > 0:
        mixed.append(min(left, rng.choice((1, 1, 2, 5, max(1, case.frames // 4)))))
    found: list[float] = []
    for plan in (sizes, [*mixed, 0]):
        got, _ = stream(net, case.inputs, case.time_dims, out_times, plan, lambda: True)
        if got is None or [y.shape for y in got] != [y.shape for y in want]:
            raise ArithmeticError(f"outputs {None if got is None else [tuple(y.shape) for y in got]}, not as the module's")
        found += [float((a - b).abs().max()) / max(1.0, float(b.abs().max())) for a, b in zip(got, want, strict=True)]
    net.clean_state()
    wrong = [off for off in found if not off <= TOLERANCE]  # NaN is not equal
    if wrong:
        raise ArithmeticError(f"differs from the module by {max(wrong):.1e}, allowed are {TOLERANCE:.0e}")
    return max(found)


def window_of(case: Case, net: Any) -> int:
    """Frames of which a user recomputes the module for an output."""
    if not case.any_length or net.unbounded_memory:
        return case.frames
    return -(-net.receptive_field // case.multiple) * case.multiple


def steps_of(case: Case, net: Any) -> tuple[Callable[[], None], int]:
    """A period of steps in mid-stream, and how many they are."""
    period, step = net.timing.period, net.forward_step
    frames = [x if d is None else x.select(d, 0).clone() for x, d in zip(case.inputs, case.time_dims, strict=True)]
    for _ in range(net.timing.transient + net.delay):
        step(*frames)

    def run() -> None:
        for _ in range(period):
            step(*frames)

    return run, period


def measure(name: str, threads: int, effort: Effort, sizes: dict[str, Any] | None = None) -> Converted:
    """Convert, check and time one network, under :func:`benchmarks.timing.conditions`.

    Args:
        name: of the network.
        threads: how many are set; for the record.
        effort: how long.
        sizes: of the network; those of :data:`SIZES` by default.
    """
    row = Converted(name, threads)
    with torch.inference_mode(False):  # ordinary parameters, as in a network that was loaded before
        case = made(name, batch=1, **(SIZES[name] if sizes is None else sizes))
        row.clip = ", ".join(str(tuple(x.shape)) for x in case.inputs)
        start = time.perf_counter()
        try:
            net = case.convert()
        except Exception as error:  # the table goes on
            row.error = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            return row
        row.conversion = time.perf_counter() - start
    try:
        row.difference = difference(case, net)
    except ArithmeticError as error:
        row.error = f"wrong result: {error}"
        return row
    row.window, row.every = window_of(case, net), float(net.timing.stride)
    window = tuple(x.clone() for x in case.clips(row.window))
    run, row.period = steps_of(case, net)

    def whole() -> Tensor:
        y: Tensor = case.module(*window)
        return y

    timings = alternate([Local("step", run), Local("window", whole)], effort.rounds, effort.min_block)
    per_step = Timings({"step": [t / row.period for t in timings.rounds["step"]], "window": timings.rounds["window"]})
    row.step, row.whole, row.ratio = per_step.stats("step"), per_step.stats("window"), per_step.ratio("window", "step")
    return row


def markdown(machine: report.Machine, rows: Sequence[Converted]) -> str:
    """The table, as the part of a page."""
    parts = [f"Measured: {machine}.", LEGEND]
    for threads in sorted({row.threads for row in rows}):
        body = [row.cells for row in rows if row.threads == threads]
        parts += [f"### {report.plural(threads, 'thread')}", report.markdown_table(HEADER, body)]
    return "\n\n".join(parts)


def choose(pattern: str | None) -> list[str]:
    """Networks by a part of the name or a shell pattern."""
    return [name for name in SIZES if not pattern or pattern in name or fnmatch(name, pattern)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description="Converted networks: exactness and speed.")
    line.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="intra-op threads (default: 1)")
    line.add_argument("--only", metavar="PATTERN", help="networks by a part of the name or a shell pattern")
    line.add_argument("--rounds", type=int, metavar="N", help=f"rounds of each comparison (default: {Effort().rounds})")
    line.add_argument("--quick", action="store_true", help="3 rounds of short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'conversion' of a page")
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the table in Markdown; return 1 if a network could not be converted or was wrong."""
    args = parser().parse_args(argv)
    if (args.rounds is not None and args.rounds < 1) or min(args.threads) < 1:
        parser().error("--rounds and --threads are at least 1")
    names = choose(args.only)
    if not names:
        parser().error(f"no network matches {args.only!r}; there are: {', '.join(SIZES)}")
    effort = Effort(3, 0.002) if args.quick else Effort()
    effort = Effort(args.rounds or effort.rounds, effort.min_block)
    rows: list[Converted] = []
    with report.progress(len(names) * len(args.threads)) as advance:
        for threads in args.threads:
            for name in names:
                advance(f"{name}, {report.plural(threads, 'thread')}")
                with conditions(threads):
                    rows.append(measure(name, threads, effort))
    text = markdown(report.Machine.here(), rows)
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "conversion", text)
    return int(any(row.error for row in rows) or any(math.isnan(row.difference) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
