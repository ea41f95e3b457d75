"""How long parallel branches wait for each other."""

from __future__ import annotations

import math

from .timing import IDENTITY, Timing
from .timing_graph import aligned


def waiting(branches: tuple[Timing, ...], before: Timing = IDENTITY) -> list[int]:
    """How many frames of each branch wait at most for the slowest, whatever the chunks: the depth of its queue.

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
    lookahead = before.constant_rate()
    plains = [b.constant_rate(lookahead.lookahead) for b in branches] if lookahead else [None]
    if all(p is not None and p.delay >= 0 for p in plains):
        slowest = max(p.delay for p in plains if p)
        return [math.ceil((slowest - p.delay) / p.stride) for p in plains if p]
    depths = [0] * len(branches)
    whole = before.then(aligned(*branches))
    for t in range(whole.transient + 2 * whole.period + 1):
        wire = before.counts(t, t)
        delivered = [b.counts(*wire)[0] for b in branches]
        depths = [max(d, n - min(delivered)) for d, n in zip(depths, delivered, strict=True)]
    return depths
