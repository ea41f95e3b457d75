"""How much is tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How many of what is tried many times.

    Attributes:
        splits: random splits into chunks.
        phases: moments of a stream at which something is done to it.
        places: lengths of clips that are looked at, of more than so many.
        gradients: splits through which gradients are taken.
        after: steps past the first output, to which gradients are taken.
        contents: further contents with which it is looked for outputs that come early.
        lengths: other lengths at which forward is held against the reference.
    """

    splits: int
    phases: int
    places: int
    gradients: int
    after: int
    contents: int
    lengths: int


EFFORTS = {
    "full": Effort(splits=8, phases=6, places=24, gradients=3, after=32, contents=2, lengths=16),
    "quick": Effort(splits=2, phases=3, places=8, gradients=1, after=8, contents=1, lengths=4),
}
