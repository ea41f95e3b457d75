"""Why a network can't be a step program: the documented reasons. No tests are in this file."""

from __future__ import annotations

BURST = "pads the start by more than its window"
BEYOND = "padding beyond its window"
MIRROR = "frames that come later than outputs that see them"
DATA = "its predicate looks at the data"
POSITIONS = "numbers the frames of the clip"
GIVEN = "has an input that is not a stream"

DOCUMENTED = (BURST, BEYOND, MIRROR, DATA, POSITIONS, GIVEN)


def documented(error: Exception) -> bool:
    """Whether an error names one of the reasons."""
    return str(error).startswith("co.compile: ") and any(reason in str(error) for reason in DOCUMENTED)
