"""Streaming modules in the tables of the counter `ptflops`, which looks up the exact class of a module.

It counts 0 for a class that is not there: for ``co.Conv1d``, a subclass of ``nn.Conv1d``. The classes of a network are entered when ptflops
takes it: `import continual` neither imports ptflops nor changes it.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

Hook = Callable[[nn.Module, Any, Any], None]


class SetByPtflops:
    """An attribute that ptflops sets on modules.

    Args:
        answer: what to do then, with the module and the base class of streaming modules.
    """

    def __init__(self, answer: Callable[[nn.Module, type[nn.Module]], None]):
        self.answer = answer

    def __set_name__(self, owner: type[nn.Module], name: str) -> None:
        self.owner, self.name = owner, name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        try:
            return instance.__dict__[self.name]
        except KeyError:
            raise AttributeError(self.name) from None

    def __set__(self, instance: nn.Module, value: object) -> None:
        if "ptflops.aten_ops" in sys.modules:  # copies of ptflops in other packages have tables of their own
            self.answer(instance, self.owner)
        instance.__dict__[self.name] = value

    def __delete__(self, instance: nn.Module) -> None:
        del instance.__dict__[self.name]


def enter_network(net: nn.Module, base: type[nn.Module]) -> None:
    """Enter the classes of a network, at whose root ptflops has begun."""
    enter(module for module in net.modules() if isinstance(module, base))


def warn_if_left_out(module: nn.Module, base: type[nn.Module]) -> None:
    """Say that ptflops, which has run the network, has counted this module as 0: it began at a plain module around it."""
    from ptflops import pytorch_engine, pytorch_ops

    cls = type(module)
    if cls not in pytorch_engine.CUSTOM_MODULES_MAPPING and cls not in pytorch_ops.MODULES_MAPPING and _hook(cls):
        warnings.warn(
            f"ptflops counts 0 for {cls.__name__}, which is in a plain module and not in the table of ptflops. Call "
            "co.counting.register_with_ptflops(module) before, with the module that you give to ptflops",
            stacklevel=3,
        )


def enter(modules: Iterable[nn.Module]) -> None:
    """Enter the classes of streaming modules in the tables of both backends. Entries that ptflops or the user made are kept."""
    from ptflops import aten_ops, pytorch_ops

    table = pytorch_ops.MODULES_MAPPING
    table.update({cls: hook for cls in {type(module) for module in modules} - table.keys() if (hook := _hook(cls))})
    aten_ops.ATEN_OPS_MAPPING.setdefault(torch.ops.aten.baddbmm, _baddbmm_macs)  # steps of convolutions call it


def _hook(cls: type[nn.Module]) -> Hook | None:
    """What counts a call of a class: its own formula, or that of its ``torch.nn`` class."""
    from ptflops import pytorch_ops

    if hasattr(cls, "_macs_of_call"):
        return partial(_count, _count_own)
    base = next((c for c in cls.__mro__ if c in pytorch_ops.MODULES_MAPPING), None)
    return None if base is None else partial(_count, pytorch_ops.MODULES_MAPPING[base])


def _baddbmm_macs(inputs: Any, outputs: Any) -> int:
    """As ptflops counts ``addmm``: multiply-adds, and one for each bias."""
    return math.prod(inputs[1].shape) * inputs[2].shape[-1] + math.prod(outputs[0].shape)


def _count_own(module: Any, args: Any, output: Any) -> None:
    """Count a call of a module that knows its own multiply-adds."""
    module.__flops__ += module._macs_of_call(args[0], output)


def _count(hook: Hook, module: nn.Module, args: Any, output: Any) -> None:
    """Count a call as ptflops counts the ``torch.nn`` class; features go to the last dimension, where ptflops looks for them."""
    if output is None:
        warnings.warn(
            f"ptflops counts one call, and this step completes no output of {type(module).__name__}: what would give one, and the modules "
            "after it, are not counted. Call net.warm_up(step_shape) before; at temporal strides above 1, co.summary gives the mean",
            stacklevel=2,
        )
        if hook is not _count_own:
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
