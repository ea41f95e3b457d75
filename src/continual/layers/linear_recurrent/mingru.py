"""`minGRU`: a gated unit whose gate sees the input alone, so that its state is carried by a linear map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..recurrence import States
from .base import LinearRecurrence, Projection
from .diagonal import diagonal


class minGRU(LinearRecurrence):
    """A minimal gated recurrent unit: ``h = (1 - z) h + z h̃`` with ``z = sigmoid(W_z x)`` and ``h̃ = W_h x``.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``.
        hidden_size: channels of the state, which is the output ``(B, H, T)``; by default those of the steps.
        bias: whether the two maps have one.
        device, dtype: as in ``torch.nn``.

    Raises:
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.minGRU(4, 6), torch.randn(2, 4, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: Feng et al. (2024), Were RNNs All We Needed?, section 3.1.
    """

    diagonal_state = "hidden"

    def __init__(self, channels: int, hidden_size: int | None = None, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__()
        self.channels, self.hidden_size = channels, channels if hidden_size is None else hidden_size
        self.linear_z = Projection(channels, self.hidden_size, bias, device, dtype)
        self.linear_h = Projection(channels, self.hidden_size, bias, device, dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.hidden_size}"

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        return {"hidden": (self.hidden_size,)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        gate = self.linear_z(x)
        inputs = torch.sigmoid(gate) * self.linear_h(x)
        h, last = diagonal(self.wide(torch.sigmoid(-gate)), self.wide(inputs), state["hidden"])
        return h.to(x.dtype), {"hidden": last}
