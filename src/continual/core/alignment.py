"""How long parallel branches wait for each other."""

from __future__ import annotations

import math

from .timing import IDENTITY, Timing
from .timing_graph import aligned


def waiting(branches: tuple[Timing, ...], before: Timing = IDENTITY) -> list[int]:
    """The depth of each branch's queue: the most frames of it that wait for the slowest branch, for any chunks.

    Args:
        branches: the branches' timings.
        before: the timing from the network's input to the wire that feeds the branches.

    Example:
        >>> from continual.core.timing import Window
        >>> waiting((Window(), Window(3, start=1, end=1)))  # a residual connection
        [1, 0]
        >>> waiting((Window(stride=2), Window(3, 2, 1, 1).then(Window(3, start=1, end=1))))
        [2, 0]
    """
    arriving = before.constant_rate()
    rates = [b.constant_rate(arriving.lookahead) for b in branches] if arriving else [None]
    if all(r is not None and r.delay >= 0 for r in rates):
        slowest = max(r.delay for r in rates if r)
        return [math.ceil((slowest - r.delay) / r.stride) for r in rates if r]
    depths = [0] * len(branches)
    whole = before.then(aligned(*branches))
    for t in range(whole.transient + 2 * whole.period + 1):
        wire = before.counts(t, t)
        delivered = [b.counts(*wire)[0] for b in branches]
        depths = [max(d, n - min(delivered)) for d, n in zip(depths, delivered, strict=True)]
    return depths
