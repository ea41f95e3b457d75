"""Which `torch.nn` class becomes which streaming class, and how a module is made one: by copying it and changing its class.

A copy whose class is changed keeps all that the module has: parameters and their sharing, buffers, hooks, parametrisations,
dtype, device, ``requires_grad`` and the training flag.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from .errors import NotStreamable
from .local import LOCAL, local
from .module import CoModule

Builder = Callable[[nn.Module, dict[int, Any], str], CoModule]
_classes: dict[type[nn.Module], type[CoModule]] = {}
_builders: dict[type[nn.Module], Builder] = {}
_reasons: dict[type[nn.Module], str] = {}


def register(torch_class: type[nn.Module], co_class: type[CoModule]) -> None:
    """Say which streaming class stands for a module class.

    Args:
        torch_class: the class to convert; its subclasses that do not change ``forward`` are converted too.
        co_class: its streaming class. Its ``build_from(module)`` is called.

    Example:
        >>> class Scale(nn.Module):
        ...     def forward(self, x):
        ...         return 2 * x
        >>> class CoScale(co.Multiply):
        ...     @staticmethod
        ...     def build_from(module):
        ...         return CoScale(2)
        >>> co.convert.register(Scale, CoScale)
        >>> co.continual(nn.Sequential(Scale(), nn.ReLU()))[0]
        CoScale(2)
    """
    if not (isinstance(torch_class, type) and issubclass(torch_class, nn.Module)):
        raise TypeError(f"register(TorchClass, CoClass): {torch_class!r} is no nn.Module class")
    if not (isinstance(co_class, type) and issubclass(co_class, CoModule)):
        raise TypeError(f"register(TorchClass, CoClass): {co_class!r} is no CoModule class")
    _builders[torch_class] = lambda module, memo, path: co_class.build_from(module)


def register_twin(torch_class: type[nn.Module], co_class: type[CoModule]) -> None:
    """Register a class that is a subclass of ``torch_class`` and sets itself up by ``configure``."""
    _classes[torch_class] = co_class


def register_builder(torch_class: type[nn.Module], builder: Builder) -> None:
    """Register a function that builds the streaming module."""
    _builders[torch_class] = builder


def register_refusal(torch_class: type[nn.Module], reason: str) -> None:
    """Register why a class can't be streamed, and what to do."""
    _reasons[torch_class] = reason


def twin(module: nn.Module, memo: dict[int, Any], co_class: type[CoModule], **options: Any) -> Any:
    """A copy of a module as ``co_class``, which is a subclass of the module's own kind."""
    made: Any = copy.deepcopy(module, memo)
    cls = type(module)
    made.__class__ = co_class if cls in _classes else _mixed(co_class, cls)
    made.configure(**options)
    return made


@functools.cache
def _mixed(co_class: type[CoModule], cls: type[nn.Module]) -> type[CoModule]:
    """A streaming class for a subclass of a registered one."""
    if cls.__name__.startswith("Parametrized") and cls.__module__ == parametrize.__name__:
        body = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__", "__getstate__")}
        return type(cls.__name__, (co_class,), body)  # the properties of parametrize, on our class
    return type(cls.__name__, (co_class, cls), {"__reduce_ex__": _reduce, "__module__": __name__, "_mixes": (co_class, cls)})


def _reduce(self: Any, protocol: Any) -> Any:
    return _rebuild, self._mixes, self.__getstate__()


def _rebuild(co_class: type[CoModule], cls: type[nn.Module]) -> nn.Module:
    made = _mixed(co_class, cls)
    return made.__new__(made)


def _lookup(table: dict[type[nn.Module], Any], cls: type[nn.Module]) -> Any:
    """The entry of a class or of the base whose computation it has not changed."""
    for base in cls.__mro__:
        if base in table:
            same = base.forward is cls.forward and getattr(base, "_conv_forward", 0) is getattr(cls, "_conv_forward", 0)
            return table[base] if same else None
    return None


def to_continual(module: nn.Module, memo: dict[int, Any] | None = None, path: str = "") -> CoModule:
    """A module as a streaming module; see :func:`continual.convert.continual`. ``memo`` is that of ``copy.deepcopy``."""
    if isinstance(module, CoModule):
        return module
    if not isinstance(module, nn.Module):
        raise NotStreamable(f"{path or 'continual'}: takes an nn.Module, not {type(module).__name__}")
    memo = {} if memo is None else memo
    done = memo.setdefault("converted", {})  # type: ignore[call-overload]
    if id(module) not in done:
        done[id(module)] = (module, _convert(module, memo, path))
    made: CoModule = done[id(module)][1]
    return made


def _convert(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
    cls = type(module)
    if builder := _lookup(_builders, cls):
        made: CoModule = builder(module, memo, path)
        return made
    if co_class := _lookup(_classes, cls):
        twin_made: CoModule = twin(module, memo, co_class)
        return twin_made
    if _lookup(LOCAL, cls):
        return local(module, memo=memo)
    where = f"{path} ({cls.__name__})" if path else cls.__name__
    reason = next((_reasons[c] for c in cls.__mro__ if c in _reasons), "")
    if reason:
        raise NotStreamable(f"{where}: {reason}")
    changed = next((c for c in cls.__mro__ if c in _builders or c in _classes or c in LOCAL), None)
    why = f"it overrides the forward of {changed.__name__}" if changed else "no streaming version of this class is known"
    raise NotStreamable(
        f"{where} can't be converted: {why}. What you can do:\n"
        f"  - if each output frame depends on the input frame at the same moment alone: co.forward_stepping({cls.__name__}(…))\n"
        f"  - if you have a streaming version: co.convert.register({cls.__name__}, CoVersion)\n"
        "  - rebuild its forward from co.Sequential, co.Residual, co.BroadcastReduce and layers of `continual`\n"
        "  - convert by its exported graph, co.continual(module, clip), once this version of the library can"
    )
