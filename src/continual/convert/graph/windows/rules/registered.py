"""Modules of registered classes that stay one call: torch.export can't follow their code, or would unroll many frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.func import functional_call

from .....core.module import CoModule
from ...registered_calls import CALLS
from ..walk import Walk, rule
from ..window_call import Call


@dataclass(frozen=True)
class LayerOfClips:
    """The clip form of a layer as a function of a clip and of weights.

    Attributes:
        layer: the layer, whose own weights are not used.
        weights: for each of its parameters and buffers, which of the weights it is.
    """

    layer: CoModule
    weights: dict[str, int]

    def __call__(self, x: Tensor, weights: Sequence[Tensor], number: int) -> Tensor:
        """What the layer gives for a clip."""
        own = {name: weights[i] for name, i in self.weights.items()}
        found: Tensor = functional_call(self.layer, own, (x,))
        return found


@rule("continual.registered_call.default")
def registered(w: Walk, call: Call) -> Any:
    """The layer on the window."""
    entry = CALLS[call["number"]]
    found = LayerOfClips(entry.copy_of_layer(of_clips=True), dict(entry.weights))
    return w.window(call, function=found)
