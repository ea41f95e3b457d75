"""Which `torch.nn` class becomes which streaming class, and how a module is made one: by copying it and changing its class.

A copy whose class is changed keeps all that the module has: parameters and their sharing, buffers, hooks, parametrisations,
dtype, device, ``requires_grad`` and the training flag.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, Self, cast

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from ..errors import NotStreamable
from .edits import WEIGHT_HOOKS, weight_hook
from .kernel import derived
from .module import CoModule
from .naming import named
from .opaque_modules import compiled, opaque
from .parametrised import with_parametrisations

Builder = Callable[[nn.Module, dict[int, Any], str], CoModule]
_classes: dict[type[nn.Module], type[CoModule]] = {}
_windows: dict[type[nn.Module], type[CoModule]] = {}
_builders: dict[type[nn.Module], Builder] = {}
_defaults: dict[type[nn.Module], Builder] = {}  # of classes that are local in time; others come first
_reasons: dict[type[nn.Module], str] = {}
_chosen: dict[type[nn.Module], type[CoModule]] = {}  # by users
_named: dict[str, tuple[Builder, Callable[[nn.Module], bool] | None]] = {}  # by the full name of a class


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
        raise TypeError(f"register(TorchClass, CoClass): {torch_class!r} is not an nn.Module class")
    if not (isinstance(co_class, type) and issubclass(co_class, CoModule)):
        raise TypeError(f"register(TorchClass, CoClass): {co_class!r} is not a CoModule class")
    _builders[torch_class] = lambda module, memo, path: co_class.build_from(module)
    _chosen[torch_class] = co_class


def register_class(torch_class: type[nn.Module], co_class: type[CoModule]) -> None:
    """Register a class that is a subclass of ``torch_class`` and sets itself up by ``configure``."""
    _classes[torch_class] = co_class


def register_window(torch_class: type[nn.Module], co_class: type[CoModule]) -> None:
    """Register a class that ``build_from`` converts when a window is given; `continual` leaves its module to other rules."""
    _windows[torch_class] = co_class


def register_builder(torch_class: type[nn.Module], builder: Builder) -> None:
    """Register a function that builds the streaming module."""
    _builders[torch_class] = builder


def register_default(torch_class: type[nn.Module], builder: Builder) -> None:
    """Register a function that builds the streaming module of a class, where none of its subclasses is registered otherwise."""
    _defaults[torch_class] = builder


def register_by_name(name: str, builder: Builder, one_call: Callable[[nn.Module], bool] | None) -> None:
    """Register a function that builds the streaming module of a class of another package, which is not imported for it.

    Args:
        name: of the class, with its module's.
        builder: the function.
        one_call: whether a module stays one call in a conversion by its graph; ``None``: none does.
    """
    _named[name] = builder, one_call


def register_refusal(torch_class: type[nn.Module], reason: str) -> None:
    """Register why a class can't be streamed, and what to do."""
    _reasons[torch_class] = reason


# Attributes of torch.nn modules that `build_from(module, name=value)` may override before the copy is set up.
_OVERRIDABLE = (
    "stride", "padding", "dilation", "padding_mode", "ceil_mode", "count_include_pad", "divisor_override", "channel_dim", "output_size",
    "output_padding",
)  # fmt: skip


def streaming_copy(module: nn.Module, memo: dict[int, Any], co_class: type[CoModule], **options: Any) -> Any:
    """A copy of a module as ``co_class``, which is a subclass of the module's own kind.

    Args:
        options: of the class's ``configure``, or attributes of the module to override.
    """
    if reason := _unready(module):
        raise NotStreamable(reason)
    cast(type[TorchLayer], co_class)._before_copy(module, memo)
    return become(copy.deepcopy(module, memo), co_class, **options)


def become(made: Any, co_class: type[CoModule], **options: Any) -> Any:
    """Make a module one of ``co_class``, which is a subclass of its own kind."""
    cls = type(made)
    made.__class__ = co_class if cls in _classes or cls in _windows else _mixed(co_class, cls)
    own = inspect.signature(made.configure).parameters
    for name in [n for n in options if n not in own]:
        if name not in _OVERRIDABLE or not _has(made, name):
            raise TypeError(f"{co_class.__name__}.build_from: unknown argument {name!r}")
        made.__dict__[name] = options.pop(name)
    made.configure(**options)
    return made


def _has(module: nn.Module, name: str) -> bool:
    """Whether a module defines an attribute itself, other than those that every streaming module has."""
    reported = isinstance(getattr(type(module), name, None), derived)
    return name in module.__dict__ or (hasattr(module, name) and not reported)


class TorchLayer(CoModule):
    """Base class of streaming classes that are subclasses of the ``torch.nn`` class they stand for."""

    def configure(self) -> None:
        """Derive what the ``torch.nn`` attributes leave open."""

    @classmethod
    def _before_copy(cls, module: nn.Module, memo: dict[int, Any]) -> None:
        """Tell ``copy.deepcopy``, by its memo, what of a module not to copy."""

    @classmethod
    def build_from(cls, module: nn.Module, *args: Any, **kwargs: Any) -> Self:
        """The continual version of a ``torch.nn`` module, with a copy of its parameters; keyword arguments override.

        Raises:
            TypeError: the module is of another kind, or an argument is unknown.
        """
        kinds = [t for t, c in (*_classes.items(), *_windows.items()) if issubclass(cls, c)]
        if not isinstance(module, tuple(kinds)):
            raise TypeError(
                f"{cls.__name__}.build_from takes a {' or '.join(k.__name__ for k in kinds)}, not {type(module).__name__}"
            )
        if type(module).forward is not kinds[0].forward and not isinstance(module, CoModule):
            return cast(Self, to_continual(module))  # refuses, with the reason
        names = [n for n in inspect.signature(cls.configure).parameters if n != "self"]
        return streaming_copy(module, {}, cls, **dict(zip(names, args, strict=False)), **kwargs)


_mixes: dict[tuple[type[CoModule], type[nn.Module]], type[CoModule]] = {}


def _mixed(co_class: type[CoModule], cls: type[nn.Module]) -> type[CoModule]:
    """A streaming class for a subclass of a registered one."""
    if issubclass(cls, co_class):  # it is one already
        return cls
    if parametrised := with_parametrisations(cls, co_class):
        return parametrised
    if (co_class, cls) not in _mixes:
        _mixes[co_class, cls] = _mix(co_class, cls)
    return _mixes[co_class, cls]


def _mix(co_class: type[CoModule], cls: type[nn.Module]) -> type[CoModule]:
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


def is_chosen(module: nn.Module) -> bool:
    """Whether a module stays one call in a conversion by its graph: a streaming class is registered for its own, by users or by name."""
    if _lookup(_chosen, type(module)) is not None:
        return True
    one_call = _by_name(type(module))[1]
    return one_call is not None and one_call(module)


def _by_name(cls: type[nn.Module]) -> tuple[Builder | None, Callable[[nn.Module], bool] | None]:
    """What is registered for the name of a class, or of the base whose computation it has not changed."""
    for base in cls.__mro__:
        found = _named.get(f"{base.__module__}.{base.__qualname__}")
        if found is not None and getattr(base, "forward", None) is cls.forward:
            return found
    return None, None


def option(memo: dict[int, Any], name: str, default: Any = None) -> Any:
    """A keyword argument of :func:`continual.continual`, for a builder. It is then known to be used."""
    options, used = memo.setdefault("options", ({}, set()))  # type: ignore[call-overload]
    used.add(name)
    return options.get(name, default)


def with_options(module: nn.Module, **options: Any) -> CoModule:
    """Convert a module with options for its builders.

    Raises:
        TypeError: an option that no module in it takes.
    """
    memo: dict[Any, Any] = {"options": (options, used := set[str]())}
    made = to_continual(module, memo)
    if left := [f"{n}={options[n]!r}" for n in options if n not in used]:
        raise TypeError(f"continual({type(module).__name__}): no module in it takes {', '.join(left)}")
    return made


def _unready(module: nn.Module) -> str:
    """Why a module can't be converted as it is now; empty if it can."""
    if reason := opaque(module) or compiled(module):
        return reason
    if isinstance(module, LazyModuleMixin) and (module.cls_to_become or module.has_uninitialized_params()):
        return "it is lazy: without an input it has no weights yet. Remedy: run a clip through the network first, module(clip)"
    for hook in module._forward_pre_hooks.values():  # they leave a tensor that torch can't copy
        if kind := weight_hook(hook):
            return f"a hook of {kind} computes its weight before each forward, so it can't be copied. {WEIGHT_HOOKS[kind]}"
    return ""


def _convert(module: nn.Module, memo: dict[int, Any], path: str) -> CoModule:
    cls = type(module)
    if reason := _unready(module):
        raise NotStreamable(f"{named(path, module)}: {reason}")
    if builder := _lookup(_builders, cls) or _by_name(cls)[0]:
        made: CoModule = builder(module, memo, path)
        return made
    if co_class := _lookup(_classes, cls):
        try:
            copied: CoModule = streaming_copy(module, memo, co_class)
        except NotStreamable as error:
            raise NotStreamable(f"{named(path, module)}: {error}") from None
        return copied
    if builder := _lookup(_defaults, cls):
        return cast(CoModule, builder(module, memo, path))
    where = named(path, module)
    reason = next((_reasons[c] for c in cls.__mro__ if c in _reasons), "")
    if reason:
        raise NotStreamable(f"{where}: {reason}")
    changed = next((c for c in cls.__mro__ if c in _builders or c in _classes or c in _defaults), None)
    why = f"it overrides the forward of {changed.__name__}" if changed else "no streaming version of this class is known"
    raise NotStreamable(
        f"{where} can't be converted: {why}. What you can do:\n"
        "  - with an example clip any module is converted by its graph: co.continual(module, clip)\n"
        f"  - if each output frame depends on the input frame at the same moment alone: co.forward_stepping({cls.__name__}(…))\n"
        f"  - if you have a streaming version: co.convert.register({cls.__name__}, CoVersion)\n"
        "  - rebuild its forward from co.Sequential, co.Residual, co.BroadcastReduce and layers of `continual`"
    )
