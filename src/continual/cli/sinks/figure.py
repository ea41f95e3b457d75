"""A picture of a stream: what came in, and what came out, each at the moment that it is about."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from ...core.optional_packages import pip_install
from ...tools.pictures import figure, legend, save
from ..fitting import pixels_of
from ..target import BadInput
from .base import About, Result, Sink, safely
from .closer import draw_closer

SUFFIXES = (".png", ".pdf", ".svg")
LONGEST = 200_000  # frames that are kept: those of an endless stream that came last
NUMBERS = 20 * LONGEST  # of outputs that are kept, at most
CURVES = 8  # channels that are drawn
APART = 3  # outputs of so many numbers have a panel for each
STRIP = 8  # pictures of a video
WIDE = 7.5  # the panel of the pictures, in its heights
DENSE = 5000  # frames, from which lines are thin
UNITS = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


class Figure(Sink):
    """Draws the stream once it has ended."""

    def __init__(self, name: str, about: About):
        try:
            import matplotlib  # noqa: F401 - is it there?
        except ImportError as error:
            raise BadInput(f"--sink '{name}' is drawn with matplotlib: {pip_install('matplotlib')} ({error})") from error
        self.name, self._about = name, about
        self._inputs: deque[tuple[float, np.ndarray]] = deque(maxlen=LONGEST)
        self._outputs: deque[tuple[float, np.ndarray]] = deque(maxlen=LONGEST)
        self._top: dict[int, str] = {}
        self._pictures: list[tuple[float, np.ndarray]] = []
        self._every = 1  # outputs from one picture that is kept to the next
        self._seen = self._came = 0

    def saw(self, frames: np.ndarray, times: list[float | None]) -> None:
        for frame, time in zip(frames, times, strict=True):
            self._inputs.append((self._seen if time is None else time, np.array(frame).reshape(-1)[:CURVES]))
            self._seen += 1

    def write(self, result: Result) -> None:
        at = float(result.index if result.time is None else result.time)
        self._top |= {number: label or f"class {number}" for number, label, _ in result.top}
        value = _softmax(result.value.reshape(-1)) if result.top else result.value.reshape(-1)[:CURVES].copy()
        if not self._outputs:  # many classes: fewer outputs
            self._outputs = deque(maxlen=min(LONGEST, max(STRIP, NUMBERS // value.size)))
        self._outputs.append((at, value))
        if result.picture is not None:
            self._keep(at, result)
        self._came += 1

    def _keep(self, at: float, result: Result) -> None:
        """Keep pictures that are evenly apart, however long the stream: every other one goes where there are too many."""
        if self._came % self._every == 0 and result.picture is not None:
            self._pictures.append((at, pixels_of(result.picture.frame)))
        if len(self._pictures) == 2 * STRIP:
            self._pictures, self._every = self._pictures[::2], 2 * self._every

    def close(self) -> None:
        if not self._outputs:
            return
        times, values = np.array([at for at, _ in self._outputs]), np.stack([y for _, y in self._outputs])
        unit, name = self._unit(times[-1] - times[0])
        rows = self._rows(values)
        heights = [0.6 if self._pictures else 1.0, *[1.2 / len(rows) + 0.2] * len(rows)]
        close = 0 if self._pictures else 1  # a closer look
        drawn = figure(f"--sink '{self.name}'", 11, 2.2 + 2.2 * (sum(heights) + 1.1 * close), self._about.title)
        axes = list(drawn.subplots(len(heights) + close, 1, height_ratios=heights + [1.1] * close))
        axes[0].set_title("What comes in", loc="left")
        start, end = self._draw_inputs(axes[0], times, unit)
        axes[1].set_title(f"What comes out, at the moment that it is about; {self._late()}", loc="left")
        panels = axes[: len(heights)]
        for axis, (curves, labels) in zip(panels[1:], rows, strict=True):
            _curves(axis, times / unit, curves, labels)
            if self._top:
                axis.set_ylabel("probability")
                axis.set_ylim(0, 1)
        for axis in panels:
            axis.set_xlim(start / unit, end / unit)
            axis.tick_params(labelbottom=axis is panels[-1])
        panels[-1].set_xlabel(name)
        if close:
            self._draw_closer(axes[-1], times, values, unit, name)
        safely(self.name, lambda: save(drawn, Path(self.name)))

    def _rows(self, values: np.ndarray) -> list[tuple[np.ndarray, list[str] | None]]:
        """What stands in the panels of outputs."""
        if self._top:
            best = sorted(self._top, key=lambda k: -values[:, k].max())[:CURVES]
            return [(values[:, best], [self._top[k] for k in best])]
        return [(values, None)] if values.shape[1] > APART else [(values[:, [k]], None) for k in range(values.shape[1])]

    def _signal(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([at for at, _ in self._inputs]), np.stack([x for _, x in self._inputs])

    def _draw_closer(self, axis: Any, times: np.ndarray, values: np.ndarray, unit: float, name: str) -> None:
        if draw_closer(axis, self._about, self._signal(), (times, values), unit):
            axis.set_xlabel(name)
        else:
            axis.set_axis_off()

    def _late(self) -> str:
        late = self._about.lookahead
        return f"it comes {self._about.said(late)} later" if late else "it comes at once"

    def _unit(self, span: float) -> tuple[float, str]:
        """What an axis counts, by the length of the stream."""
        if self._about.rate is None:
            return 1.0, "steps"
        return next(((size, name) for size, name in UNITS if span > 3 * size), (1.0, "seconds"))

    def _draw_inputs(self, axis: Any, times: np.ndarray, unit: float) -> tuple[float, float]:
        """Draw what came in, and say from when to when."""
        if not self._pictures:
            at, values = self._signal()
            _curves(axis, at / unit, values, None)
            return float(at[0]), max(float(at[-1]), float(times[-1]))
        height, width = self._pictures[0][1].shape[:2]
        shown = round(WIDE * height / width)  # so that they are as wide as they should be
        count = max(2, min(STRIP, len(self._pictures), shown))
        kept = [self._pictures[int((k + 0.5) / count * len(self._pictures))] for k in range(count)]
        start, end = float(times[0]), float(times[-1]) or 1.0
        wide = (end - start) / len(kept)
        for k, (_, pixels) in enumerate(kept):
            extent = ((start + (k + 0.02) * wide) / unit, (start + (k + 0.98) * wide) / unit, 0, 1)
            axis.imshow(pixels, extent=extent, aspect="auto")
        axis.set_ylim(0, 1)
        axis.set_yticks([])
        return start, end


def _curves(axis: Any, times: np.ndarray, values: np.ndarray, labels: list[str] | None) -> None:
    dense = len(times) > DENSE
    for k, column in enumerate(values.T):
        axis.plot(times, column, lw=0.4 if dense else 1.1, label=None if labels is None else labels[k])
    if labels is not None:
        legend(axis, loc="upper right", ncols=min(4, len(labels)))


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
