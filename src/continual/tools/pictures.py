"""The style of all figures: colours, sizes and frames. They are drawn with matplotlib, which need not be installed.

The colours are those of Okabe and Ito, which colour-blind people can tell apart.
"""

from __future__ import annotations

import functools
import io
import os
from typing import Any

BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
INK, GREY, FAINT, PALE, PAPER = "#1c2128", "#6b7785", "#cbd2d9", "#eef1f4", "#ffffff"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, INK, GREY)  # of lines that follow each other

# What a colour stands for, wherever it is drawn.
OURS, THEIRS = BLUE, ORANGE  # this library, and what it is compared with
SEEN, MARK = ORANGE, VERMILLION  # what an output sees; a moment that is pointed out

TITLE, TEXT, SMALL = 10, 9, 8  # sizes of letters, in points
DPI = 120
STYLE: dict[Any, Any] = {
    "font.size": TEXT,
    "axes.titlesize": TITLE,
    "axes.labelsize": TEXT,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@functools.cache
def _picture() -> Any:
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure in the style of this file, which notebooks show, also those that have not imported pyplot."""

        def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
            """Axes take their style when they are made."""
            with rc_context(STYLE | {"axes.prop_cycle": cycler(color=CYCLE)}):
                made = super().add_subplot(*args, **kwargs)
                made.tick_params(labelsize=SMALL)  # ticks are made later, when they are drawn
                return made

        def _repr_png_(self) -> bytes:
            made = io.BytesIO()
            self.savefig(made, format="png", dpi=100)
            return made.getvalue()

    return Picture


def figure(who: str, width: float, height: float, title: str = "") -> Any:
    """An empty figure of matplotlib in the style of this library, which no window shows.

    Args:
        who: draws it, for the message.
        width, height: in inches.
        title: above all axes; a ``$`` in it is a ``$``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        made = _picture()
    except ImportError as error:
        raise ImportError(f"{who} draws with matplotlib: pip install matplotlib") from error
    new = made(figsize=(width, height), layout="constrained")
    if title:
        new.suptitle(title, fontsize=TITLE + 3, fontweight="bold", color=INK, parse_math=False)
    return new


def legend(axes: Any, *args: Any, **kwargs: Any) -> Any:
    """The legend of axes, small and without a frame."""
    return axes.legend(*args, **{"fontsize": SMALL, "frameon": False} | kwargs)


def grid(axes: Any, axis: str = "both") -> None:
    """Faint lines behind what is drawn."""
    axes.grid(axis=axis, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def bare(axes: Any) -> None:
    """Take away lines that say nothing, also from axes that others have made."""
    axes.spines[["top", "right"]].set_visible(False)


def save(drawn: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file, whose ending says in which format."""
    drawn.savefig(path, dpi=DPI)
