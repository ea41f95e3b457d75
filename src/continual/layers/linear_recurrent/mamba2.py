"""`Mamba2`: a selective state-space layer whose heads have a matrix of state and one decay each."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recurrence import States
from .base import LinearRecurrence, Projection, causal_conv, depthwise, rms
from .mamba import start_steps
from .outer import gated_outer


class GatedNorm(nn.Module):
    """A root-mean-square norm of groups of channels behind a gate."""

    def __init__(self, size: int, groups: int, eps: float, **home: Any):
        super().__init__()
        self.weight, self.groups, self.eps = nn.Parameter(torch.ones(size, **home)), groups, eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """``(…, size)``, computed in the type of ``x``."""
        grouped = (x * F.silu(gate.to(x.dtype))).unflatten(-1, (self.groups, -1))
        return self.weight * rms(grouped, self.eps).flatten(-2)


class Mamba2(LinearRecurrence):
    """A state-space dual layer: ``S = exp(Δ A) S + B (Δ x)ᵀ``, ``y = Sᵀ C + D x`` in each head; Δ, B and C depend on the input.

    Around it: one map to the gate, to Δ, and to what a causal depthwise convolution with SiLU makes x, B and C of. Behind it: a gated
    norm and a map back. Names and shapes of parameters are those of ``Mamba2Mixer`` of transformers and of ``mamba_ssm``.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``, and of the outputs.
        num_heads, head_dim: heads, and inner channels in each; by default heads of 64, for twice the channels.
        state_size: rows of the state of a head.
        groups: heads of a group share B and C.
        conv_kernel: frames of the convolution.
        bias: whether the outer maps have one.
        conv_bias: whether the convolution has one.
        norm_eps: of the norm.
        time_step_limit: bounds of Δ.
        device, dtype: as in ``torch.nn``.

    Raises:
        ValueError: the groups do not divide the heads.
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.Mamba2(8, num_heads=4, head_dim=4, state_size=6), torch.randn(2, 8, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: Dao and Gu (2024), Transformers are SSMs, sections 6 and 7.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int | None = None,
        head_dim: int = 64,
        state_size: int = 128,
        groups: int = 1,
        conv_kernel: int = 4,
        bias: bool = False,
        conv_bias: bool = True,
        norm_eps: float = 1e-5,
        time_step_limit: tuple[float, float] = (0.0, float("inf")),
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        heads = math.ceil(2 * channels / head_dim) if num_heads is None else num_heads
        if heads % groups:
            raise ValueError(f"Mamba2: {groups} groups do not divide {heads} heads")
        home, inner, outer = {"device": device, "dtype": dtype}, heads * head_dim, groups * state_size
        self.channels, self.heads, self.head_dim, self.state_size, self.groups = channels, heads, head_dim, state_size, groups
        self.limit, self.sizes = (float(time_step_limit[0]), float(time_step_limit[1])), (inner, outer, outer)
        self.in_proj = Projection(channels, 2 * inner + 2 * outer + heads, bias, **home)
        self.conv1d = depthwise(inner + 2 * outer, conv_kernel, conv_bias, **home)
        self.dt_bias = nn.Parameter(torch.empty(heads, **home))
        self.A_log = nn.Parameter(torch.arange(1, heads + 1, **home).log())
        self.D = nn.Parameter(torch.ones(heads, **home))
        self.norm = GatedNorm(inner, groups, norm_eps, **home)
        self.out_proj = Projection(inner, channels, bias, **home)
        start_steps(self.dt_bias)

    def extra_repr(self) -> str:
        return f"{self.channels}, num_heads={self.heads}, head_dim={self.head_dim}, state_size={self.state_size}, groups={self.groups}"

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        kept = self.conv1d.weight.shape[-1] - 1
        return {"window": (sum(self.sizes), kept), "state": (self.heads, self.state_size, self.head_dim)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        gate, inner, step = self.in_proj(x).split((self.sizes[0], sum(self.sizes), self.heads), -1)
        inner, window = causal_conv(self.conv1d, inner, state["window"])
        values, k, q = self.wide(F.silu(inner)).split(self.sizes, -1)
        values = values.unflatten(-1, (self.heads, -1))
        k, q = (self._by_head(t) for t in (k, q))
        step = self.wide(F.softplus((step + self.dt_bias).to(state["state"].dtype)).clamp(*self.limit)).unsqueeze(-1)
        log_decay = step * -self.wide(self.A_log).exp().unsqueeze(-1)
        y, last = gated_outer(q, k, values * step, log_decay, state["state"])
        y = self.norm((y + values * self.wide(self.D).unsqueeze(-1)).flatten(-2), gate)
        return self.out_proj(y.to(x.dtype)), {"window": window, "state": last}

    def _by_head(self, x: Tensor) -> Tensor:
        """``(…, groups * N)`` as ``(…, heads, N)``."""
        grouped = x.unflatten(-1, (self.groups, 1, self.state_size))
        return grouped.expand(*grouped.shape[:-2], self.heads // self.groups, self.state_size).flatten(-3, -2)
