"""How counters of multiply-adds see streaming modules: `ptflops`, and `FlopCounterMode` of torch.

:func:`continual.summary` is the figure to rely on: it is worked out from the layers' sizes and gives the mean over a stride period. The
two counters watch one call instead, and this file lets them see what they would miss.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch import nn

Hook = Callable[[nn.Module, Any, Any], None]


class Countable(nn.Module):
    """Base class of modules that make themselves known to ptflops when it is about to count them.

    It looks a module's exact class up, so that subclasses of ``nn.Conv1d`` count nothing until they are entered. Before that it calls
    ``apply`` (its backend "pytorch") or ``train`` (its backend "aten") on the network: this is the moment. Nothing is imported.
    """

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """As ``torch.nn.Module.apply``."""
        _enter(type(self))
        return super().apply(fn)

    def train(self, mode: bool = True) -> Self:
        """As ``torch.nn.Module.train``."""
        _enter(type(self))
        return super().train(mode)


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas that torch's ``FlopCounterMode`` lacks: LSTM in float32 and attention on a CPU, which it counts as nothing.

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
    """One layer in one direction, of the shapes ``(T, B, I)``, ``(gates, I)`` and ``(gates, H)``."""
    return 2 * x[0] * x[1] * (math.prod(to_input) + math.prod(to_hidden))


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Of the shapes ``(B, heads, L, E)``, ``(B, heads, S, E)`` and ``(B, heads, S, V)``, masked or not."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _baddbmm_macs(inputs: Any, outputs: Any) -> int:
    """As ptflops counts ``addmm``: multiply-adds, and one for each bias."""
    return math.prod(inputs[1].shape) * inputs[2].shape[-1] + math.prod(outputs[0].shape)


# ---- ptflops --------------------------------------------------------------------------------------------------------


def _enter(cls: type[nn.Module]) -> None:
    """Enter a class, and the operations that steps use, into the tables of ptflops if that is loaded."""
    if (engine := sys.modules.get("ptflops.pytorch_ops")) is not None and cls not in engine.MODULES_MAPPING:
        base = next((c for c in cls.__mro__ if c in engine.MODULES_MAPPING), None)
        if hasattr(cls, "macs_of_call"):
            engine.MODULES_MAPPING[cls] = partial(_counted, _own)
        elif base is not None:
            engine.MODULES_MAPPING[cls] = partial(_counted, engine.MODULES_MAPPING[base])
    if (engine := sys.modules.get("ptflops.aten_ops")) is not None:
        engine.ATEN_OPS_MAPPING.setdefault(torch.ops.aten.baddbmm, _baddbmm_macs)


def _own(module: Any, args: Any, output: Any) -> None:
    """Count by the module itself."""
    module.__flops__ += module.macs_of_call(args[0], output)


def _counted(hook: Hook, module: nn.Module, args: Any, output: Any) -> None:
    """Count a call as ptflops counts the ``torch.nn`` class, whose layout of features may be another."""
    if output is None:
        warnings.warn(
            f"ptflops counts the call that it makes, and this step completes no output of {type(module).__name__}: neither that nor what "
            "comes after it is counted. Call net.warm_up(step_shape) before; at temporal strides above 1, co.summary gives the mean",
            stacklevel=2,
        )
        return
    x, y = args[0], output
    for cls, (of_input, of_output) in _FEATURES.items():
        if isinstance(module, cls):
            x = x.reshape(-1, 1, getattr(module, of_input))
            y = y.reshape(-1, 1, getattr(module, of_output)) if of_output else y
    hook(module, (x, *args[1:]), y)


# Classes that count vectors of features, of which ptflops takes the last dimension for the features and the first two for how many
# there are; streaming modules have them in (B, C, T) too. Attributes with the size of an input and, where it is asked for, an output.
_FEATURES: dict[type[nn.Module], tuple[str, str]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.RNNBase: ("input_size", ""),
    nn.RNNCellBase: ("input_size", ""),
}
