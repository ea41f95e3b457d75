"""8-bit networks in runtimes: how long a step takes, and what it costs in accuracy. A table of docs/performance.md.

    python -m benchmarks.quantised [--only kws] [--rounds N] [--markdown docs/performance.md]

onnxruntime runs our int8 exports, OpenVINO the same static file, ExecuTorch its own. Each network has a process of its own. One thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co
from continual.export.executorch import read as read_executorch
from continual.export.runner import Runner

from . import report
from .candidates import RUNTIMES, compiled, outputs_of
from .other_library import REPOSITORY
from .runtimes import written
from .subjects import Subject, of_workload, of_zoo
from .suite_rows import Prepared
from .timing import Local, alternate, conditions
from .workloads import WORKLOADS

# By name: how it is built, and how many outputs are compared. Measuring the ranges of large frames takes minutes.
NETWORKS: dict[str, tuple[Callable[[], Subject], int]] = {
    "kws_ds_cnn": (partial(of_zoo, "kws_ds_cnn"), 200),
    "TCN of 8 × Conv1d 64 k3": (partial(of_workload, next(w for w in WORKLOADS if w.name.startswith("TCN of 8"))), 200),
    "cox3d_s, 64²": (partial(of_zoo, "cox3d_s", input_size=64), 16),
}
SECONDS = 8.0  # of the rounds of a network, after the first three
HEADER = ["network", "form", "µs a step", "over ours", "8-bit weights", "relative error", "same class"]
LEGEND = """\
*ours*: the compiled step in float32, which all others are compared with; *over ours*: the time over its time, taken within each round.
*static*: ranges measured on a clip of random frames, *dynamic*: in each call. *8-bit weights*: their share. *relative error*: the root of
the mean square of the difference on other random frames, over that of the outputs. *same class*: the share of outputs with the same
largest value; the networks are untrained, so the error says more. OpenVINO runs the static file of onnxruntime."""


@dataclass
class Form:
    """A network in a runtime: seconds a step, ratio to ours, share of 8-bit weights, error and agreement; or why not."""

    name: str
    seconds: float = 0.0
    ratio: float = 1.0
    share: float = 0.0
    error: float = 0.0
    agreement: float = 1.0
    failed: str = ""

    def cells(self, network: str) -> list[str]:
        """For a table."""
        if self.failed:
            return [network, self.name, *["–"] * 5]
        return [
            network, self.name, report.number(1e6 * self.seconds), f"{self.ratio:.2f}×", f"{100 * self.share:.0f} %",
            f"{self.error:.1e}", f"{100 * self.agreement:.1f} %",
        ]  # fmt: skip


@dataclass
class Opened:
    """Something that can be timed: a call of ``steps`` steps, its outputs on the clip, and what has to stay in memory."""

    call: Callable[[], Any]
    steps: int
    outputs: Tensor
    share: float = 0.0
    keeps: list[Any] = field(default_factory=list)


class Files:
    """The exports of a subject, for a clip on which ranges are measured and another one on which outputs are compared."""

    def __init__(self, subject: Subject, folder: Path, outputs: int):
        self.made, self.folder = Prepared(subject, folder), folder
        net, frame = self.made.best, subject.frame
        steps = net.delay + 1 + (outputs - 1) * int(net.step_size)
        generator = torch.Generator().manual_seed(7)
        self.ranges, self.clip = (torch.randn(1, frame.shape[1], steps, *frame.shape[2:], generator=generator) for _ in range(2))
        self.wanted = outputs_of(net, self.clip)

    def ours(self) -> Opened:
        """The compiled program."""
        subject = self.made.subject
        timed = compiled(self.made.best, subject, self.made.wanted)
        return Opened(timed.call, timed.steps, self.wanted)

    def onnx(self, runtime: str, int8: str | None = None) -> Opened:
        """Our ONNX export in a runtime, the faster of its ways."""
        path = self.folder / f"{int8}.onnx"
        if not path.exists():
            options = {} if int8 is None else {"int8": int8, "calibration": self.ranges}
            written(self.made.best, self.made.subject.frame, path, **options)
        ways = RUNTIMES[runtime](path, 1)
        best = alternate([Local(n, way.call) for n, way in ways.items()], 3).fastest(list(ways))
        opened = RUNTIMES[runtime](path, 1)[best]  # from a cold start
        quantised = opened.file.quantised or {"share": 0.0}
        return Opened(opened.call, opened.file.chunk, opened.outputs(self.clip), quantised["share"], [opened])

    def executorch(self, int8: str | None = None) -> Opened:
        """ExecuTorch's own export."""
        path, frame = self.folder / f"{int8}.pte", self.made.subject.frame
        options: dict[str, Any] = {} if int8 is None else {"int8": int8, "calibration": self.ranges}
        co.export(self.made.best, frame, path, format="executorch", flush=False, batch=1, **options)
        file, opened = read_executorch(path, 1)
        streams, x = opened(1), file.inputs[0].zeros(1)
        found = Runner(file, opened).forward_steps(self.clip)
        return Opened(lambda: streams.call([x], 0), file.chunk, found, (file.quantised or {"share": 0.0})["share"])


def forms(files: Files) -> dict[str, Callable[[], Opened]]:
    """All forms of a network by name."""
    return {
        "ours, float32": files.ours,
        "onnxruntime, float32": lambda: files.onnx("onnxruntime"),
        "onnxruntime, dynamic": lambda: files.onnx("onnxruntime", "dynamic"),
        "onnxruntime, static": lambda: files.onnx("onnxruntime", "static"),
        "OpenVINO, float32": lambda: files.onnx("openvino"),
        "OpenVINO, static": lambda: files.onnx("openvino", "static"),
        "ExecuTorch, float32": files.executorch,
        "ExecuTorch, static": lambda: files.executorch("static"),
    }


def compared(name: str, found: Tensor, wanted: Tensor, form: Form) -> None:
    """Fill in the cost in accuracy."""
    if not 0 < found.shape[2] <= wanted.shape[2]:
        raise ValueError(f"{name}: {found.shape[2]} outputs where the network has {wanted.shape[2]}")
    wanted = wanted[:, :, : found.shape[2]]
    form.error = float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
    form.agreement = float((found.argmax(1) == wanted.argmax(1)).double().mean())


def measured(subject: Subject, outputs: int, rounds: int) -> list[Form]:
    """All forms of a network."""
    found, opened = [], {}
    with tempfile.TemporaryDirectory() as folder, conditions(1):
        with torch.inference_mode(False), torch.no_grad():
            files = Files(subject, Path(folder), outputs)
            for name, make in forms(files).items():
                form = Form(name)
                try:
                    opened[name] = make()
                    compared(name, opened[name].outputs, files.wanted, form)
                    form.share = opened[name].share
                except Exception as error:  # the table goes on, and says so
                    form.failed = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    opened.pop(name, None)
                found.append(form)
        timings = alternate([Local(n, o.call) for n, o in opened.items()], rounds, seconds=SECONDS)
    ours = found[0].name
    for form in found:
        if not form.failed:
            steps = opened[form.name].steps
            form.seconds = timings.stats(form.name).median / steps
            form.ratio = timings.ratio(form.name, ours).median * opened[ours].steps / steps
    return found


def alone(name: str, rounds: int) -> list[Form]:
    """A network in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.quantised", "--one", name, "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    if done.returncode or not lines:
        return [Form("all", failed=f"its process ended with status {done.returncode}")]
    return [Form(**form) for form in json.loads(lines[-1])]


def page(machine: report.Machine, rows: dict[str, list[Form]]) -> str:
    """The part of the page."""
    table = report.markdown_table(HEADER, [form.cells(name) for name, own in rows.items() for form in own])
    notes = "\n".join(f"- {name}: {form.name}: {form.failed}" for name, own in rows.items() for form in own if form.failed)
    return "\n\n".join([f"Measured: {machine}; 1 thread, batch 1.", LEGEND, table, *([notes] if notes else [])])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 1 if a network could not be measured at all."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.quantised", description="8-bit networks: time and accuracy.")
    line.add_argument("--only", default="", help="networks with this in their names")
    line.add_argument("--rounds", type=int, default=9, help="rounds that count")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'int8' of a page")
    line.add_argument("--one", choices=list(NETWORKS), help=argparse.SUPPRESS)
    args = line.parse_args(argv)
    if args.one:
        build, outputs = NETWORKS[args.one]
        print(json.dumps([asdict(f) for f in measured(build(), outputs, args.rounds)]))
        return 0
    chosen = [name for name in NETWORKS if args.only in name]
    rows = {}
    with report.progress(len(chosen), "8 bits:") as advance:
        for name in chosen:
            advance(name)
            rows[name] = alone(name, args.rounds)
    text = page(report.Machine.here(), rows)
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "int8", text)
    return int(any(form.name == "all" for own in rows.values() for form in own))


if __name__ == "__main__":
    sys.exit(main())
