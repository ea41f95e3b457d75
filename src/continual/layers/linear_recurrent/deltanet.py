"""`DeltaNet`: linear attention whose memory is corrected where it is written."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recurrence import States
from .base import HeadNorm, LinearRecurrence, Projection, causal_conv, depthwise, keys_and_values
from .outer import delta_rule


class DeltaNet(LinearRecurrence):
    """Linear attention with the delta rule: ``S = S + β k (v - Sᵀ k)ᵀ``, ``y = Sᵀ q`` in each head, with ``β = sigmoid(W_b x)``.

    Queries, keys and values go through causal depthwise convolutions and SiLU; queries and keys are then divided by their lengths.
    Names of parameters are those of ``DeltaNet`` of flash-linear-attention.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``, and of the outputs.
        num_heads: heads.
        expand_k, expand_v: channels of the keys and of the values, of all heads, for each channel.
        conv_size: frames of the convolutions.
        norm_eps: of the norm of a head.
        device, dtype: as in ``torch.nn``.

    Raises:
        ValueError: the heads do not divide the channels of keys or values.
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.DeltaNet(8, num_heads=2), torch.randn(2, 8, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: Yang et al. (2024), Parallelizing Linear Transformers with the Delta Rule over Sequence Length, sections 2 and 3.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 4,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        conv_size: int = 4,
        norm_eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        home = {"device": device, "dtype": dtype}
        keys, values = keys_and_values("DeltaNet", channels, num_heads, expand_k, expand_v)
        self.channels, self.heads, self.keys, self.values, self.kernel = channels, num_heads, keys, values, conv_size
        self.q_proj, self.k_proj = (Projection(channels, keys, False, **home) for _ in range(2))
        self.v_proj = Projection(channels, values, False, **home)
        self.b_proj = Projection(channels, num_heads, False, **home)
        self.q_conv1d, self.k_conv1d = (depthwise(keys, conv_size, False, **home) for _ in range(2))
        self.v_conv1d = depthwise(values, conv_size, False, **home)
        self.o_norm = HeadNorm(values // num_heads, norm_eps, **home)
        self.o_proj = Projection(values, channels, False, **home)

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, num_heads={self.heads}, keys of {self.keys // self.heads}, values of {self.values // self.heads}"
        )

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        windows = {name: (size, self.kernel - 1) for name, size in (("q", self.keys), ("k", self.keys), ("v", self.values))}
        return {**windows, "memory": (self.heads, self.keys // self.heads, self.values // self.heads)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        new, made = States(), []
        for name in "qkv":
            y, new[name] = causal_conv(getattr(self, f"{name}_conv1d"), getattr(self, f"{name}_proj")(x), state[name])
            made.append(self.wide(F.silu(y)).unflatten(-1, (self.heads, -1)))
        q, k = (F.normalize(t, dim=-1, eps=1e-6) for t in made[:2])
        beta = torch.sigmoid(self.wide(self.b_proj(x))).unsqueeze(-1)
        y, new["memory"] = delta_rule(q * q.shape[-1] ** -0.5, k, made[2], beta, state["memory"])
        return torch.as_tensor(self.o_proj(self.o_norm(y.to(x.dtype)).flatten(-2))), new
