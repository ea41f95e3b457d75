"""The checks that `co.verify` makes, one file per concern. Importing a file registers its checks."""

from . import network, outputs, safety, state, timeliness
from .trial import CHECKS, Broken, Skipped, Trial

__all__ = ["CHECKS", "Broken", "Skipped", "Trial", "network", "outputs", "safety", "state", "timeliness"]
