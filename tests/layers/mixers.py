"""Mixers with the names, parameters and formulas of transformers' ones, which need no transformers. No tests are in this file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.layers.linear_recurrences import mamba, mamba2, rg_lru, rwkv


def of_transformers(file: str, name: str) -> Any:
    """Give a class the full name that a class of transformers has."""

    def named(cls: type) -> type:
        cls.__module__, cls.__qualname__, cls.__name__ = f"transformers.models.{file}.modeling_{file}", name, name
        return cls

    return named


class _Selective(nn.Module):
    """What Mamba and FalconMamba share."""

    def __init__(self, width: int = 6, inner: int = 9, size: int = 3, rank: int = 2, kernel: int = 3, activation: str = "silu"):
        super().__init__()
        self.hidden_size, self.ssm_state_size, self.conv_kernel_size, self.intermediate_size = width, size, kernel, inner
        self.time_step_rank, self.activation, self.use_bias, self.use_conv_bias = rank, activation, True, True
        self.conv1d = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.in_proj, self.out_proj = nn.Linear(width, 2 * inner), nn.Linear(inner, width)
        self.x_proj, self.dt_proj = nn.Linear(inner, rank + 2 * size, bias=False), nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, size + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))

    def forward(self, hidden_states: Tensor, cache: Any = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask[:, :, None]
        like = SimpleNamespace(**self._modules, **self._parameters, rank=self.time_step_rank, state_size=self.ssm_state_size)
        like.norm_eps = getattr(self, "rms_eps", None)
        return mamba(like, hidden_states.transpose(1, 2)).transpose(1, 2)


@of_transformers("mamba", "MambaMixer")
class MambaMixer(_Selective):
    pass


@of_transformers("falcon_mamba", "FalconMambaMixer")
class FalconMambaMixer(_Selective):
    rms_eps = 1e-6


@of_transformers("mamba2", "Mamba2Mixer")
class Mamba2Mixer(nn.Module):
    activation, use_bias, use_conv_bias, time_step_limit = "silu", False, True, (0.05, 0.6)
    hidden_size, num_heads, head_dim, ssm_state_size, n_groups, conv_kernel_size, intermediate_size = 6, 4, 3, 5, 2, 4, 12

    def __init__(self) -> None:
        super().__init__()
        mixed = 12 + 2 * 10
        self.conv1d = nn.Conv1d(mixed, mixed, 4, groups=mixed, padding=3)
        self.in_proj, self.out_proj = nn.Linear(6, 12 + mixed + 4, bias=False), nn.Linear(12, 6, bias=False)
        self.dt_bias, self.A_log, self.D = nn.Parameter(torch.randn(4)), nn.Parameter(torch.rand(4)), nn.Parameter(torch.ones(4))
        self.norm = nn.Module()
        self.norm.weight, self.norm.variance_epsilon = nn.Parameter(torch.ones(12)), 1e-5
        self.norm.group_size = 6

    def forward(self, hidden_states: Tensor, cache: Any = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        own = {k: v for k, v in self._modules.items() if k != "norm"}
        norm = SimpleNamespace(weight=self.norm.weight, eps=1e-5)
        like = SimpleNamespace(
            **own,
            **self._parameters,
            norm=norm,
            sizes=(12, 10, 10),
            heads=4,
            head_dim=3,
            state_size=5,
            groups=2,
            limit=(0.05, 0.6),
        )
        return mamba2(like, hidden_states.transpose(1, 2)).transpose(1, 2)


@of_transformers("bamba", "BambaMixer")
class BambaMixer(Mamba2Mixer):
    def forward(self, hidden_states: Tensor, cache: Any = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        return super().forward(hidden_states)


@of_transformers("granitemoehybrid", "GraniteMoeHybridMambaLayer")
class GraniteMoeHybridMambaLayer(Mamba2Mixer):
    def forward(self, hidden_states: Tensor, cache: Any = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        return super().forward(hidden_states)


@of_transformers("recurrent_gemma", "RecurrentGemmaRglru")
class RecurrentGemmaRglru(nn.Module):
    num_attention_heads = 2

    def __init__(self) -> None:
        super().__init__()
        self.recurrent_param = nn.Parameter(torch.randn(6))
        for gate in ("input", "recurrent"):
            setattr(self, f"{gate}_gate_weight", nn.Parameter(torch.randn(2, 3, 3)))
            setattr(self, f"{gate}_gate_bias", nn.Parameter(torch.randn(2, 3)))

    def forward(self, activations: Tensor, position_ids: Tensor) -> Tensor:
        like = SimpleNamespace(**self._parameters, num_blocks=2)
        return rg_lru(like, activations.transpose(1, 2)).transpose(1, 2)


@of_transformers("rwkv", "RwkvSelfAttention")
class RwkvSelfAttention(nn.Module):
    attention_hidden_size = 7

    def __init__(self) -> None:
        super().__init__()
        self.time_decay, self.time_first = nn.Parameter(torch.randn(7)), nn.Parameter(torch.randn(7))
        for name in ("key", "value", "receptance"):
            setattr(self, f"time_mix_{name}", nn.Parameter(torch.rand(1, 1, 6)))
            setattr(self, name, nn.Linear(6, 7, bias=False))
        self.output = nn.Linear(7, 6, bias=False)

    def forward(self, hidden: Tensor, state: Any = None, use_cache: bool = False) -> tuple[Tensor, Any]:
        like = SimpleNamespace(**self._modules, **self._parameters)
        return rwkv(like, hidden.transpose(1, 2)).transpose(1, 2), state
