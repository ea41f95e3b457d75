"""Chooses the source that a word on the command line names."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..target import BadInput
from . import biosignals, images, lsl, numbers, sound, websocket
from .base import Asked
from .heard import Heard
from .lines import Lines
from .microphone import Microphone
from .video import ADDRESS, PIPE, Video

GRAMMAR = (
    "a video; a folder of images; sound (.wav .flac .ogg .mp3); numbers (.csv .npy .parquet .jsonl); a recording (.edf .bdf, .hea of "
    "WFDB); camera or camera:DEVICE; mic or mic:DEVICE; an address (rtsp:// http:// …); lsl:NAME; ws://…; - for a pipe"
)
MICROPHONES = ("mic", "microphone")


def opened(source: str, asked: Asked, pictures: bool) -> Any:
    """Open a source.

    Args:
        source: see :data:`GRAMMAR`.
        asked: what is asked of it.
        pictures: whether the network takes images; otherwise it takes signals.

    Returns:
        A :class:`~continual.cli.sources.base.Signal`, or an object with ``facts``, ``rate``, ``pictures()`` and ``close()``.

    Raises:
        BadInput: there is no such source, or it has not what the network takes.
    """
    kind, _, rest = source.partition(":")
    if is_path(source):
        return _file(Path(source), asked, pictures)
    if source == PIPE and _is_text(sys.stdin.buffer):
        return Lines("standard input", io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"), lambda: None, asked, live=False)
    if kind in MICROPHONES:
        return Microphone(rest, asked)
    if kind == "lsl":
        return lsl.Inlet(rest, asked)
    if kind in ("ws", "wss"):
        return websocket.opened(source, asked)
    return Video(source) if pictures or kind == "camera" else Heard(source, asked)


def is_path(source: str) -> bool:
    """Whether a source is a file or a folder."""
    return source != PIPE and source.partition(":")[0] not in (*MICROPHONES, "camera", "lsl") and not ADDRESS.match(source)


def check(source: str) -> None:
    """Refuse a file that is not there, or empty. It is cheap, and done before a network is made.

    Raises:
        BadInput: it is not there.
    """
    path = Path(source)
    if is_path(source) and not path.exists():
        raise BadInput(f"there is no file '{path}'. --source takes {GRAMMAR}")
    if is_path(source) and path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"'{path}' is empty")


def _is_text(pipe: Any) -> bool:
    """Whether a pipe brings JSON; nothing is taken from it."""
    return pipe.peek(1)[:1] in (b"{", b"[")


def _file(path: Path, asked: Asked, pictures: bool) -> Any:
    check(str(path))
    if path.is_dir():
        return images.Images(path, asked.rate)
    suffix = path.suffix.lower()
    readers: dict[tuple[str, ...], Callable[[Path, Asked], Any]] = {
        sound.SUFFIXES: sound.Sound,
        numbers.SUFFIXES: numbers.opened,
        biosignals.EDF: biosignals.Edf,
        biosignals.WFDB: biosignals.wfdb,
        (".jsonl", ".ndjson"): _lines,
    }
    for suffixes, reader in readers.items():
        if suffix in suffixes:
            return reader(path, asked)
    return Video(str(path)) if pictures else Heard(str(path), asked)


def _lines(path: Path, asked: Asked) -> Lines:
    file = path.open(encoding="utf-8")
    return Lines(str(path), file, file.close, asked, live=False)
