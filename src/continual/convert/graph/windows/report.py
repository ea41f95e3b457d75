"""What there is to know of exact windows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WindowReport:
    """How the scores of a converted module's windows are computed.

    Attributes:
        length: frames of a window.
        every: frames from one window to the next.
        mode: ``"exact"``: each score is the module's own of its window; ``"stream"``: the module over an endless stream.
        reuse: the share of a window's multiply-adds that windows take over from those before, where they do.
        recomputed: whether windows are computed anew instead, since that is faster here.
        ratio: how much faster a window is than the module on its frames, measured here; 1 where it is recomputed.
    """

    length: int
    every: int
    mode: str
    reuse: float
    recomputed: bool
    ratio: float
