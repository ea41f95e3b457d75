"""`continual export`: a network as a file that streams without this library, and the check that it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import typer

import continual as co

from ..export.api import check_path
from . import networks
from .artefact import data_of, format_of, show
from .bench import alive
from .clips import highest
from .networks import Subject, check_rate, one_line, step_of, streaming, subject
from .parity import Checked, Example, check, refuse_few
from .stages import Stages
from .target import BadInput, check_file
from .zoo import built, dumped, say_random

STEPS = 1000


@dataclass(frozen=True)
class Options:
    """The options of the command.

    Attributes:
        network: the network and its example.
        classes, input_size, pretrained: for a network of the zoo.
        steps: number for the check; ``None`` without a check.
    """

    network: networks.Options
    path: Path
    format: str | None = None
    chunk: int | None = None
    batch: int | None = None
    flush: bool = True
    rate: float | None = None
    classes: int | None = None
    input_size: int | None = None
    pretrained: Path | None = None
    check: bool = False
    steps: int | None = None
    json: bool = False

    @property
    def of_zoo(self) -> bool:
        """Whether the network is in the zoo."""
        return ":" not in self.network.target


def export(options: Options) -> None:
    """Write the file, describe it, and check it if requested; status 1 if the check fails."""
    with one_line("export"):
        format = _refused(options)
        made = _of_zoo(options) if options.of_zoo else subject(options.network, "export")
        with Stages() as stage:
            with stage("converting"):
                net = streaming(made, options.network)
            step, length = step_of(net, made.clips)
            if options.check:
                refuse_few(net, options.steps or STEPS)
            with stage("compiling" if format == "pt2" else f"exporting to {format}"):
                _write(options, net, step, format)
            with stage("loading"):
                runner = co.load(options.path)
            checked = _check(options, made, net, runner, length, stage) if options.check else None
        _show(options, runner, checked)
        if checked is not None and not checked.passed:
            raise typer.Exit(1)


def _refused(options: Options) -> str:
    """The format. Bad options are refused before the export, which takes minutes."""
    own, target = options.network, options.network.target
    format = format_of(options.path, options.format)
    check_path(options.path)
    check_rate(options.rate)
    if options.steps is not None and not options.check:
        raise BadInput(f"--steps {options.steps} is for --check")
    of_own: dict[str, Any] = {"--clip": own.clips, "--arg": own.arguments, "--dtype": own.dtypes, "--high": own.high}
    of_own |= {"--time-dim": own.time_dim, "--time-pooling": own.time_pooling}
    of_zoo: dict[str, Any] = {
        "--classes": options.classes,
        "--input-size": options.input_size,
        "--pretrained": options.pretrained,
    }
    wrong = [name for name, value in (of_own if options.of_zoo else of_zoo).items() if value not in (None, [])]
    if wrong:
        whose = "networks of your own (package.module:factory)" if options.of_zoo else "networks of the zoo"
        raise BadInput(f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for {whose}, and '{target}' is none")
    if not options.of_zoo and not own.clips:
        raise BadInput(f"{target} needs an example: --clip with its sizes, such as 1,3,16,112,112 (batch, channels, time, space)")
    return format


def _of_zoo(options: Options) -> Subject:
    if options.pretrained is not None:
        check_file(options.pretrained)
    pretrained = None if options.pretrained is None else str(options.pretrained)
    net = built(options.network.target, options.classes, options.input_size, pretrained)
    if pretrained is None:
        alive(net)  # otherwise its outputs vanish, and the check proves nothing
        say_random("export")
    return Subject(net, [torch.zeros(1, net.step_shape[0], 1, *net.step_shape[1:])])


def _write(options: Options, net: Any, step: Any, format: str) -> None:
    rate = options.rate if options.rate is not None or not options.of_zoo else net.card.rate
    try:
        co.export(
            net,
            step,
            options.path,
            format=cast(Any, format),
            chunk=options.chunk,
            batch=options.batch,
            flush=options.flush,
            rate=rate,
        )
    except ValueError as error:
        if options.chunk is None or isinstance(error, co.ContinualError):
            raise
        raise BadInput(f"--chunk {options.chunk}: {str(error).removeprefix('co.export: ')}") from error


def _check(options: Options, made: Subject, net: Any, runner: Any, length: int, stage: Stages) -> Checked:
    metadata, seed = runner.metadata, options.network.seed
    rows = next(c.shape[p.batch] for c, p in zip(made.clips, metadata.inputs, strict=True) if p.batch is not None)
    high = options.network.high or highest(made.net)
    example = Example(metadata.inputs, metadata.batch or rows, high, torch.Generator().manual_seed(seed))
    return check(net, runner, example, length, options.steps or STEPS, seed, stage)


def _show(options: Options, runner: Any, checked: Checked | None) -> None:
    if options.json:
        found = data_of(options.path, runner.metadata)
        typer.echo(dumped(found if checked is None else found | {"check": checked.data()}))
        return
    show(options.path, runner.metadata)
    if checked is not None:
        checked.show()
