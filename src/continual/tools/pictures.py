"""Drawing with matplotlib, which need not be installed."""

from __future__ import annotations

import functools
import io
from typing import Any

INK, GREY, FAINT = "#1f2933", "#7b8794", "#cbd2d9"
OURS, THEIRS, MARK = "#2186eb", "#d95f02", "#d64545"


@functools.cache
def _picture() -> Any:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that notebooks show, also those that have not imported pyplot."""

        def _repr_png_(self) -> bytes:
            made = io.BytesIO()
            self.savefig(made, format="png", dpi=100)
            return made.getvalue()

    return Picture


def figure(who: str, width: float, height: float) -> Any:
    """An empty figure of matplotlib, which no window shows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        made = _picture()
    except ImportError as error:
        raise ImportError(f"{who} draws with matplotlib: pip install matplotlib") from error
    return made(figsize=(width, height), layout="constrained")


def bare(axes: Any) -> None:
    """Take away lines that say nothing."""
    axes.spines[["top", "right"]].set_visible(False)
