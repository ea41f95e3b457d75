"""Writes through the `.data` of a parameter in forward: a bound or a norm that a module keeps its weights to.

``self.weight.data = torch.renorm(self.weight.data, …)`` is not seen by torch.export: it would put tensors without values into the module.
In an export under this mode the module's parameters stay as they are, and later uses of one take the new value, which each call computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

READ, WRITE = Tensor.data.__get__, Tensor.data.__set__  # type: ignore[attr-defined]

# of modules that are being converted: the parameters that their forward writes into, their data, and the values before
_WRITTEN: WeakKeyDictionary[nn.Module, dict[str, tuple[Tensor, Tensor, Tensor]]] = WeakKeyDictionary()


@contextlib.contextmanager
def weights_kept(module: nn.Module) -> Iterator[None]:
    """Undo what runs of a module write into its parameters, once an export has shown which they are."""
    try:
        yield
    finally:
        for weight, data, before in _WRITTEN.pop(module, {}).values():
            with torch.no_grad():
                weight.data = data.copy_(before)


class WeightWrites(TorchFunctionMode):
    """Keeps writes through `.data` from a module's parameters, and gives what was written to the operations after them.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self._module, self._own = module, dict(module.named_parameters())
        self._now: dict[int, tuple[Tensor, Tensor]] = {}  # a parameter and its value, by the parameter's id

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = next((n for n, p in self._module.named_parameters() if p is args[0]), "") if func in (READ, WRITE) else ""
        if name:
            weight = args[0]
            self._keep(name)
            if func == WRITE:
                self._now[id(weight)] = weight, self._current(args[1])
                return None
            if id(weight) not in self._now:
                self._now[id(weight)] = weight, weight.detach().clone()
            return self._now[id(weight)][1]
        if self._now:
            args, kwargs = tree_map_only(Tensor, self._current, (args, kwargs))
        return func(*args, **kwargs)

    def _keep(self, name: str) -> None:
        kept, own = _WRITTEN.setdefault(self._module, {}), self._own[name]
        if name not in kept:
            with _disable_current_modes():  # real values, also while torch.export has tensors without
                kept[name] = own, own.data, own.detach().clone()

    def _current(self, x: Tensor) -> Tensor:
        found = self._now.get(id(x))
        return x if found is None else found[1]
