"""`continual bench`: a step of any network in each form that runs here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import continual as co

from ..tools.bench.forms import NAMES
from .errors import one_line
from .network import Options, check_rate, step_of, streaming, subject
from .tables import show
from .target import BadInput

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


def bench(options: Options, arguments: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Find the network, measure, print the table or JSON, and save the picture."""
    with one_line("bench"):
        check_rate(arguments["rate"])
        check(arguments["forms"] or [], out)
        made = subject(options, "bench")
        net = streaming(made, options)
        name = None if options.kind == "code" else Path(options.target).name
        wanted = arguments | {"rate": arguments["rate"] or made.rate, "name": name}
        measure(net, step_of(net, made.clips)[0], {key: value for key, value in wanted.items() if value}, out, as_json)


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
    table = Table(title=Text(found.title, "bold"), title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for row in body:
        table.add_row(*map(Text, row), style="bold" if row[0] == found.fastest.name else None)
    show(table, console)
    for note in found.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
