"""The structure of a module without its weights, kept for a second conversion in another dtype."""

from __future__ import annotations

import copy
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

DEEP = 4  # levels of containers that are searched for weights
Name = tuple[str, str, str]  # path of the module, "_parameters" or "_buffers", name there
Table: TypeAlias = "dict[str, Tensor | None]"  # the parameters or buffers of a module, by name


def tables(module: nn.Module) -> Iterator[tuple[str, str, Table]]:
    """The tables of parameters and buffers of all modules: path, kind, table."""
    for path, part in module.named_modules():
        for kind in ("_parameters", "_buffers"):
            table = part.__dict__[kind]
            yield path, kind, getattr(table, "table", table)  # parts of converted networks wrap the module's own table


def weights(module: nn.Module) -> dict[Name, Tensor]:
    """All parameters and buffers."""
    return {(path, kind, n): t for path, kind, table in tables(module) for n, t in table.items() if t is not None}


def replica(module: nn.Module, exchange: dict[int, Tensor]) -> nn.Module:
    """A module of the same classes and attributes, with other weights. All other attributes are shared.

    Args:
        module: the module; it is not changed.
        exchange: new weights, by the ``id`` of the old ones. Other weights are shared.
    """
    new: dict[int, Any] = {id(part): object.__new__(type(part)) for part in module.modules()}
    for part in module.modules():
        attributes = {name: _exchanged(value, exchange, new, DEEP) for name, value in part.__dict__.items()}
        attributes["_modules"] = {name: None if child is None else new[id(child)] for name, child in part._modules.items()}
        new[id(part)].__dict__.update(attributes)
    return cast(nn.Module, new[id(module)])


def _exchanged(value: Any, exchange: dict[int, Tensor], new: dict[int, Any], depth: int) -> Any:
    """The value of an attribute, with new weights and modules."""
    if isinstance(value, Tensor):
        return exchange.get(id(value), value)
    if isinstance(value, nn.Module):
        return new.get(id(value), value)
    if isinstance(value, types.MethodType) and id(value.__self__) in new:
        return types.MethodType(value.__func__, new[id(value.__self__)])
    if not depth:
        return value
    if type(value) in (dict, OrderedDict):
        own = copy.copy(value)
        own.update({k: _exchanged(v, exchange, new, depth - 1) for k, v in value.items()})
        return own
    if type(value) in (list, tuple):
        return type(value)(_exchanged(v, exchange, new, depth - 1) for v in value)
    return value


def skeleton(module: nn.Module) -> nn.Module:
    """The module with weights on the device "meta", which take no memory. Weights of tensor subclasses are shared."""
    plain = {id(t): t for t in weights(module).values() if type(t) in (Tensor, nn.Parameter) and t.layout == torch.strided}
    return replica(
        module, {i: _like(t, torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")) for i, t in plain.items()}
    )


def filled(bones: nn.Module, make: Callable[[Name, Tensor], Tensor]) -> nn.Module:
    """A skeleton with weights.

    Args:
        bones: the skeleton.
        make: gives the weight for a name and the tensor in its place.
    """
    own = {id(t): _like(t, make(name, t)) for name, t in weights(bones).items() if t.is_meta}
    return replica(bones, own)


def _like(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new
