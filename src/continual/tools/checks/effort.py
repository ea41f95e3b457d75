"""The number of attempts of each check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The number of attempts of each check.

    Attributes:
        splits: random splits into chunks.
        phases: moments of a stream at which a check acts.
        places: the most lengths of clips to test.
        gradients: splits through which gradients are taken.
        after: the number of steps past the first output for gradients.
        contents: further contents for the search for early outputs.
        lengths: other lengths at which forward is compared with the reference.
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
