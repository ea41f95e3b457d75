"""The frames of a video with what the network says of them, as a video."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from ...core.optional_packages import pip_install
from ..fitting import pixels_of
from ..target import BadInput
from .base import About, Result, Sink

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi")
SHOWN = 5  # lines of text
WIDEST = 1280  # of a picture
BAR, INK, PAPER = (80, 200, 120), (255, 255, 255), (0, 0, 0)


class Film(Sink):
    """Writes a frame for each output: the newest picture of the source, with the likeliest classes or the first numbers."""

    def __init__(self, name: str, about: About):
        try:
            import av
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise BadInput(f"--sink '{name}' is written with PyAV and Pillow: {pip_install('av', 'PIL')} ({error})") from error
        self.name, self._av, self._image, self._draw, self._font = name, av, Image, ImageDraw, ImageFont
        self._rate = Fraction(about.outputs_per_second or 30).limit_denominator(1001)
        self._file: Any = None
        self._stream: Any = None

    def write(self, result: Result) -> None:
        if result.picture is None:
            raise BadInput(
                f"--sink '{self.name}' shows the pictures of a video, and the source is a signal: give a .png for a figure"
            )
        pixels = self._drawn(pixels_of(result.picture.frame), result)
        try:
            if self._file is None:
                self._open(pixels)
            self._file.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise BadInput(f"can't write to --sink '{self.name}' ({error})") from error

    def _open(self, pixels: np.ndarray) -> None:
        self._file = self._av.open(self.name, "w")
        codec = "libvpx-vp9" if self.name.endswith(".webm") else "libx264"
        self._stream = self._file.add_stream(codec, rate=self._rate)
        self._stream.height, self._stream.width = pixels.shape[:2]
        self._stream.pix_fmt = "yuv420p"

    def _drawn(self, pixels: np.ndarray, result: Result) -> np.ndarray:
        image = self._image.fromarray(pixels)
        wide = (
            min(WIDEST, max(320, image.width)) // 2 * 2
        )  # codecs take even sizes; small pictures grow, so that text can be read
        image = image.resize((wide, max(2, round(image.height * wide / image.width) // 2 * 2)))
        size = max(12, image.height // 18)
        draw, font = self._draw.Draw(image, "RGBA"), self._font.load_default(size)
        line = round(1.5 * size)
        shown = said(result)
        draw.rectangle((0, 0, image.width, line * (len(shown) + 1)), fill=(*PAPER, 150))
        moment = f"step {result.index}" if result.time is None else f"{result.time:.2f} s"
        draw.text((size // 2, size // 4), moment, INK, font)
        for i, (text, share) in enumerate(shown, 1):
            if share is not None:
                draw.rectangle((0, i * line, round(image.width * share), (i + 1) * line - 2), fill=(*BAR, 130))
            draw.text((size // 2, i * line + size // 4), text, INK, font)
        return np.asarray(image)

    def close(self) -> None:
        if self._file is not None:
            self._file.mux(self._stream.encode(None))
            self._file.close()


def said(result: Result) -> list[tuple[str, float | None]]:
    """What is written over a picture: a line of text, and the length of its bar."""
    if result.top:
        return [(f"{100 * share:5.1f} %  {label or number}", share) for number, label, share in result.top[:SHOWN]]
    flat = result.value.reshape(-1)
    return [(f"output {i}: {float(flat[i]):.4g}", None) for i in range(min(flat.size, SHOWN))]
