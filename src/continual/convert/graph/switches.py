"""Attributes that choose what a module computes, and its children. A converted network has the operations of their captured values."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ...core.naming import named
from ...core.stream import StreamOwner
from ...errors import NotStreamable

CLASS_OF_ALL = frozenset(vars(nn.Module()))  # attributes that every module has
_NONE = object()


def plain(value: Any) -> bool:
    """Whether an attribute is a number, a string, a flag, or a list of such."""
    if isinstance(value, (tuple, list)):
        return all(map(plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _switch(value: Any) -> Any:
    """The value of an attribute that may be a switch: a flag, a string, a float, or a collection of such. For others ``_NONE``.

    Integers are no switches: modules keep counters in them, and sizes of caches.
    """
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_switch(v) for v in (sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value)]
        return _NONE if any(v is _NONE for v in items) else tuple(items)
    if isinstance(value, dict):
        pairs = [(k, _switch(v)) for k, v in value.items()]
        return _NONE if any(v is _NONE or not isinstance(k, str) for k, v in pairs) else tuple(pairs)
    return _NONE


class Switches:
    """The switches of a module and of its submodules at the conversion.

    Args:
        module: the module; it is not kept alive. Once it is gone, nothing can change.
    """

    def __init__(self, module: nn.Module):
        self._modules = [(weakref.ref(m), path, _switches(m), _children(m)) for path, m in module.named_modules()]
        self._name, self._module = type(module).__name__, weakref.ref(module)
        self._buffers: dict[str, tuple[Any, int, Any]] = {}  # the tensor, how often it was written into, and its values

    def settle(self) -> Switches:
        """Leave out attributes that a run changes: caches and counters."""
        for ref, _, before, _ in self._modules:
            module = ref()
            now = {} if module is None else _switches(module)
            for name in [n for n, (_, value) in before.items() if n not in now or now[n][1] != value]:
                del before[name]
        return self

    def watch(self, buffers: Iterable[str]) -> Switches:
        """Compare the values of buffers too, of those that the module's code has read."""
        module = self._module()
        if module is not None:
            self._buffers = {name: _seen(module.get_buffer(name)) for name in buffers}
        return self

    def _check_buffers(self, module: nn.Module) -> None:
        for name, (tensor, version, values) in self._buffers.items():
            path, _, own = name.rpartition(".")
            now = module.get_submodule(path)._buffers.get(own)
            if now is not None and (now is not tensor() or _version(now) != version):
                found = self._buffers[name] = _seen(now)
                if found[2] != values:
                    self._buffers[name] = (lambda: None, -1, values)
                    change = f"buffer '{own}' was {values} when it was converted, and is {found[2]} now"
                    raise NotStreamable(f"{self._where(path, module.get_submodule(path))}: {change}. {_AGAIN}")

    def check(self) -> None:
        """Refuse to run if the module has changed."""
        if self._buffers and (whole := self._module()) is not None:
            self._check_buffers(whole)
        for ref, path, before, children in self._modules:
            module = ref()
            if module is None:
                continue
            for name, (same, value) in before.items():
                now = getattr(module, name, _NONE)
                if now is not same and (now := _switch(now)) != value:
                    change = f"'{name}' was {_shown(value)} when it was converted, and is {_shown(now)} now"
                    raise NotStreamable(f"{self._where(path, module)}: {change}. {_AGAIN}")
            own = module._modules
            if len(own) != len(children) or any(own.get(name, _NONE) is not child() for name, child in children):
                raise NotStreamable(f"{self._where(path, module)}: has other children than when it was converted. {_AGAIN}")

    def _where(self, path: str, module: nn.Module) -> str:
        return f"{self._name}: {named(path, module)}" if path else self._name

    def __deepcopy__(self, memo: Any) -> None:
        """A copy has its own weights: changes of the module do not concern it."""

    def __reduce__(self) -> Any:
        return type(None), ()


def _seen(buffer: Tensor) -> tuple[Any, int, Any]:
    """A buffer, the number of writes into it, and its values."""
    return weakref.ref(buffer), _version(buffer), buffer.tolist()


def _version(buffer: Tensor) -> int:
    """The number of writes into a tensor; where writes are not counted, a new number at each call."""
    return -1 if buffer.is_inference() else buffer._version


_AGAIN = "The converted network has its operations of then. Convert it again: co.continual(module, clip)"


def _shown(value: Any) -> str:
    return "another" if value is _NONE else repr(value)


def _switches(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """The switches of a module and its class, by name: the object itself where it is immutable, and the value."""
    defined = {n: v for c in reversed(type(module).__mro__) if c not in nn.Module.__mro__ for n, v in vars(c).items()}
    own = "_" if isinstance(module, StreamOwner) else "__"  # a streaming module's attributes for its streams are not switches
    names = {n: v for n, v in {**defined, **vars(module)}.items() if n not in CLASS_OF_ALL and not n.startswith(own)}
    found = {
        name: (_NONE if isinstance(value, (list, tuple, set, dict)) else value, _switch(value)) for name, value in names.items()
    }
    return {name: pair for name, pair in found.items() if pair[1] is not _NONE}


def _nothing() -> None:
    """Stands for a child that is ``None``."""


def _children(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, _nothing if child is None else weakref.ref(child)) for name, child in module._modules.items()]
