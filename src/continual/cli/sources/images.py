"""A folder of images, in the order of the numbers in their names: each is a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..target import BadInput
from .base import Facts
from .video import Picture, pyav, said

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class Images:
    """The images of a folder.

    Attributes:
        facts: what is known of it.
        rate: images per second, if it was given; otherwise every image is a step.
    """

    def __init__(self, folder: Path, rate: float | None):
        self._paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=_by_number)
        if not self._paths:
            raise BadInput(f"'{folder}' is a folder without images ({', '.join(SUFFIXES)})")
        self.rate = None if rate is None else Fraction(rate).limit_denominator(10**6)
        self.facts = Facts(str(folder), rate, len(self._paths))

    def pictures(self) -> Iterator[Picture]:
        """All images, one after another."""
        for index, path in enumerate(self._paths):
            yield Picture(index, Fraction(index) / (self.rate or 1), _image(path))

    def close(self) -> None:
        """Nothing is open between images."""


def _image(path: Path) -> Any:
    av = pyav()
    try:
        with av.open(f"file:{path}") as container:
            return next(container.decode(video=0))
    except (av.FFmpegError, OSError, ValueError, StopIteration, IndexError) as error:
        raise BadInput(f"'{path}' can't be read as an image ({said(error)})") from error


def _by_number(path: Path) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", path.name)]
