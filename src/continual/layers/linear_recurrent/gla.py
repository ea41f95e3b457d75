"""`GatedLinearAttention`: linear attention whose key channels forget by gates of their own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recurrence import States
from .base import HeadNorm, LinearRecurrence, Projection, keys_and_values
from .outer import gated_outer


class GatedLinearAttention(LinearRecurrence):
    """Linear attention with gates: ``S = diag(a) S + k vᵀ``, ``y = Sᵀ q`` in each head, with ``a = sigmoid(W₂ W₁ x + b)^(1/τ)``.

    The outputs of a head are divided by the root of their mean square, weighted, and gated by ``silu(W_g x)``. Names of parameters
    are those of ``GatedLinearAttention`` of flash-linear-attention.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``, and of the outputs.
        num_heads: heads.
        expand_k, expand_v: channels of the keys and of the values, of all heads, for each channel.
        gate_low_rank_dim: of the map to the gates.
        gate_logit_normalizer: ``τ``: large ones forget slowly.
        norm_eps: of the norm of a head.
        device, dtype: as in ``torch.nn``.

    Raises:
        ValueError: the heads do not divide the channels of keys or values.
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.GatedLinearAttention(8, num_heads=2), torch.randn(2, 8, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: Yang et al. (2024), Gated Linear Attention Transformers with Hardware-Efficient Training, sections 4 and 5.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 4,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        gate_low_rank_dim: int = 16,
        gate_logit_normalizer: float = 16.0,
        norm_eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        home = {"device": device, "dtype": dtype}
        keys, values = keys_and_values("GatedLinearAttention", channels, num_heads, expand_k, expand_v)
        self.channels, self.heads, self.key_dim, self.value_dim = channels, num_heads, keys // num_heads, values // num_heads
        self.slowness = gate_logit_normalizer
        self.q_proj, self.k_proj = (Projection(channels, keys, False, **home) for _ in range(2))
        self.v_proj, self.g_proj = (Projection(channels, values, False, **home) for _ in range(2))
        low = Projection(channels, gate_low_rank_dim, False, **home)
        self.gk_proj = nn.Sequential(low, Projection(gate_low_rank_dim, keys, True, **home))
        self.g_norm = HeadNorm(self.value_dim, norm_eps, **home)
        self.o_proj = Projection(values, channels, False, **home)

    def extra_repr(self) -> str:
        return f"{self.channels}, num_heads={self.heads}, keys of {self.key_dim}, values of {self.value_dim}"

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        return {"memory": (self.heads, self.key_dim, self.value_dim)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        made = (self.q_proj(x) * self.key_dim**-0.5, self.k_proj(x), self.v_proj(x), self.gk_proj(x))
        q, k, v, gate = (self.wide(t).unflatten(-1, (self.heads, -1)) for t in made)
        y, last = gated_outer(q, k, v, F.logsigmoid(gate) / self.slowness, state["memory"])
        y = self.g_norm(y.to(x.dtype)).flatten(-2) * F.silu(self.g_proj(x))
        return torch.as_tensor(self.o_proj(y)), {"memory": last}
