"""Windows that would lose frames at the start of a clip, beside a shortcut that loses none: squeeze and excitation."""

from __future__ import annotations

import copy
from typing import Any

from ..core.module import CoModule
from ..core.timing import Timing
from ..layers.pooling.adaptive import AdaptivePool
from .sequential import Sequential


def lost_frames(timing: Timing) -> int:
    """How many frames fewer than a long clip of a multiple of its period a module returns; negative where it returns more."""
    steps = timing.period * (timing.transient // timing.period + 2)
    return steps - timing.ended(steps)


def with_every_frame(module: CoModule) -> CoModule:
    """A module that returns an output for every frame, if its adaptive pools alone lose frames: their windows then reach back.

    What is no pool is the very same object.
    """
    if module.timing.stride != 1 or lost_frames(module.timing) <= 0:
        return module
    made = _reaching_back(module)
    return made if lost_frames(made.timing) == 0 else module


def _reaching_back(module: CoModule) -> CoModule:
    if isinstance(module, AdaptivePool):
        return module.reaching_back()
    if not isinstance(module, Sequential):
        return module
    made: Any = copy.copy(module)
    made.__dict__["_modules"] = {name: _reaching_back(child) for name, child in zip(module._modules, module, strict=True)}
    made._changed()
    return made
