"""`continual export --check`: compares a file with its network, by the contract and step by step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

import continual as co

from ..export.metadata import Metadata, Port
from ..export.runner import Runner
from ..tools.checks.compare import error, flat, tolerance_of
from ..tools.report import Report
from .clips import random
from .networks import print_report
from .stages import Stages
from .tables import pairs, show
from .target import BadInput

FIELDS = 2  # the fewest receptive fields in the clip for the contract


@dataclass(frozen=True)
class Example:
    """Random inputs for an exported network.

    Attributes:
        ports: its inputs.
        rows: number of rows of each.
        high: integers are from 0 to below it.
        generator: of the random numbers.
    """

    ports: tuple[Port, ...]
    rows: int
    high: int
    generator: torch.Generator

    def clip(self, length: int) -> Any:
        """``n`` steps of each input, a list for several."""
        clips = [self._drawn(p, length) for p in self.ports]
        return clips[0] if len(clips) == 1 else clips

    def steps(self) -> Iterator[Any]:
        """Steps without end; inputs that are not streams stay the same."""
        still = {p.name: self._drawn(p, 1) for p in self.ports if p.time is None}
        while True:
            steps = [still[p.name] if p.time is None else self._drawn(p, 1).select(p.time, 0) for p in self.ports]
            yield steps[0] if len(steps) == 1 else steps

    def _drawn(self, port: Port, length: int) -> Tensor:
        shape = list(port.sized(self.rows))
        if port.time is not None:
            shape[port.time] = length
        return random(shape, getattr(torch, port.dtype), self.high, self.generator)


@dataclass
class Clock:
    """Steps and their seconds since the first output: before it the last layers do not run."""

    steps: int = 0
    seconds: float = 0.0
    outputs: int = 0

    def take(self, call: Callable[[Any], Any], x: Any) -> Any:
        """Make a step."""
        started = time.perf_counter()
        y = call(x)
        self.seconds += time.perf_counter() - started
        self.steps += 1
        return y

    def count(self, outputs: int) -> None:
        """The number of outputs."""
        if outputs and not self.outputs:
            self.steps, self.seconds = 0, 0.0
        self.outputs += outputs

    @property
    def speed(self) -> float | None:
        """Steps per second; ``None`` without steps after the first output."""
        return self.steps / self.seconds if self.seconds else None


@dataclass
class Parity:
    """A stream through a file and through its network, from a cold start.

    Attributes:
        steps: how many.
        tolerance: of the comparison.
        compared: number of outputs.
        difference: the largest ``|a - b| / max(1, max|b|)`` of an output.
        where: it was, in words.
        file, network: counts and times of the steps.
    """

    steps: int
    tolerance: float
    compared: int = 0
    difference: float = 0.0
    where: str = ""
    file: Clock = field(default_factory=Clock)
    network: Clock = field(default_factory=Clock)

    @property
    def passed(self) -> bool:
        """Whether all outputs exist and are equal."""
        return self.compared == self.file.outputs == self.network.outputs and self.difference <= self.tolerance

    def data(self) -> dict[str, Any]:
        """As data for JSON."""
        return {
            "steps": self.steps,
            "outputs": self.network.outputs,
            "outputs_of_file": self.file.outputs,
            "largest_difference": self.difference,
            "where": self.where,
            "tolerance": self.tolerance,
            "steps_per_second": {"file": self.file.speed, "network": self.network.speed},
            "passed": self.passed,
        }

    def compare(self, got: list[Tensor], want: list[Tensor], ports: tuple[Port, ...], step: int) -> None:
        """Compare one more output of the file with that of the network."""
        for port, a, b in zip(ports, got, want, strict=True):
            off = error(a, b) if a.shape == b.shape else torch.full((1,) * b.ndim, torch.inf)
            if off.numel() and (worst := float(off.max())) > self.difference:
                at = ", ".join(str(int(i)) for i in torch.unravel_index(off.argmax(), off.shape))
                self.difference = worst
                self.where = f"{port.name}[{at}] of output {self.compared}, after step {step + 1}"
        self.compared += 1


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        report: of the contract; ``None`` for a file without ends of streams, which most checks need.
        parity: the comparison of the steps.
    """

    report: Report | None
    parity: Parity

    @property
    def passed(self) -> bool:
        """Whether the file equals the network."""
        return (self.report is None or self.report.passed) and self.parity.passed

    def data(self) -> dict[str, Any]:
        """As data for JSON."""
        contract = None if self.report is None else [asdict(check) for check in self.report.checks]
        return {"passed": self.passed, "contract": contract, "stream": self.parity.data()}

    def show(self) -> None:
        """Print both."""
        found, console = self.parity, Console()
        if self.report is None:
            console.print(Text("the contract was not checked: it needs streams that end, and this file has none (--no-flush)"))
        else:
            print_report(self.report)
        rows = {
            "outputs": f"{found.file.outputs:,} of the file, {found.network.outputs:,} of the network",
            "largest difference": f"{found.difference:.1e} of the output's largest value (allowed: {found.tolerance:.0e})",
            "there": found.where or "nowhere",
            "the file": _speed(found.file),
            "the network, eager": _speed(found.network),
        }
        show(pairs(f"{found.steps:,} steps from a cold start", rows.items()), console)
        verdict = Text("passed: the file computes what the network does", "green")
        console.print(verdict if self.passed else Text("failed: the file does not compute what the network does", "bold red"))


def _speed(clock: Clock) -> str:
    return "too few steps to say" if clock.speed is None else f"{clock.speed:,.0f} steps per second"


def check(net: Any, runner: Runner, example: Example, length: int, steps: int, seed: int, stage: Stages) -> Checked:
    """Compare a file with its network.

    Args:
        net: the network.
        runner: its file, loaded.
        example: inputs for both.
        length: steps of a clip that the network takes; the contract's is as long, and some receptive fields long at least.
        steps: to stream, as many more as a call's chunk asks for.
        seed: of the contract's checks.
        stage: shows what is going on.
    """
    report = None
    if runner.metadata.flush:
        with stage("checking the contract"):
            clip = example.clip(enough(net, length))
            report = co.verify(runner, clip, reference=net, raise_on_fail=False, seed=seed)
    count = whole(runner.metadata, steps)
    with stage("checking steps", count) as done:
        return Checked(report, stream(net, runner, example.steps(), count, done))


def enough(net: Any, length: int) -> int:
    """A length of a few receptive fields with the same remainder of the strides as the given one."""
    period = int(net.timing.period)
    return length + period * max(0, -(-(FIELDS * net.receptive_field - length) // period))


def whole(metadata: Metadata, steps: int) -> int:
    """The number of steps, rounded up to whole chunks."""
    return steps + (metadata.start - steps) % metadata.chunk


def refuse_few(net: Any, steps: int) -> None:
    """Refuse too few steps for an output.

    Raises:
        BadInput: the first output comes later.
    """
    if net.timing.delivered(steps) == 0:
        raise BadInput(f"--steps {steps}: the first output comes with step {net.delay + 1}; take more")


def stream(net: Any, runner: Runner, steps: Iterator[Any], count: int, done: Callable[[int], None]) -> Parity:
    """Stream the steps through both from a cold start and compare outputs as they come."""
    ports = runner.metadata.outputs
    found = Parity(count, tolerance_of(*(getattr(torch, p.dtype) for p in (*runner.metadata.inputs, *ports))))
    ours: deque[list[Tensor]] = deque()
    theirs: deque[list[Tensor]] = deque()
    net.clean_state()
    runner.clean_state()
    for i in range(count):
        x = next(steps)
        with torch.inference_mode():
            y = found.network.take(net.forward_step, x)
        with torch.no_grad():
            z = found.file.take(runner.forward_step, x)
        for clock, waiting, outputs in ((found.network, ours, y), (found.file, theirs, z)):
            frames = _frames(outputs, ports)
            clock.count(len(frames))
            waiting.extend(frames)
        while ours and theirs:
            found.compare(theirs.popleft(), ours.popleft(), ports, i)
        done(i + 1)
    net.clean_state()
    runner.clean_state()
    return found


def _frames(y: Any, ports: tuple[Port, ...]) -> list[list[Tensor]]:
    """The outputs of a step one by one: none, one, or several that are stacked in time."""
    if y is None:
        return []
    leaves = [
        t.unbind(p.time) if p.time is not None and t.ndim == len(p.shape) else (t,) for t, p in zip(flat(y), ports, strict=True)
    ]
    return [list(frame) for frame in zip(*leaves, strict=True)]
