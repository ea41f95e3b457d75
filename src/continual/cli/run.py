"""`continual run`: the frames of a video through a network of the zoo, one by one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

import continual as co

from ..models import Model, ModelCard
from .live import Facts, Lines, LiveTable, Prediction
from .networks import one_line
from .target import BadInput, check_file
from .video import Picker, Picture, Video, frames_for, prepared
from .zoo import built, card_of, say_random, threads

RATE = 30  # frames per second of the training videos


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    model: str
    video: str
    pretrained: Path | None = None
    labels: Path | None = None
    classes: int | None = None
    input_size: int | None = None
    every: int | None = None
    out: str | None = None
    limit: int | None = None
    top: int = 5
    threads: int | None = None
    device: str = "cpu"


@dataclass
class Tally:
    """The progress of a stream."""

    frames: int = 0
    steps: int = 0
    predictions: int = 0
    timed: int = 0  # steps since the first prediction, or all before it
    seconds: float = 0.0  # seconds in the network
    interrupted: bool = False

    @property
    def speed(self) -> float:
        """Steps per second of the network."""
        return self.timed / self.seconds if self.seconds else 0.0

    def count(self, predicted: bool, seconds: float) -> None:
        """Count a step. Steps before the first prediction are faster, because the last layers do not run yet, and are not counted."""
        self.steps += 1
        self.predictions += predicted
        if predicted and self.predictions == 1:
            self.timed, self.seconds = 0, 0.0
        self.timed += 1
        self.seconds += seconds


def run(options: Options) -> None:
    """Stream a video; the exit status is 130 after an interrupt, as in a shell."""
    broken: BrokenPipeError | None = None
    with one_line("run"):
        try:
            _run(options)
        except BrokenPipeError as error:
            broken = error
    if broken is not None:
        raise broken  # the console script ends without a message


def _run(options: Options) -> None:
    card = video_card(options.model)
    classes = options.classes or card.classes
    read = [p for p in (options.pretrained, options.labels) if p is not None]
    for path in read:
        check_file(path)
    labels = None if options.labels is None else labels_of(options.labels, classes, card.name)
    Lines.refuse(options.out, [*read, Path(options.video)])
    with ExitStack() as stack:
        stack.enter_context(threads(options.threads))
        net = _net(options)
        video = stack.enter_context(Video(options.video))
        pictures = video.pictures()
        first = next(pictures)  # a video without frames is refused before other messages
        if options.pretrained is None:
            say_random("run")
        lines = stack.enter_context(closing(Lines(options.out)))
        _stream(Stream(options, net, video, itertools.chain([first], pictures), labels), lines)


def video_card(name: str) -> ModelCard:
    """The card of a network for video.

    Raises:
        BadInput: there is no such network, or it is not for video.
    """
    card = card_of(name)
    if not card.of_video:
        which = ", ".join(n for n in co.models.list() if co.models.describe(n).of_video)
        raise BadInput(f"{name} takes {card.takes}, no video; these take videos: {which}")
    return card


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
        raise BadInput(
            f"'{path}' has {len(labels)} labels, one a line, and {name} gives {classes} classes (--classes changes it)"
        )
    return [label.strip() for label in labels]


def _net(options: Options) -> Model:
    pretrained = None if options.pretrained is None else str(options.pretrained)
    net = built(options.model, options.classes, options.input_size, pretrained)
    try:
        return net.to(torch.device(options.device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        first = str(error).strip().splitlines()[0]
        raise BadInput(f"--device {options.device}: can't be used ({first})") from error


@dataclass
class Stream:
    """A network on a video.

    Attributes:
        period: seconds from one step to the next.
        picker: which frames are steps.
    """

    options: Options
    net: Model
    video: Video
    pictures: Iterator[Picture]
    labels: list[str] | None

    def __post_init__(self) -> None:
        every, rate = self.options.every, self.video.rate
        self.period = Fraction(self.net.card.every or 1, RATE) if every is None else every / rate
        self.picker = Picker(self.period, every, self.video.live)

    @property
    def weights(self) -> str:
        """The source of the weights."""
        return "random" if self.options.pretrained is None else str(self.options.pretrained)

    @property
    def delay(self) -> str:
        """As text."""
        return f"{_many(self.net.delay, 'step')} = {float(self.net.delay * self.period):.2f} s"

    def header(self) -> dict[str, Any]:
        """The first line of JSON."""
        return {
            "model": self.net.card.name,
            "receptive_field": self.net.receptive_field,
            "delay": self.net.delay,
            "seconds_per_step": float(self.period),
            "weights": self.weights,
        }

    def frames(self, steps: int) -> int:
        """The fewest frames of a video that give the steps."""
        return frames_for(steps - 1, self.period, self.options.every, self.video.rate)

    def facts(self) -> Facts:
        """The permanent part of the display."""
        known, limit = self.video.frames, self.options.limit
        asked = None if limit is None else self.frames(limit)
        total = min((n for n in (known, asked) if n is not None), default=None)
        title = f"{self.net.card.name} on {self.video.name}, weights: {self.weights}"
        return Facts(title, self.delay, float(1 / self.period), total)

    def predictions(self, tally: Tally) -> Iterator[Prediction | None]:
        """Stream the frames through the network: the prediction after each step, or ``None``."""
        net, card, device = self.net, self.net.card, next(self.net.parameters()).device
        size = net.step_shape[-1]
        for picture in self.picker(self._counted(tally)):
            with torch.inference_mode():
                step = prepared(picture.frame, size, card.mean, card.std).to(device)
                started = time.perf_counter()
                logits = net.forward_step(step)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                tally.count(logits is not None, time.perf_counter() - started)
            yield None if logits is None else self._prediction(logits, tally.steps - 1, picture)
            if tally.steps == self.options.limit:
                return

    def _counted(self, tally: Tally) -> Iterator[Picture]:
        for picture in self.pictures:
            tally.frames = picture.index + 1
            yield picture

    def _prediction(self, logits: Tensor, step: int, picture: Picture) -> Prediction:
        if not logits.isfinite().all():
            raise BadInput(f"{self.net.card.name} gives {logits.sum().item()} after step {step}: its weights are not usable")
        shares, numbers = logits[0].double().softmax(0).topk(min(self.options.top, logits.shape[1]))
        labels = self.labels
        top = ((i, None if labels is None else labels[i], p) for i, p in zip(numbers.tolist(), shares.tolist(), strict=True))
        return Prediction(step, picture.index, float(picture.time), tuple(top))

    def summary(self, tally: Tally) -> str:
        """A summary in one line."""
        said = f"{_many(tally.frames, 'frame')}, {_many(tally.steps, 'step')}, {_many(tally.predictions, 'prediction')}"
        parts = [f"{self.net.card.name} on {self.video.name}{' (interrupted)' if tally.interrupted else ''}: {said}"]
        if tally.steps:
            took = 1000 * tally.seconds / tally.timed
            needed = float(1 / self.period)
            parts.append(f"{took:.1f} ms a step = {tally.speed:.1f} steps per second, {needed:.4g} needed; delay {self.delay}")
        if self.picker.missed:
            parts.append(f"{_many(self.picker.missed, 'step')} missed: the network or the camera is too slow")
        if not tally.predictions:
            need = self.net.delay + 1
            parts.append(f"no prediction: the first comes with step {need}, which needs {_many(self.frames(need), 'frame')}")
        known = self.video.frames or 0
        if known > tally.frames + 1 and not tally.interrupted and tally.steps != self.options.limit:
            parts.append(f"the file speaks of {known} frames: it may be cut off")
        return "; ".join(parts)


def _stream(stream: Stream, lines: Lines) -> None:
    out, tally = stream.options.out, Tally()
    lines.write(stream.header())
    with LiveTable(stream.facts(), quiet=out == "-") as table:
        try:
            for prediction in stream.predictions(tally):
                if prediction is not None:
                    lines.write(prediction.data())
                table.show(tally.frames, tally.steps, tally.speed, prediction)
        except KeyboardInterrupt:
            tally.interrupted = True
        table.show(tally.frames, tally.steps, tally.speed, None)  # including the frames after the last step
    if out is None:
        table.last()
    typer.echo(f"continual run: {stream.summary(tally)}", err=True)
    if tally.interrupted and not stream.video.live:
        raise typer.Exit(130)


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
