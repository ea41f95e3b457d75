"""Mixers of transformers as layers of this library. They are known by the names of their classes: transformers is not imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ...core.module import CoModule
from ...core.naming import named
from ...core.registry import register_by_name
from ...errors import NotStreamable
from .base import LinearRecurrence
from .mamba import Mamba
from .mamba2 import Mamba2
from .rglru import RGLRU
from .rwkv import RWKV

META: dict[str, Any] = {"device": "meta"}


def _mamba(m: Any) -> LinearRecurrence:
    sizes = (m.hidden_size, m.ssm_state_size, m.conv_kernel_size, m.intermediate_size / m.hidden_size, m.time_step_rank)
    return Mamba(*sizes, bool(m.use_bias), bool(m.use_conv_bias), getattr(m, "rms_eps", None), **META)


def _mamba2(m: Any) -> LinearRecurrence:
    if m.norm.group_size * m.n_groups != m.intermediate_size:  # in earlier versions the norm has no groups, and no such number
        raise ValueError("a norm of other groups")
    sizes = (m.hidden_size, m.num_heads, m.head_dim, m.ssm_state_size, m.n_groups, m.conv_kernel_size)
    return Mamba2(*sizes, bool(m.use_bias), bool(m.use_conv_bias), m.norm.variance_epsilon, tuple(m.time_step_limit), **META)


def _rglru(m: Any) -> LinearRecurrence:
    return RGLRU(len(m.recurrent_param), m.num_attention_heads, **META)


def _rwkv(m: Any) -> LinearRecurrence:
    return RWKV(m.time_mix_key.shape[-1], m.attention_hidden_size, **META)


def _empty(make: Callable[[Any], LinearRecurrence], module: Any) -> LinearRecurrence | None:
    """The layer without values; ``None`` where the module is of another version, or has other parameters or another activation."""
    if getattr(module, "activation", "silu") not in ("silu", "swish"):
        return None
    try:
        made = make(module)
    except (AttributeError, ValueError):
        return None
    same = {n: p.shape for n, p in made.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
    return made if same else None


def _builder(make: Callable[[Any], LinearRecurrence]) -> Callable[[nn.Module, dict[int, Any], str], CoModule]:
    def build(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
        made = _empty(make, module)
        if made is None:
            raise NotStreamable(
                f"{named(path, module)}: its parameters or its activation are not those of the class as transformers 5 has it. Remedy: "
                "convert its code, co.continual(module, clip, time_dim=1)"
            )
        for name, p in module.named_parameters():
            holder, _, leaf = name.rpartition(".")
            made.get_submodule(holder)._parameters[leaf] = nn.Parameter(p.detach().clone(), p.requires_grad)
        made.single = True
        made._set_time_dim(1)
        return made.train(module.training)

    return build


def _register(file: str, name: str, make: Callable[[Any], LinearRecurrence], one_tensor: bool = True) -> None:
    full = f"transformers.models.{file}.modeling_{file}.{name}"
    register_by_name(full, _builder(make), (lambda m: _empty(make, m) is not None) if one_tensor else None)


_register("mamba", "MambaMixer", _mamba)
_register("falcon_mamba", "FalconMambaMixer", _mamba)
_register("mamba2", "Mamba2Mixer", _mamba2)
_register("bamba", "BambaMixer", _mamba2)
_register("granitemoehybrid", "GraniteMoeHybridMambaLayer", _mamba2)
_register("recurrent_gemma", "RecurrentGemmaRglru", _rglru, one_tensor=False)  # it takes positions too
_register("rwkv", "RwkvSelfAttention", _rwkv)
