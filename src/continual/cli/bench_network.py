"""`continual bench`: a step of any network in each form that runs here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import continual as co

from ..tools.bench.forms import NAMES
from . import networks
from .bench import alive
from .target import BadInput, check_file
from .zoo import built

ENDINGS = (".png", ".pdf", ".svg")


def check(forms: list[str], out: Path | None) -> None:
    """Refuse options before anything is measured.

    Raises:
        BadInput: an unknown form, or a picture that can't be saved there.
    """
    if unknown := [name for name in forms if name not in NAMES]:
        raise BadInput(f"--form {unknown[0]}: give {', '.join(NAMES)}")
    if out is not None and (out.suffix.lower() not in ENDINGS or not out.absolute().parent.is_dir()):
        raise BadInput(f"can't save as '{out}': give a file in a folder that is there, ending in {', '.join(ENDINGS)}")


def bench(options: networks.Options, given: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Find the network, measure, print the table or JSON, and save the picture."""
    with networks.one_line("bench"):
        networks.check_rate(given["rate"])
        check(given["forms"] or [], out)
        net, step, rate = _subject(options)
        name = None if ":" in options.target else Path(options.target).name
        given |= {"rate": given["rate"] or rate, "name": name}
        measure(net, step, {key: value for key, value in given.items() if value is not None}, out, as_json)


def _subject(options: networks.Options) -> tuple[Any, Any, float | None]:
    """The network, a step of it, and its rate if that is known."""
    if ":" in options.target:
        made = networks.subject(options, "bench")
        net = networks.streaming(made, options)
        return net, networks.step_of(net, made.clips)[0], None
    if options.conversion or options.clips or options.arguments:
        raise BadInput("--clip, --arg and the options of a conversion are for networks of your own (package.module:factory)")
    if Path(options.target).suffix:
        check_file(Path(options.target))
        runner: Any = co.load(options.target)
        inputs = [port.zeros(runner.batch or 1) for port in runner.metadata.inputs]
        steps = [
            x if port.time is None else x.select(port.time, 0) for x, port in zip(inputs, runner.metadata.inputs, strict=True)
        ]
        return runner, steps[0] if len(steps) == 1 else steps, runner.rate
    zoo: Any = alive(built(options.target, None, None)).eval()
    return zoo, torch.zeros(1, *zoo.step_shape), zoo.card.rate


def measure(net: Any, step: Any, options: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Measure, print the table or JSON, and save the picture.

    Args:
        net: a streaming network or an opened file.
        step: a step of it.
        options: of :func:`continual.bench`.
        out: where to save the picture.
        as_json: JSON instead of a table.
    """
    found = co.bench(net, step, **options)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _show(found)
    if out is not None:
        try:
            found.plot(out)
        except (OSError, ImportError) as error:
            raise BadInput(f"can't save as '{out}': {error}") from error
        typer.echo(f"saved: {out}", err=as_json)


def _show(found: co.Benchmark) -> None:
    """Print the table: drawn on a terminal that is wide enough, plain text elsewhere."""
    console = Console()
    header, *body = found.table
    wide = sum(max(len(row[i]) for row in (header, *body)) + 3 for i in range(len(header)))
    if not console.is_terminal or console.width <= wide:
        typer.echo(str(found))
        return
    table = Table(title=Text(found.title, "bold"), title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for row in body:
        table.add_row(*map(Text, row), style="bold" if row[0] == found.fastest.name else None)
    console.print(table)
    for note in found.notes:
        console.print(Text(f"note: {note}"))
