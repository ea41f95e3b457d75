"""`continual run`: the frames of a source through a network, and its outputs to sinks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import typer

from .errors import one_line
from .feeds import Feed, Steps, Wanted, feed_of
from .fitting import Layout
from .live import LiveTable, Shown
from .network import Options as Network
from .network import Subject, check_rate, on_device, streaming, subject
from .outputs import ClockedOutputs, Output, Outputs
from .sinks import About, Result, Sink, refuse_all
from .sinks import opened as sink_of
from .sinks.base import duration
from .sources import check as check_source
from .tables import in_digits
from .target import BadInput, check_file
from .zoo import dumped, threads

VIDEO_RATE = 30  # frames per second of the videos that networks of the zoo were trained on
TOP = 5  # classes that are shown


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    network: Network
    source: str
    sinks: Sequence[str] = ()
    columns: str | None = None
    rate: float | None = None
    every: int | None = None
    gaps: str | None = None
    realtime: bool = False
    mean: float | None = None
    std: float | None = None
    labels: Path | None = None
    top: int | None = None
    limit: int | None = None
    end: bool = True
    threads: int | None = None
    device: str = "cpu"
    json: bool = False


@dataclass
class Tally:
    """The progress of a stream."""

    frames: int = 0
    steps: int = 0
    outputs: int = 0
    timed: int = 0  # steps since the first output, or all before it
    seconds: float = 0.0  # seconds in the network
    interrupted: bool = False

    @property
    def speed(self) -> float:
        """Steps per second of the network."""
        return self.timed / self.seconds if self.seconds else 0.0

    def count(self, steps: int, outputs: int, seconds: float) -> None:
        """Count steps. Those before the first output are faster, because the last layers do not run yet, and are not counted."""
        self.steps += steps
        self.outputs += outputs
        if outputs and outputs == self.outputs:
            self.timed, self.seconds = 0, 0.0
        self.timed += steps
        self.seconds += seconds


def run(options: Options) -> None:
    """Stream a source; the exit status is 130 after an interrupt, as in a shell."""
    broken: BrokenPipeError | None = None
    with one_line("run"):
        try:
            _run(options)
        except BrokenPipeError as error:
            broken = error
    if broken is not None:
        raise broken  # the console script ends without a message


def _run(options: Options) -> None:
    check_rate(options.rate)
    read = [p for p in (options.network.weights, options.labels) if p is not None]
    for path in read:
        check_file(path)
    check_source(options.source)
    refuse_all(options.sinks, [*read, Path(options.source)])
    with ExitStack() as stack:
        stack.enter_context(threads(options.threads))
        made = subject(options.network, "run")
        net = on_device(streaming(made, options.network), options.device)
        feed = stack.enter_context(closing(feed_of(options.source, Layout.of(net, made), _wanted(options, made))))
        for note in feed.facts.notes:
            typer.echo(f"continual run: {note}", err=True)
        stream = Stream(options, made, net, feed)
        steps = iter(feed)
        first = next(steps, None)  # a source without frames is refused before a file is written
        if first is None:
            raise BadInput(f"'{feed.facts.name}' has no frames")
        sinks = [stack.enter_context(closing(sink_of(name, stream.about()))) for name in options.sinks]
        _stream(stream, first, steps, sinks)


def _wanted(options: Options, made: Subject) -> Wanted:
    card = made.card
    own = None if made.rate is None else Fraction(made.rate).limit_denominator(10**6)
    if card is not None and card.of_video:
        own = Fraction(VIDEO_RATE, card.every or 1)
    mean = options.mean if options.mean is not None else 0.0 if card is None else card.mean
    std = options.std if options.std is not None else 1.0 if card is None else card.std
    return Wanted(options.columns, options.rate, own, options.every, options.gaps, options.realtime, mean, std)


def labels_of(path: Path, classes: int, name: str) -> list[str]:
    """The labels of a file, one per line.

    Raises:
        BadInput: it is not a text, or the number of labels is not that of the classes.
    """
    try:
        labels = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"'{path}' can't be read as text ({error})") from error
    if len(labels) != classes:
        raise BadInput(f"'{path}' has {len(labels)} labels, one a line, and {name} gives {classes} classes")
    return [label.strip() for label in labels]


@dataclass
class Stream:
    """A network on a source."""

    options: Options
    made: Subject
    net: Any
    feed: Feed
    tally: Tally = field(default_factory=Tally)
    labels: list[str] | None = None

    def __post_init__(self) -> None:
        self.outputs = self._outputs()
        self.scored = self.made.card is not None or self.options.labels is not None or self.options.top is not None
        card, path = self.made.card, self.options.labels
        if card is not None and path is not None:
            self.labels = labels_of(path, self.options.network.classes or card.classes, card.name)

    def _outputs(self) -> Outputs | ClockedOutputs:
        gaps, layout, device = self.options.gaps, self.feed.layout, _device(self.net)
        if gaps is None:
            return Outputs(self.net, layout, self.rate, device)
        if self.rate is None:
            raise BadInput(
                f"--gaps {gaps}: '{self.feed.facts.name}' does not say how many frames it has in a second: --rate says it"
            )
        return ClockedOutputs(self.net, layout, self.rate, self.feed.source_rate, gaps, device)

    @property
    def name(self) -> str:
        """The network."""
        return self.options.network.target

    @property
    def rate(self) -> float | None:
        """Steps per second of the source."""
        return None if self.feed.period is None else float(1 / self.feed.period)

    @property
    def delay(self) -> str:
        """As text."""
        steps = many(self.net.delay, "step")
        return steps if self.feed.period is None else f"{steps} = {duration(float(self.net.delay * self.feed.period))}"

    def about(self) -> About:
        """For sinks."""
        stride = self.net.stride[0] if isinstance(self.net.stride, tuple) else self.net.stride
        sees = None if getattr(self.net, "unbounded_memory", False) else int(self.net.receptive_field)
        title = f"{self.name} on {self.feed.facts.name}"
        return About(title, self.rate, float(stride), self.delay, sees, self.outputs.lookahead)

    def shown(self) -> Shown:
        """The permanent part of the display."""
        known, limit = self.feed.facts.frames, self.options.limit
        asked = None if limit is None else self.feed.frames(limit)
        total = min((n for n in (known, asked) if n is not None), default=None)
        weights = f", weights: {self._weights}" if self.made.card is not None else ""
        return Shown(f"{self.name} on {self.feed.facts.name}{weights}", self.delay, self.rate, total)

    @property
    def _weights(self) -> str:
        return "random" if self.options.network.weights is None else str(self.options.network.weights)

    def results(self, first: Steps, steps: Iterator[Steps]) -> Iterator[tuple[Steps | None, list[Result]]]:
        """Stream the steps through the network: what each brings. The last of a file brings what its end does."""
        now: Steps | None = first
        last = first
        while now is not None:
            count = len(now.steps) if self.options.limit is None else min(len(now.steps), self.options.limit - self.tally.steps)
            self.tally.frames = self.feed.seen - (len(now.steps) - count)
            yield now, self._taken(now, count)
            if self.tally.steps == self.options.limit:
                return
            last, now = now, next(steps, None)
        self.tally.frames = self.feed.seen  # including those after the last step
        runner = self.made.runner
        if self.options.end and not self.feed.facts.live and (runner is None or runner.metadata.flush):
            rest = self.outputs.finish() if self.tally.steps else []
            self.tally.outputs += len(rest)
            yield None, self._results(rest, last)

    def _taken(self, now: Steps, count: int) -> list[Result]:
        started = time.perf_counter()
        found = self.outputs.take(now.steps[:count], now.times[:count])
        if found and found[0].value.is_cuda:
            torch.cuda.synchronize(found[0].value.device)
        self.tally.count(count, len(found), time.perf_counter() - started)
        return self._results(found, now)

    def _results(self, found: list[Output], now: Steps) -> list[Result]:
        """Outputs as sinks take them: one transfer and one check for all of them."""
        if not found:
            return []
        values = torch.stack([y.value for y in found])
        if not values.isfinite().all():
            first = next(y for y in found if not y.value.isfinite().all())
            raise BadInput(f"{self.name} gives {first.value.sum().item()} at step {first.index}: its weights are not usable")
        numbers = values.cpu().float().numpy()
        tops = [self._top(value) for value in values.cpu()] if self.scored else [()] * len(found)
        parts = zip(found, numbers, tops, strict=True)
        return [Result(y.index, y.time, value, top, now.picture, y.flags) for y, value, top in parts]

    def _top(self, value: torch.Tensor) -> tuple[tuple[int, str | None, float], ...]:
        """The likeliest classes, where the outputs are scores of classes."""
        if value.ndim != 1 or len(value) < 2:
            return ()
        if self.labels is None and self.options.labels is not None:
            self.labels = labels_of(self.options.labels, len(value), self.name)
        labels = self.labels
        shares, numbers = value.double().softmax(0).topk(min(self.options.top or TOP, len(value)))
        return tuple(
            (i, None if labels is None else labels[i], p) for i, p in zip(numbers.tolist(), shares.tolist(), strict=True)
        )

    def summary(self) -> str:
        """A summary in one line."""
        tally, facts = self.tally, self.feed.facts
        said = f"{many(tally.frames, 'frame')}, {many(tally.steps, 'step')}, {many(tally.outputs, 'output')}"
        parts = [f"{self.name} on {facts.name}{' (interrupted)' if tally.interrupted else ''}: {said}"]
        if tally.steps:
            needed = "" if self.rate is None else f", {in_digits(self.rate)} needed"
            took = 1000 * tally.seconds / tally.timed
            parts.append(f"{took:.3g} ms a step = {in_digits(tally.speed)} steps per second{needed}; delay {self.delay}")
        found = {name: number for name, number in self.outputs.counters.items() if number and name not in ("frames", "outputs")}
        if found:
            parts.append(f"of them {', '.join(f'{number:,} {name}' for name, number in found.items())}")
        if self.feed.dropped:
            parts.append(f"{many(self.feed.dropped, 'frame')} dropped: the network is too slow")
        if self.feed.missed:
            parts.append(f"{many(self.feed.missed, 'step')} missed: the network or the camera is too slow")
        if not tally.outputs:
            need = self.net.delay + 1
            parts.append(f"no output: the first comes with step {need}, which needs {many(self.feed.frames(need), 'frame')}")
        known = facts.frames or 0
        if known > tally.frames + 1 and not tally.interrupted and tally.steps != self.options.limit:
            parts.append(f"the file speaks of {known:,} frames: it may be cut off")
        return "; ".join(parts)

    def data(self) -> dict[str, Any]:
        """The summary as JSON."""
        tally, period = self.tally, self.feed.period
        return {
            "network": self.name,
            "weights": self._weights if self.made.card is not None else None,
            "source": self.feed.facts.name,
            "frames": tally.frames,
            "steps": tally.steps,
            "outputs": tally.outputs,
            "dropped": self.feed.dropped,
            "missed": self.feed.missed,
            "gaps": self.outputs.counters,
            "interrupted": tally.interrupted,
            "seconds_per_step": None if period is None else float(period),
            "milliseconds_a_step": 1000 * tally.seconds / tally.timed if tally.timed else None,
            "receptive_field": self.net.receptive_field,
            "delay": self.net.delay,
            "delay_ms": None if period is None else 1000 * float(self.net.delay * period),
            "lookahead": self.outputs.lookahead,
            "notes": list(self.feed.facts.notes),
        }


def _stream(stream: Stream, first: Steps, steps: Iterator[Steps], sinks: Sequence[Sink]) -> None:
    options, tally = stream.options, stream.tally
    to_stdout = "-" in options.sinks
    with LiveTable(stream.shown(), quiet=to_stdout or options.json) as table:
        try:
            for now, results in stream.results(first, steps):
                for sink in sinks:
                    if now is not None and now.signal is not None:
                        sink.saw(now.signal, now.times)
                for result in results:
                    for sink in sinks:
                        sink.write(result)
                table.show(tally.frames, tally.steps, tally.speed, results[-1] if results else None)
        except KeyboardInterrupt:
            tally.interrupted, tally.frames = True, stream.feed.seen
        table.show(tally.frames, tally.steps, tally.speed, None)
    if not options.sinks:
        table.last()
    if options.json:
        typer.echo(dumped(stream.data()), err=to_stdout)
    typer.echo(f"continual run: {stream.summary()}", err=True)
    if tally.interrupted and not stream.feed.facts.live:
        raise typer.Exit(130)


def _device(net: Any) -> torch.device:
    parameters = net.parameters() if hasattr(net, "parameters") else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def many(number: int, what: str) -> str:
    """A number of things, such as ``1 step`` and ``2 steps``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
