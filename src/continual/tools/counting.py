"""Counting multiply-adds with other people's counters: `ptflops`, and `FlopCounterMode` of torch.

:func:`continual.summary` works the multiply-adds out from the sizes of the layers, and gives the mean over a stride period. The two
counters watch one call. This file gives them what they need to count it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..core.module import CoModule
from ..core.ptflops import enter

__all__ = ["flop_formulas", "register_with_ptflops"]


def __dir__() -> list[str]:
    return __all__


def register_with_ptflops(net: nn.Module) -> None:
    """Enter the classes of a network in the tables of ptflops, whose two backends then count them as ``torch.nn`` classes.

    A streaming network enters its classes by itself when ``ptflops.get_model_complexity_info`` takes it. This call is for a plain
    ``nn.Module`` around streaming modules, and for the backend ``"aten"``. The entries stay for the process.

    Args:
        net: a network with streaming modules at any depth.

    Raises:
        ImportError: ptflops is not installed.
    """
    try:
        enter(module for module in net.modules() if isinstance(module, CoModule))
    except ImportError as error:
        raise ImportError(f"co.counting.register_with_ptflops needs ptflops: pip install ptflops ({error})") from error


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas that torch's ``FlopCounterMode`` lacks: it counts 0 for an LSTM in float32 and for attention on a CPU.

    Example:
        >>> from torch.utils.flop_counter import FlopCounterMode
        >>> with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=co.counting.flop_formulas()) as counter:
        ...     y = nn.LSTM(4, 8)(torch.randn(10, 1, 4))
        >>> counter.get_total_flops() == 2 * 10 * 4 * 8 * (4 + 8)
        True
    """
    aten = torch.ops.aten
    return {
        aten.mkldnn_rnn_layer: _rnn_layer_flops,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }


# ---- formulas -------------------------------------------------------------------------------------------------------


def _rnn_layer_flops(x: Any, to_input: Any, to_hidden: Any, *args: Any, **kwargs: Any) -> int:
    """One layer in one direction; shapes ``(T, B, I)``, ``(gates, I)`` and ``(gates, H)``."""
    return 2 * x[0] * x[1] * (math.prod(to_input) + math.prod(to_hidden))


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Shapes ``(B, heads, L, E)``, ``(B, heads, S, E)`` and ``(B, heads, S, V)``, masked or not."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
