"""Counting multiply-adds with other people's counters: `ptflops`, and `FlopCounterMode` of torch.

:func:`continual.summary` works the multiply-adds out from the sizes of the layers, and gives the mean over a stride period. The two
counters watch one call. This file gives them what they need to count it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..core.module import CoModule

__all__ = ["flop_formulas", "register_with_ptflops"]


def __dir__() -> list[str]:
    return __all__


_Hook = Callable[[nn.Module, Any, Any], None]


def register_with_ptflops(net: nn.Module) -> None:
    """Enter the classes of a network in the tables of ptflops. Call it before ``ptflops.get_model_complexity_info``.

    ptflops looks up the exact class of a module, so that it counts 0 for ``co.Conv1d``, a subclass of ``nn.Conv1d``. With this call both
    of its backends count a streaming module as its ``torch.nn`` class, in all three call modes. The entries stay for the process; entries
    that ptflops or the user made are kept.

    Args:
        net: a network with streaming modules at any depth.

    Raises:
        ImportError: ptflops is not installed.
    """
    try:
        from ptflops import aten_ops, pytorch_ops
    except ImportError as error:
        raise ImportError(f"co.counting.register_with_ptflops needs ptflops: pip install ptflops ({error})") from error
    table = pytorch_ops.MODULES_MAPPING
    for cls in {type(module) for module in net.modules() if isinstance(module, CoModule)} - table.keys():
        base = next((c for c in cls.__mro__ if c in table), None)
        if hasattr(cls, "_macs_of_call"):
            table[cls] = partial(_count, _count_own)
        elif base is not None:
            table[cls] = partial(_count, table[base])
    aten_ops.ATEN_OPS_MAPPING.setdefault(torch.ops.aten.baddbmm, _baddbmm_macs)  # steps of convolutions call it


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


def _baddbmm_macs(inputs: Any, outputs: Any) -> int:
    """As ptflops counts ``addmm``: multiply-adds, and one for each bias."""
    return math.prod(inputs[1].shape) * inputs[2].shape[-1] + math.prod(outputs[0].shape)


# ---- ptflops --------------------------------------------------------------------------------------------------------


def _count_own(module: Any, args: Any, output: Any) -> None:
    """Count a call of a module that knows its own multiply-adds."""
    module.__flops__ += module._macs_of_call(args[0], output)


def _count(hook: _Hook, module: nn.Module, args: Any, output: Any) -> None:
    """Count a call as ptflops counts the ``torch.nn`` class; features go to the last dimension, where ptflops looks for them."""
    if output is None:
        warnings.warn(
            f"ptflops counts one call, and this step completes no output of {type(module).__name__}: ptflops counts neither this module "
            "nor the modules after it. Call net.warm_up(step_shape) before; at temporal strides above 1, co.summary gives the mean",
            stacklevel=2,
        )
        return
    x, y = args[0], output
    for cls, (of_input, of_output) in _FEATURES.items():
        if isinstance(module, cls):
            x = x.reshape(-1, 1, getattr(module, of_input))
            y = y.reshape(-1, 1, getattr(module, of_output)) if of_output else y
    hook(module, (x, *args[1:]), y)


# ptflops takes the last dimension of these classes for the features, and the product of the others for the number of vectors; streaming
# modules take (B, C, T). For each class: the attributes that hold the size of an input vector and, where ptflops reads it, of an output.
_FEATURES: dict[type[nn.Module], tuple[str, str]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.RNNBase: ("input_size", ""),
    nn.RNNCellBase: ("input_size", ""),
}
