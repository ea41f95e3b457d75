"""`continual explain`, `verify` and `summary`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import continual as co

from ..tools.explanation import SUFFIXES
from ..tools.report import POINTS, Report
from . import artefact
from .errors import one_line
from .network import Options, Subject, check_rate, refuse_files, step_of, streaming, subject
from .tables import show
from .target import BadInput
from .zoo import dumped, summary_data

_OUTCOMES = {"passed": Text("ok", "green"), "skipped": Text("--", "dim"), "failed": Text("FAIL", "bold red")}


def explain(options: Options, out: Path | None, as_json: bool) -> None:
    """Print the explanation, or save it."""
    with one_line("explain"):
        if out is not None and (out.suffix.lower() not in SUFFIXES or not out.absolute().parent.is_dir()):
            raise BadInput(f"can't save as '{out}': give a file in a folder that is there, ending in {', '.join(SUFFIXES)}")
        made = subject(options, "explain")
        if made.runner is not None:
            if out is not None:
                refuse_files(options, "its operations are in the runtime: there is no graph to draw")
            return _describe(options, made, as_json)
        with _busy("following the network"):
            found = co.explain(made.net, made.clip, **options.conversion)
        typer.echo(json.dumps(_as_data(found), indent=2, ensure_ascii=False) if as_json else str(found))
        if out is not None:
            try:
                found.save(out)
            except OSError as error:
                raise BadInput(f"can't save as '{out}' ({error.strerror or error})") from error
            except ImportError as error:
                raise BadInput(f"can't save as '{out}': {error}") from error
            typer.echo(f"saved: {out}", err=as_json)
        if not found.streamable:
            raise typer.Exit(1)


def _describe(options: Options, made: Subject, as_json: bool) -> None:
    """What is known of an exported file."""
    path = Path(options.target)
    typer.echo(dumped(artefact.data_of(path, made.net.metadata))) if as_json else artefact.show(path, made.net.metadata)


def _as_data(found: co.Explanation) -> dict[str, Any]:
    """An explanation as JSON holds it; rates as text, such as ``"1/2"``."""
    rows = [{**asdict(row), "rate": str(row.rate)} for row in found.rows]
    totals = {"receptive_field": found.receptive_field, "delay": found.delay, "state_bytes": found.state_bytes}
    data = asdict(found)
    return {"name": data.pop("name"), "streamable": found.streamable, **totals, **data, "rows": rows}


def verify(
    options: Options, tolerance: float | None, splits: int | None, effort: Literal["quick", "full"], as_json: bool = False
) -> None:
    """Run the checks of the contract and print the report; status 1 if one fails."""
    with one_line("verify"):
        if tolerance is not None and not tolerance >= 0:
            raise BadInput(f"--tolerance {tolerance}: give a number from 0 up")
        made = subject(options, "verify")
        if made.runner is not None and not made.net.metadata.flush:
            raise BadInput(f"'{options.target}' was exported with --no-flush: the checks need streams that end")
        with _busy("converting"):
            net = streaming(made, options)
        reference = _in_one_piece(options) if made.runner is not None else None if net is made.net else made.net
        clip = made.clip if len(made.clips) == 1 else list(made.clips)
        shown = Console(stderr=True).is_terminal
        report = co.verify(
            net,
            clip,
            reference,
            effort=effort,
            splits=splits,
            tolerance=tolerance,
            seed=options.seed,
            raise_on_fail=False,
            progress=shown,
        )
        typer.echo(dumped(report_data(report))) if as_json else print_report(report)
        if not report.passed:
            raise typer.Exit(1)


def _in_one_piece(options: Options) -> Callable[..., Any]:
    """The clip computation of an exported file: the whole clip in one call, by a stream of its own."""
    whole: Any = co.load(options.target)

    def clip(*x: Any) -> Any:
        whole.clean_state()
        return whole.forward_steps(*x, pad_end=True)

    return clip


def report_data(report: Report) -> dict[str, Any]:
    """A report as JSON holds it."""
    checks = [{**asdict(check), "says": POINTS[check.point]} for check in report.checks]
    return {"subject": report.subject, "passed": report.passed, "checks": checks, "notes": list(report.notes)}


def print_report(report: Report) -> None:
    """Print the table of checks, and the verdict."""
    passed, skipped, failed = (sum(c.outcome == o for c in report.checks) for o in ("passed", "skipped", "failed"))
    table = Table("", "point", "check", "", "measured", title=Text(report.subject, "bold"), title_justify="left")
    for check in report.checks:
        cells = (str(check.point), POINTS[check.point], check.name)
        table.add_row(*(Text(c) for c in cells), _OUTCOMES[check.outcome], Text(check.detail))
    console = Console()
    show(table, console)
    for note in report.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    colour = "bold red" if failed else "green"
    console.print(
        Text(f"{'failed' if failed else 'passed'}: {passed} checks passed, {skipped} not applicable, {failed} failed", colour)
    )


def summary(options: Options, rate: float | None, as_json: bool = False) -> None:
    """Print what every module costs."""
    with one_line("summary"):
        check_rate(rate)
        made = subject(options, "summary")
        if made.runner is not None:
            return _describe(options, made, as_json)
        with _busy("converting"):
            net = streaming(made, options)
        step, length = step_of(net, made.clips)
        length = length if made.card is None else made.card.frames
        found = co.summary(net, step, clip_length=length, rate=made.rate if rate is None else rate)
        typer.echo(dumped(summary_data(found)) if as_json else str(found))


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """Show on a terminal that something is running."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
