"""Frames of a video or a camera as inputs of a network: decoded, selected by time, resized, normalised."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.optional_packages import pip_install
from .target import BadInput

CAMERA = "v4l2"  # the input format of cameras
DEVICE = "/dev/video0"
LONGEST_GAP = 3600  # seconds between two frames: more is a broken time stamp
COVER = 0x400  # the disposition of a cover picture of music
THINNEST = 32  # largest aspect ratio: beyond it the resized frame before the crop would be huge


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
    """A video file or a camera, open.

    Args:
        source: a file, ``camera``, or ``camera:`` and a device.

    Attributes:
        name: for messages.
        live: whether it is a camera.
        rate: frames per second in the container.
        frames: their number in the container; ``None`` if unknown.

    Raises:
        BadInput: it can't be opened, or there is no video in it.
    """

    def __init__(self, source: str):
        av = _pyav()
        self.live = source == "camera" or source.startswith("camera:")
        self.name = source.removeprefix("camera").removeprefix(":") or DEVICE if self.live else source
        try:
            if self.live:
                self._container = av.open(self.name, format=CAMERA)
            else:
                _check(Path(source))
                self._container = av.open(f"file:{source}")  # otherwise a colon in the name would begin an address
        except (av.FFmpegError, OSError, ValueError) as error:
            what = "the camera" if self.live else ""
            hint = "; --video camera:/dev/videoN takes another" if self.live else ""
            raise BadInput(f"{what} '{self.name}' can't be opened as a video ({_said(error)}){hint}".strip()) from error
        try:
            self._stream = self._moving()
            self.rate: Fraction = Fraction(self._stream.average_rate or self._stream.guessed_rate or 30)
            self.frames: int | None = None if self.live else self._count()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file or the camera."""
        self._container.close()

    def _moving(self) -> Any:
        """The first video stream that is not a cover picture."""
        streams = [s for s in self._container.streams.video if not int(s.disposition) & COVER]
        if self._container.format.name == "tty":
            raise BadInput(f"'{self.name}' is a text file, not a video")
        if not streams:
            kinds = sorted({str(s.type) for s in self._container.streams if s.type != "video"})
            contents = f": it holds {' and '.join(kinds)}" if kinds else ""
            raise BadInput(f"there is no video in '{self.name}'{contents}")
        return streams[0]

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
        av = _pyav()
        index, first = 0, None
        frames = self._decoded(av)
        while True:
            try:
                frame = next(frames, None)
            except (av.FFmpegError, OSError, ValueError) as error:
                where = f"frame {index} and what follows" if index else "it"
                raise BadInput(f"'{self.name}' is damaged or cut off: {where} can't be decoded ({_said(error)})") from error
            if frame is None:
                break
            at = index / self.rate if frame.pts is None else frame.pts * Fraction(frame.time_base)
            first = at if first is None else first
            yield Picture(index, at - first, frame)
            index += 1
        if index == 0:
            raise BadInput(f"'{self.name}' has no frames that can be decoded")

    def _decoded(self, av: ModuleType) -> Iterator[Any]:
        if not self.live:
            yield from self._container.decode(self._stream)
            return
        while True:
            try:
                yield from self._container.decode(self._stream)
                return
            except av.error.BlockingIOError:  # no frame yet
                time.sleep(0.002)


def _pyav() -> ModuleType:
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


def _said(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__


class Picker:
    """Selects the frames of a video that are steps of a network.

    Args:
        period: seconds from one step to the next; the frame nearest to each multiple is taken, more than once if frames come
            more rarely.
        every: take every ``every``-th frame instead, regardless of time.
        live: frames come as time passes: what was missed is not made up for by repeating frames.

    Attributes:
        missed: steps for which a live frame came too late.
    """

    def __init__(self, period: Fraction, every: int | None = None, live: bool = False):
        self.period, self.every, self.live, self.missed = period, every, live, 0

    def __call__(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Frames, in the order of the steps.

        Raises:
            BadInput: time stamps jump by an hour, or backwards by a second.
        """
        if self.every is not None:
            every = self.every
            return (p for p in pictures if p.index % every == 0)
        return self._by_time(pictures)

    def _by_time(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        before: Picture | None = None
        last = Fraction(1, 30)  # duration of the newest frame in seconds
        wanted = Fraction(0)
        for now in pictures:
            if before is not None:
                last = now.time - before.time
                if not -1 < last < LONGEST_GAP:
                    raise BadInput(
                        f"the time stamps jump by {float(last):.1f} s at frame {now.index}: --every K takes frames by their number"
                    )
            while wanted <= now.time:
                yield before if before is not None and wanted - before.time <= now.time - wanted else now
                wanted += self.period
                if self.live and wanted <= now.time:
                    late = int((now.time - wanted) / self.period) + 1
                    self.missed += late
                    wanted += late * self.period
            before = now
        while before is not None and not self.live and wanted - before.time < last / 2:
            yield before  # the next frame is further from the wanted time
            wanted += self.period


def frames_for(step: int, period: Fraction, every: int | None, rate: Fraction) -> int:
    """The fewest frames of a video that give the steps before its last frame."""
    return step * every + 1 if every is not None else round(step * period * rate) + 1


def prepared(frame: Any, size: int, mean: float, std: float) -> Tensor:
    """A frame as a step of a network: ``(1, 3, size, size)``, the centre of the upright image, normalised.

    Raises:
        BadInput: the aspect ratio of the frame is too large.
    """
    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90) % 4)
    height, width = pixels.shape[:2]
    short = min(height, width)
    if max(height, width) > THINNEST * short:
        raise BadInput(f"its frames are {width} × {height}: one side is more than {THINNEST} times the other")
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0).float() / 255
    shape = (size * height // short, size * width // short)
    image = F.interpolate(image, shape, mode="bilinear", antialias=True, align_corners=False)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return (image[:, :, top : top + size, left : left + size] - mean) / std
