"""Video by PyAV: files, cameras, addresses (rtsp, http …) and pipes."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Facts

CAMERA = "v4l2"  # the input format of cameras
DEVICE = "/dev/video0"
COVER = 0x400  # the disposition of a cover picture of music
PIPE = "-"
ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://", re.IGNORECASE)
LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt")  # what sends whether it is read or not
PATIENCE = 10.0  # seconds without data after which a connection counts as lost


@dataclass(frozen=True)
class Picture:
    """A decoded frame.

    Attributes:
        index: from 0, of all frames of the video.
        time: seconds since the first frame, exactly.
        frame: PyAV's.
    """

    index: int
    time: Fraction
    frame: Any


class Video:
    """A video that is open.

    Args:
        source: a file, ``camera``, ``camera:`` and a device, an address, or ``-`` for standard input.

    Attributes:
        facts: what is known of it.
        rate: frames per second in the container.

    Raises:
        BadInput: it can't be opened, or there is no video in it.
    """

    def __init__(self, source: str):
        self._container, name, live = container(source)
        try:
            self._stream = _moving(self._container, name)
            self.rate: Fraction = Fraction(self._stream.average_rate or self._stream.guessed_rate or 30)
            self.facts = Facts(name, float(self.rate), None if live else self._count(), live)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the file, the camera or the connection."""
        self._container.close()

    def _count(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        if self._stream.duration:
            return max(1, round(self._stream.duration * self._stream.time_base * self.rate))
        if self._container.duration:
            return max(1, round(Fraction(self._container.duration, 1_000_000) * self.rate))
        return None

    def pictures(self) -> Iterator[Picture]:
        """All frames, one after another.

        Raises:
            BadInput: there is no frame, or the file is damaged.
        """
        av = pyav()
        index, first = 0, None
        frames = self._decoded(av)
        while True:
            try:
                frame = next(frames, None)
            except (av.FFmpegError, OSError, ValueError) as error:
                where = f"frame {index} and what follows" if index else "it"
                raise BadInput(f"'{self.facts.name}' is damaged or cut off: {where} can't be decoded ({said(error)})") from error
            if frame is None:
                break
            at = index / self.rate if frame.pts is None else frame.pts * Fraction(frame.time_base)
            first = at if first is None else first
            yield Picture(index, at - first, frame)
            index += 1
        if index == 0:
            raise BadInput(f"'{self.facts.name}' has no frames that can be decoded")

    def _decoded(self, av: ModuleType) -> Iterator[Any]:
        if not self.facts.live:
            yield from self._container.decode(self._stream)
            return
        while True:
            try:
                yield from self._container.decode(self._stream)
                return
            except av.error.BlockingIOError:  # no frame yet
                time.sleep(0.002)


def container(source: str, kind: str = "video") -> tuple[Any, str, bool]:
    """Open what PyAV reads: the container, its name for messages, and whether it is live.

    Raises:
        BadInput: it can't be opened.
    """
    av = pyav()
    camera = source == "camera" or source.startswith("camera:")
    address = ADDRESS.match(source)
    name = source.removeprefix("camera").removeprefix(":") or DEVICE if camera else "standard input" if source == PIPE else source
    try:
        if camera:
            return av.open(name, format=CAMERA), name, True
        if address:
            return av.open(source, timeout=PATIENCE), name, address["scheme"].lower() in LIVE
        if source == PIPE:
            return av.open(sys.stdin.buffer), name, False
        _check(Path(source))
        return av.open(f"file:{source}"), name, False  # otherwise a colon in the name would begin an address
    except (av.FFmpegError, OSError, ValueError) as error:
        what = "the camera" if camera else ""
        hint = "; --source camera:/dev/videoN takes another" if camera else ""
        raise BadInput(
            f"{what} '{name}' can't be opened as {'a video' if kind == 'video' else kind} ({said(error)}){hint}".strip()
        ) from error


def _moving(container: Any, name: str) -> Any:
    """The first video stream that is not a cover picture."""
    streams = [s for s in container.streams.video if not int(s.disposition) & COVER]
    if container.format.name == "tty":
        raise BadInput(f"'{name}' is a text file, not a video")
    if not streams:
        kinds = sorted({str(s.type) for s in container.streams if s.type != "video"})
        contents = f": it holds {' and '.join(kinds)}" if kinds else ""
        raise BadInput(f"there is no video in '{name}'{contents}")
    return streams[0]


def pyav() -> ModuleType:
    """PyAV.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise BadInput(f"videos are read with PyAV, which is not installed: {pip_install('av')} ({error})") from error
    return av


def _check(path: Path) -> None:
    if path.is_dir():
        raise BadInput(f"'{path}' is a folder; give a video file, or camera")
    if not path.exists():
        raise BadInput(f"there is no file '{path}'")
    if path.is_file() and path.stat().st_size == 0:
        raise BadInput(f"'{path}' is empty")


def said(error: BaseException) -> str:
    """An error of PyAV in a few words."""
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
