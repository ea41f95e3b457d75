"""All networks that conversion by graph is tested on, by name. No tests are in this file."""

from __future__ import annotations

from tests.convert import sequences, speech, vision
from tests.convert.cases import NETWORKS, Case

__all__ = ["NETWORKS", "Case", "made", "sequences", "speech", "vision"]


def made(name: str, **sizes: int) -> Case:
    """A network by its name, in the sizes of the tests unless others are given."""
    return NETWORKS[name](**sizes)
