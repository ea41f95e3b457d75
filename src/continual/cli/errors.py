"""Errors of the command line: one line and an exit status."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

import continual as co

from .target import BadInput


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
        typer.echo(f"continual {command}: {line_of(error)}", err=True)
        raise typer.Exit(2) from None


def line_of(error: Exception) -> str:
    """An error in one line: ours as it is, that of others with its class."""
    if isinstance(error, (BadInput, co.ContinualError)):
        return " ".join(str(error).split())
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {' '.join(first.split())[:300]} (CONTINUAL_TRACEBACK=1 shows where)"
