"""`Mamba`: a selective state-space layer with a state for each channel."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recurrence import States
from .base import LinearRecurrence, Projection, causal_conv, depthwise, rms
from .diagonal import diagonal

IN_CACHE = 1 << 17  # numbers of states that are made at a time


class Mamba(LinearRecurrence):
    """A selective state space: ``h = exp(Δ A) h + Δ x Bᵀ``, ``y = h C + D x`` in each channel; Δ, B and C depend on the input.

    Around it: a map to twice the inner channels, of which one half is the gate, a causal depthwise convolution and SiLU before the
    recurrence, and a map back. Names and shapes of parameters are those of ``MambaMixer`` of transformers and of ``mamba_ssm``.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``, and of the outputs.
        state_size: numbers of state in each inner channel.
        conv_kernel: frames of the convolution.
        expand: inner channels for each channel.
        time_step_rank: of the map to Δ; by default a sixteenth of the channels.
        bias: whether the outer maps have one.
        conv_bias: whether the convolution has one.
        norm_eps: with a number, Δ before its map, B and C are divided by the roots of their mean squares, as FalconMamba does.
        device, dtype: as in ``torch.nn``.

    Raises:
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.Mamba(8, state_size=4), torch.randn(2, 8, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: Gu and Dao (2023), Mamba, section 3; for ``norm_eps`` Zuo et al. (2024), Falcon Mamba.
    """

    diagonal_state = "state"

    def __init__(
        self,
        channels: int,
        state_size: int = 16,
        conv_kernel: int = 4,
        expand: float = 2,
        time_step_rank: int | None = None,
        bias: bool = False,
        conv_bias: bool = True,
        norm_eps: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        home, inner = {"device": device, "dtype": dtype}, int(channels * expand)
        rank = math.ceil(channels / 16) if time_step_rank is None else time_step_rank
        self.channels, self.inner, self.state_size, self.rank, self.norm_eps = channels, inner, state_size, rank, norm_eps
        self.in_proj = Projection(channels, 2 * inner, bias, **home)
        self.conv1d = depthwise(inner, conv_kernel, conv_bias, **home)
        self.x_proj = Projection(inner, rank + 2 * state_size, False, **home)
        self.dt_proj = Projection(rank, inner, True, **home)
        self.A_log = nn.Parameter(torch.arange(1, state_size + 1, **home).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner, **home))
        self.out_proj = Projection(inner, channels, bias, **home)
        start_steps(self.dt_proj.bias)

    def extra_repr(self) -> str:
        return f"{self.channels}, state_size={self.state_size}, inner={self.inner}"

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        return {"window": (self.inner, self.conv1d.weight.shape[-1] - 1), "state": (self.inner, self.state_size)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        inner, gate = self.in_proj(x).chunk(2, -1)
        inner, window = causal_conv(self.conv1d, inner, state["window"])
        inner = F.silu(inner)
        step, b, c = self.x_proj(inner).split((self.rank, self.state_size, self.state_size), -1)
        if self.norm_eps is not None:
            step, b, c = (rms(self.wide(t), self.norm_eps).to(x.dtype) for t in (step, b, c))
        step = F.linear(step, self.dt_proj.weight, self.wide(self.dt_proj.bias).to(x.dtype))
        step = F.softplus(step.to(state["state"].dtype))
        y, last = self._scanned(step, self.wide(inner), self.wide(b), c.to(step.dtype), state["state"])
        y = (y + inner * self.wide(self.D)) * F.silu(gate)
        return self.out_proj(y.to(x.dtype)), {"window": window, "state": last}

    def _scanned(self, step: Tensor, x: Tensor, b: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """What the states give, ``(…, inner)``, and the last one. States of few frames at a time stay in the processor's cache."""
        a, outs = -self.wide(self.A_log).exp(), []
        frames = max(1, IN_CACHE // (self.inner * self.state_size))
        chunks = [(step, x, b, c)] if step.ndim == 2 else zip(*(t.split(frames, 1) for t in (step, x, b, c)), strict=True)
        for dt, u, to, of in chunks:
            states, h = diagonal(torch.exp(dt.unsqueeze(-1) * a), (dt * u).unsqueeze(-1) * to.unsqueeze(-2), h)
            outs.append((of.unsqueeze(-2) @ states.mT).squeeze(-2))  # a row, which torch multiplies four times as fast
        return (outs[0] if len(outs) == 1 else torch.cat(outs, 1)), h


@torch.no_grad()
def start_steps(bias: Tensor, least: float = 1e-3, most: float = 1e-1) -> None:
    """Set a bias so that ``softplus(bias)`` is spread between two time steps, in their logarithms."""
    steps = torch.empty_like(bias).uniform_(math.log(least), math.log(most)).exp()
    bias.copy_(steps + torch.log(-torch.expm1(-steps)))
