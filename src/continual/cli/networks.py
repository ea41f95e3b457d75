"""`continual explain`, `verify` and `summary`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

import continual as co

from ..tools.explanation import SUFFIXES
from ..tools.report import POINTS, Report
from .clips import clips_of
from .target import BadInput, load

_OUTCOMES = {"passed": Text("ok", "green"), "skipped": Text("--", "dim"), "failed": Text("FAIL", "bold red")}


@dataclass(frozen=True)
class Options:
    """The network and its example."""

    target: str
    clips: list[str]
    arguments: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    high: int | None = None
    seed: int = 0
    time_dim: int | None = None
    time_pooling: str | None = None

    @property
    def conversion(self) -> dict[str, Any]:
        """The options of ``co.continual``."""
        given = {"time_dim": self.time_dim, "time_pooling": self.time_pooling}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Subject:
    """A network in eval mode, and its example."""

    net: nn.Module
    clips: list[Tensor]

    @property
    def clip(self) -> Any:
        """The clip, or the tuple of clips."""
        return self.clips[0] if len(self.clips) == 1 else tuple(self.clips)


@contextmanager
def one_line(command: str) -> Iterator[None]:
    """End the program with one line instead of a traceback: status 1 if a network can't be streamed, 2 for wrong input."""
    try:
        yield
    except co.NotStreamable as error:
        if os.environ.get("CONTINUAL_TRACEBACK"):
            raise
        typer.echo(f"continual {command}: {error}", err=True)  # all refusals, each with its remedy: more than a line
        raise typer.Exit(1) from None
    except (typer.Exit, KeyboardInterrupt):
        raise
    except Exception as error:
        if os.environ.get("CONTINUAL_TRACEBACK"):
            raise
        typer.echo(f"continual {command}: {_line_of(error)}", err=True)
        raise typer.Exit(2) from None


def _line_of(error: Exception) -> str:
    if isinstance(error, (BadInput, co.ContinualError)):
        return " ".join(str(error).split())
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {' '.join(first.split())[:300]} (CONTINUAL_TRACEBACK=1 shows where)"


def subject(options: Options, command: str) -> Subject:
    """The network in eval mode and its clips, after a test run."""
    net = load(options.target, options.arguments)
    net.eval()  # a factory gives networks in training mode, and a stream runs what clips give in eval mode
    made = Subject(net, clips_of(net, options.clips, options.dtypes, options.high, options.seed))
    if not isinstance(net, co.CoModule):  # otherwise the conversion would report that it can't follow the network
        try:
            with torch.no_grad():
                net(*made.clips)
        except Exception as error:
            shapes = ", ".join(str(tuple(c.shape)) for c in made.clips)
            raise BadInput(f"{options.target} can't run on the clip {shapes}: {_line_of(error)}") from error
    return made


def explain(options: Options, out: Path | None, as_json: bool) -> None:
    """Print the explanation, or save it."""
    with one_line("explain"):
        if out is not None and (out.suffix.lower() not in SUFFIXES or not out.absolute().parent.is_dir()):
            raise BadInput(f"can't save as '{out}': give a file in a folder that is there, ending in {', '.join(SUFFIXES)}")
        made = subject(options, "explain")
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


def _as_data(found: co.Explanation) -> dict[str, Any]:
    """An explanation as JSON holds it; rates as text, such as ``"1/2"``."""
    rows = [{**asdict(row), "rate": str(row.rate)} for row in found.rows]
    totals = {"receptive_field": found.receptive_field, "delay": found.delay, "state_bytes": found.state_bytes}
    data = asdict(found)
    return {"name": data.pop("name"), "streamable": found.streamable, **totals, **data, "rows": rows}


def verify(options: Options, tolerance: float | None, splits: int | None, effort: Literal["quick", "full"]) -> None:
    """Run the checks of the contract and print the report; status 1 if one fails."""
    with one_line("verify"):
        if tolerance is not None and not tolerance >= 0:
            raise BadInput(f"--tolerance {tolerance}: give a number from 0 up")
        made = subject(options, "verify")
        with _busy("converting"):
            net = streaming(made, options)
        reference = None if net is made.net else made.net
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
        print_report(report)
        if not report.passed:
            raise typer.Exit(1)


def print_report(report: Report) -> None:
    """Print the table of checks, and the verdict."""
    passed, skipped, failed = (sum(c.outcome == o for c in report.checks) for o in ("passed", "skipped", "failed"))
    table = Table("", "point", "check", "", "measured", title=Text(report.subject, "bold"), title_justify="left")
    for check in report.checks:
        cells = (str(check.point), POINTS[check.point], check.name)
        table.add_row(*(Text(c) for c in cells), _OUTCOMES[check.outcome], Text(check.detail))
    console = Console()
    console.print(table)
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    colour = "bold red" if failed else "green"
    console.print(
        Text(f"{'failed' if failed else 'passed'}: {passed} checks passed, {skipped} not applicable, {failed} failed", colour)
    )


def summary(options: Options, rate: float | None) -> None:
    """Print what every module costs."""
    with one_line("summary"):
        check_rate(rate)
        made = subject(options, "summary")
        with _busy("converting"):
            net = streaming(made, options)
        step, length = step_of(net, made.clips)
        typer.echo(str(co.summary(net, step, clip_length=length, rate=rate)))


def check_rate(rate: float | None) -> None:
    """Refuse what is not a number of steps per second."""
    if rate is not None and not 0 < rate < float("inf"):
        raise BadInput(f"--rate {rate}: give steps per second, above 0")


def step_of(net: Any, clips: list[Tensor]) -> tuple[Any, int]:
    """The first step of clips (a list for several) and their length."""
    dims = getattr(net, "time_dims", None) or (getattr(net, "time_dim", 2),) * len(clips)
    if len(dims) != len(clips):
        raise BadInput(f"the network takes {len(dims)} inputs: give --clip as often, not {len(clips)} times")
    if short := [(tuple(c.shape), dim) for c, dim in zip(clips, dims, strict=True) if dim is not None and c.ndim <= dim]:
        raise BadInput(f"--clip {short[0][0]}: there is no dim {short[0][1]}, which is time; give (batch, channels, time, space)")
    steps = [c if dim is None else c.select(dim, 0) for c, dim in zip(clips, dims, strict=True)]
    length = next(c.shape[dim] for c, dim in zip(clips, dims, strict=True) if dim is not None)
    return steps[0] if len(steps) == 1 else steps, length


def streaming(made: Subject, options: Options) -> Any:
    """The network itself, or the converted network."""
    if isinstance(made.net, co.CoModule):
        if options.conversion:
            raise BadInput(f"{options.target} is streaming already: it takes no {', '.join(options.conversion)}")
        return made.net
    convert: Callable[..., Any] = co.continual
    return convert(made.net, made.clip, **options.conversion)


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """Show on a terminal that something is running."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
