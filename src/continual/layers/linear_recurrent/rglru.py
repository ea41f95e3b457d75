"""`RGLRU`: the gated linear recurrent unit of Griffin, Hawk and RecurrentGemma."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recurrence import States
from .base import LinearRecurrence
from .diagonal import diagonal

SHARPNESS = 8.0  # the constant c of the paper


class RGLRU(LinearRecurrence):
    """The real-gated linear recurrent unit: ``h = a h + sqrt(1 - a²) (i x)`` with a decay ``a = exp(-8 r softplus(p))``.

    The gates ``r`` and ``i`` are sigmoids of maps of the step, one for each block of channels. The first step of a stream enters
    without the factor ``sqrt(1 - a²)``. Names of parameters are those of ``RecurrentGemmaRglru`` of transformers.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``, and of the outputs.
        num_blocks: blocks of channels, each with a map of its own.
        device, dtype: as in ``torch.nn``.

    Raises:
        ValueError: the blocks do not divide the channels.
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.RGLRU(8, num_blocks=2), torch.randn(2, 8, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: De et al. (2024), Griffin, section 2.4.
    """

    diagonal_state = "hidden"

    def __init__(self, channels: int, num_blocks: int = 1, device: Any = None, dtype: Any = None):
        super().__init__()
        if channels % num_blocks:
            raise ValueError(f"RGLRU: {num_blocks} blocks do not divide {channels} channels")
        self.channels, self.num_blocks = channels, num_blocks
        width, home = channels // num_blocks, {"device": device, "dtype": dtype}
        self.recurrent_param = nn.Parameter(torch.empty(channels, **home))
        for gate in ("input", "recurrent"):
            setattr(self, f"{gate}_gate_weight", nn.Parameter(torch.empty(num_blocks, width, width, **home)))
            setattr(self, f"{gate}_gate_bias", nn.Parameter(torch.empty(num_blocks, width, **home)))
        self.reset_parameters()

    input_gate_weight: Tensor
    input_gate_bias: Tensor
    recurrent_gate_weight: Tensor
    recurrent_gate_bias: Tensor

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Decays ``exp(-8 softplus(p))`` from 0.9 to 0.999, uniform in their squares, and small maps."""
        square = torch.empty_like(self.recurrent_param).uniform_(0.9**2, 0.999**2)
        self.recurrent_param.copy_(torch.log(torch.expm1(-square.log() / (2 * SHARPNESS))))
        for gate in ("input", "recurrent"):
            getattr(self, f"{gate}_gate_weight").normal_(0, 1 / math.sqrt(self.channels // self.num_blocks))
            getattr(self, f"{gate}_gate_bias").zero_()

    def extra_repr(self) -> str:
        return f"{self.channels}, num_blocks={self.num_blocks}"

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        return {"hidden": (self.channels,), "begun": (1,)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        blocks = x.unflatten(-1, (self.num_blocks, -1)).movedim(-2, 0)  # a product for each block, not one for each frame
        opened = self._gate(blocks, self.input_gate_weight, self.input_gate_bias)
        log_a = -SHARPNESS * self._gate(blocks, self.recurrent_gate_weight, self.recurrent_gate_bias)
        log_a = self.wide(log_a * F.softplus(self.recurrent_param))
        factor = self._factor(log_a, state["begun"])
        h, last = diagonal(log_a.exp(), self.wide(x * opened) * factor, state["hidden"])
        return h.to(x.dtype), {"hidden": last, "begun": torch.ones_like(state["begun"])}

    def _gate(self, blocks: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mapped = torch.baddbmm(bias.unsqueeze(1), blocks.flatten(1, -2), weight)
        return torch.sigmoid(mapped.view(blocks.shape).movedim(0, -2).flatten(-2))

    def _factor(self, log_a: Tensor, begun: Tensor) -> Tensor:
        """``sqrt(1 - a²)``, without the cancellation at ``a`` near 1; 1 for the first step of a stream."""
        factor = (-torch.expm1(2 * log_a)).clamp_min(torch.finfo(log_a.dtype).tiny).sqrt()
        if factor.ndim == begun.ndim:
            return torch.where(begun > 0, factor, 1.0)
        return torch.cat((torch.where(begun.unsqueeze(1) > 0, factor[:, :1], 1.0), factor[:, 1:]), 1)
