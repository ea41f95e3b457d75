"""Chooses the sink that a word on the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..target import BadInput
from . import base, figure, film, lines, rows, sound, websocket
from .base import About, Sink

GRAMMAR = (
    "JSON lines (.jsonl, or - for stdout); a table (.csv .parquet); a picture (.png .pdf .svg); a video with what the network says of it "
    "(.mp4 .mkv …); sound (.wav); ws://…"
)
LINES = (".jsonl", ".ndjson", ".json")


def opened(name: str, about: About) -> Sink:
    """Open a sink.

    Args:
        name: see :data:`GRAMMAR`.
        about: the stream.

    Raises:
        BadInput: there is no such sink, or it can't be written.
    """
    if _is_address(name):
        return websocket.WebSocket(name)
    suffix = Path(name).suffix.lower()
    if name == lines.STDOUT or suffix in LINES or (Path(name).exists() and not Path(name).is_file()):
        return lines.Lines(name)
    if suffix in figure.SUFFIXES:
        return figure.Figure(name, about)
    if suffix in film.SUFFIXES:
        return film.Film(name, about)
    if suffix == ".wav":
        return sound.Sound(name, about)
    return rows.Csv(name) if suffix == ".csv" else rows.Parquet(name)


def refuse_all(names: Sequence[str], read: list[Path]) -> None:
    """Refuse what can't be written, before any work is done.

    Args:
        names: of the sinks.
        read: files that are read.

    Raises:
        BadInput: a sink that there is not, that can't be written, or that is given twice.
    """
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise BadInput(f"--sink '{twice}' is given twice")
    known = (*LINES, *figure.SUFFIXES, *film.SUFFIXES, ".wav", ".csv", ".parquet")
    for name in names:
        if name == lines.STDOUT or _is_address(name):
            continue
        base.refuse(name, read)
        if Path(name).suffix.lower() not in known and not Path(name).exists():
            raise BadInput(f"--sink '{name}': don't know the ending '{Path(name).suffix}'. There are {GRAMMAR}")


def _is_address(name: str) -> bool:
    return name.startswith(("ws://", "wss://"))
