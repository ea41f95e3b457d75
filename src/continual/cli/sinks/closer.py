"""A closer look at one output of a stream: the frames that it sees, the moment that it is about, and when it comes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tools.pictures import GREY, MARK, OURS, SEEN, bare, legend
from .base import About

Curves = tuple[np.ndarray, np.ndarray]  # moments, and numbers (n, channels)
SHOWN = 2000  # frames at most


def draw_closer(axis: Any, about: About, inputs: Curves, outputs: Curves, unit: float) -> bool:
    """Draw the output after two thirds of the stream; the channels that move most stand for all.

    Args:
        axis: of matplotlib.
        about: the stream.
        inputs, outputs: moments, and numbers ``(n, channels)``.
        unit: of the axis, in that of the moments.

    Returns:
        Whether there was something to draw: a network with a bounded field, and frames around the output.
    """
    (at, frames), (moments, values) = (inputs[0] / unit, inputs[1]), (outputs[0] / unit, outputs[1])
    if about.sees is None or about.sees > SHOWN or len(at) < 3:
        return False
    step = (1.0 if about.rate is None else 1 / about.rate) / unit
    chosen = int(np.abs(moments - (moments[0] + 2 / 3 * (moments[-1] - moments[0]))).argmin())
    moment, late = moments[chosen], about.lookahead * step
    came, field = moment + late, about.sees * step
    begin, end = came - 1.2 * field - 3 * step, came + 0.3 * field + 3 * step
    axis.set_title("A closer look", loc="left")
    axis.axvspan(came - field + step / 2, came + step / 2, color=SEEN, alpha=0.18, lw=0, label=f"sees {about.said(about.sees)}")
    near = (at >= begin) & (at <= end)
    marker = "o" if near.sum() < 80 else None
    axis.plot(at[near], _busiest(frames)[near], color=GREY, lw=1, marker=marker, ms=3, label="input")
    near = (moments + late >= begin) & (moments + late <= end)
    line, other = _busiest(values), axis.twinx()
    other.step((moments + late)[near], line[near], where="post", color=OURS, lw=1.4, label="output, when it comes")
    other.plot([came], [line[chosen]], "o", color=MARK, ms=7, zorder=4)
    axis.axvline(moment, color=MARK, lw=1, ls=":")
    said = (
        f"comes {about.said(about.lookahead)} after the moment that it is about"
        if late
        else "comes at the moment that it is about"
    )
    axis.axvline(came, color=MARK, lw=1, ls="--", label=said)
    if late:
        arrow = {"arrowstyle": "->", "lw": 1.6, "color": MARK}
        axis.annotate("", (came, 0.94), (moment, 0.94), xycoords=axis.get_xaxis_transform(), arrowprops=arrow)
    axis.set_xlim(begin, end)
    handles = [a.get_legend_handles_labels() for a in (axis, other)]
    place = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "ncols": 4}
    legend(axis, handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], **place)
    axis.margins(y=0.2)
    for own in (axis, other):
        own.set_yticks([])
        bare(own)
    return True


def _busiest(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[:, int(values.var(0).argmax())])
