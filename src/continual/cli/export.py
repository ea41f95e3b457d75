"""`continual export`: a network as a file that streams without this library, and the check that it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import typer

import continual as co

from ..export.api import check_path
from . import network
from .artefact import data_of, format_of, show
from .clips import highest
from .errors import one_line
from .network import Subject, check_rate, refuse_files, step_of, streaming, subject
from .parity import Checked, Example, check, refuse_few
from .stages import Stages
from .target import BadInput
from .zoo import dumped

STEPS = 1000


@dataclass(frozen=True)
class Options:
    """The options of the command.

    Attributes:
        network: the network and its example.
        steps: number for the check; ``None`` without a check.
    """

    network: network.Options
    path: Path
    format: str | None = None
    chunk: int | None = None
    batch: int | None = None
    flush: bool = True
    rate: float | None = None
    check: bool = False
    steps: int | None = None
    json: bool = False


def export(options: Options) -> None:
    """Write the file, describe it, and check it if requested; status 1 if the check fails."""
    with one_line("export"):
        format = _refused(options)
        made = subject(options.network, "export")
        with Stages() as stage:
            with stage("converting"):
                net = streaming(made, options.network)
            step, length = step_of(net, made.clips)
            if options.check:
                refuse_few(net, options.steps or STEPS)
            with stage("compiling" if format == "pt2" else f"exporting to {format}"):
                _write(options, made, net, step, format)
            with stage("loading"):
                runner = co.load(options.path)
            checked = _check(options, made, net, runner, length, stage) if options.check else None
        _show(options, runner, checked)
        if checked is not None and not checked.passed:
            raise typer.Exit(1)


def _refused(options: Options) -> str:
    """The format. Bad options are refused before the export, which takes minutes."""
    refuse_files(options.network, "can't be written in another format")
    options.network.refuse_foreign()
    format = format_of(options.path, options.format)
    check_path(options.path)
    check_rate(options.rate)
    if options.steps is not None and not options.check:
        raise BadInput(f"--steps {options.steps} is for --check")
    return format


def _write(options: Options, made: Subject, net: Any, step: Any, format: str) -> None:
    try:
        co.export(
            net,
            step,
            options.path,
            format=cast(Any, format),
            chunk=options.chunk,
            batch=options.batch,
            flush=options.flush,
            rate=made.rate if options.rate is None else options.rate,
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
