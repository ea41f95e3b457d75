"""The base class of sinks. A sink gets each output as it comes, and may look at the frames of the source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..sources.video import Picture
from ..target import BadInput


@dataclass(frozen=True)
class Result:
    """One output, for sinks.

    Attributes:
        index: the step that it is about.
        time: the moment of this step, in seconds; ``None`` where the source has none.
        value: ``(C', *S')``.
        top: of scores: class, label if there are labels, and probability, the likeliest first.
        picture: the newest frame of a video.
        flags: ``"warming_up"``, ``"gap"``, ``"interpolated"``.
    """

    index: int | float
    time: float | None
    value: np.ndarray
    top: tuple[tuple[int, str | None, float], ...] = ()
    picture: Picture | None = None
    flags: frozenset[str] = frozenset()

    def data(self) -> dict[str, Any]:
        """As data for JSON."""
        found: dict[str, Any] = {"index": self.index, "time": self.time, "output": self.value.tolist()}
        if self.top:
            found["top"] = [
                {"class": number, **({} if label is None else {"label": label}), "probability": share}
                for number, label, share in self.top
            ]
        if self.flags:
            found["flags"] = sorted(self.flags)
        return found


def duration(seconds: float) -> str:
    """A time, such as ``16 ms``, ``2.07 s`` and ``24.2 h``."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class About:
    """What a sink may want to know before the first output.

    Attributes:
        title: the network and the source.
        rate: steps per second of the source; ``None`` where it is not known.
        stride: steps from one output to the next.
        delay: as text.
        sees: frames that an output sees; ``None`` where it sees all before it.
        lookahead: steps from the moment that an output is about to its arrival.
    """

    title: str
    rate: float | None
    stride: float
    delay: str
    sees: int | None = None
    lookahead: float = 0.0

    @property
    def outputs_per_second(self) -> float | None:
        """The rate of outputs."""
        return None if self.rate is None else self.rate / self.stride

    def said(self, steps: float) -> str:
        """A number of steps as text, with their time."""
        shown = f"{steps:g} step{'' if steps == 1 else 's'}"
        if self.rate is None:
            return shown
        return f"{shown} = {duration(steps / self.rate)}"


class Sink(ABC):
    """Takes outputs. Each kind is a small file.

    Attributes:
        name: as given on the command line.
    """

    name: str

    def saw(self, frames: np.ndarray, times: list[float | None]) -> None:  # noqa: B027 (most sinks need no frames)
        """Some frames of a signal, ``(n, …)``, before the outputs that they bring."""

    @abstractmethod
    def write(self, result: Result) -> None:
        """The next output."""

    def close(self) -> None:  # noqa: B027 (some have nothing left)
        """Write what is left."""


def safely(name: str, call: Callable[[], Any]) -> Any:
    """Write to a file.

    Raises:
        BadInput: it can't be written.
    """
    try:
        return call()
    except BrokenPipeError:
        raise  # whoever read has had enough
    except OSError as error:
        raise BadInput(f"can't write to --sink '{name}' ({error.strerror or error})") from error


def refuse(name: str, read: list[Path]) -> None:
    """Refuse a file that can't be written, before any work is done, and leave what is there as it is.

    Args:
        name: as given.
        read: files that are read.

    Raises:
        BadInput: it can't be written, or would be read and written.
    """
    path = Path(name)
    if path.is_dir():
        raise BadInput(f"--sink '{name}' is a folder; give a file, or - for stdout")
    for other in read:
        if path.exists() and other.exists() and path.samefile(other):
            raise BadInput(f"--sink '{name}' is a file that is read; give another")
    there = path.exists()
    if there and not path.is_file():
        return  # a pipe, whose reader would see an end
    try:
        with path.open("a"):  # touches nothing that is there
            pass
    except OSError as error:
        raise BadInput(f"can't write to --sink '{name}' ({error.strerror or error})") from error
    if not there:
        path.unlink()


def vector(result: Result, name: str, most: int) -> np.ndarray:
    """The numbers of an output in a row.

    Raises:
        BadInput: there are more than such a sink is for.
    """
    flat = result.value.reshape(-1)
    if flat.size > most:
        raise BadInput(
            f"--sink '{name}' takes {most} numbers in an output at most, and there are {flat.size:,} {result.value.shape}"
        )
    return flat
