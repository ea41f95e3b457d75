"""Names of parameters that don't tell how a network was wrapped.

A network that is built from nested containers has names such as ``"block.1.0.conv.weight"``, with a number for every container that
was put around ``conv``. Its *flat* names leave such numbers out, ``"block.conv.weight"``, and so fit the checkpoint of a network that
was written as one class. What is left out follows from the names alone, in whatever order they come:

- Container by container, inner ones first: the numbers of a container's children go if the names of all that is in it stay different
  without them, and if none of these begins with a number of its own, which could then be taken for the container's.
- A module of which a flat name is the full name of something else keeps its full names.
- The last part, the parameter's own name, stays.

So a flat name stands for one parameter, and can't be taken for the full name of another. A list of residual blocks keeps the numbers of
the blocks and loses those inside: ``"layer.0.1.conv.weight"`` becomes ``"layer.0.conv.weight"``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from torch import nn


def flat_names(keys: Iterable[str], prefix: str = "") -> dict[str, str]:
    """The flat name of each key.

    Args:
        keys: the full names of a state dict, all with ``prefix``.
        prefix: what they begin with; it stays.
    """
    paths = {key: tuple(key[len(prefix) :].split(".")) for key in keys}
    names = {full: prefix + ".".join(parts) for full, parts in _without_numbers(paths).items()}
    unclear = {_owner(full) for full, flat in names.items() if flat != full and flat in names}
    return {full: full if _owner(full) in unclear else flat for full, flat in names.items()}


def _owner(key: str) -> str:
    """The module that has a parameter."""
    return key.rpartition(".")[0]


Paths = dict[str, tuple[str, ...]]


def _without_numbers(paths: Paths) -> Paths:
    """Full names to the parts of their flat names, in the scope of one module.

    Args:
        paths: full names to the parts of their names in this scope.
    """
    children: dict[str, Paths] = {}
    kept: Paths = {}
    for full, parts in paths.items():
        if len(parts) == 1:
            kept[full] = parts
        else:
            children.setdefault(parts[0], {})[full] = parts[1:]
    below = {child: _without_numbers(inner) for child, inner in children.items()}
    dropped = dict(kept)
    for child, inner in below.items():
        kept |= {full: (child, *parts) for full, parts in inner.items()}
        dropped |= inner if child.isdecimal() else {full: kept[full] for full in inner}
    told_apart = len(set(dropped.values())) == len(dropped)
    exposed = any(parts[0].isdecimal() for child, inner in below.items() if child.isdecimal() for parts in inner.values())
    return dropped if told_apart and not exposed else kept


def earlier_names(module: nn.Module, keys: Iterable[str], prefix: str = "") -> dict[str, str]:
    """The name of each key in a state dict that continual-inference 1.2.4 saved of the same network.

    It has more modules around some, and so more parts in the names.
    """
    renamed: dict[str, str] = {}
    for path, inner in module.named_modules(remove_duplicate=False):
        renamed |= {f"{path}.{child}".lstrip("."): name for child, name in _earlier_children(inner).items()}
    return {key: prefix + _renamed(key[len(prefix) :], renamed) for key in keys}


def _earlier_children(module: nn.Module) -> dict[str, str]:
    """What stood for the names of a module's children: a branch that waits for a slower one was in a container of its own."""
    names: dict[str, str] = dict(getattr(module, "_earlier_names", {}))
    if getattr(module, "auto_delay", False):
        children: dict[str, Any] = module._modules
        delays = {name: child.delay for name, child in children.items()}
        number = "1" if hasattr(module, "predicate") else "0"  # a Conditional delays before its branch, others behind it
        names |= {name: f"{name}.{number}" for name, delay in delays.items() if delay < max(delays.values())}
    return names


def _renamed(key: str, names: dict[str, str]) -> str:
    """A key with other names for some modules, given by their paths."""
    parts = key.split(".")
    return ".".join(names.get(path, part) for part, path in zip(parts, accumulate(parts, "{}.{}".format), strict=True))


def without_any_numbers(names: dict[str, str]) -> dict[str, str]:
    """Flat names as 1.2.4 has them: it leaves out all numbers, or none where names would then be equal."""
    flat = {key: ".".join(part for part in name.split(".") if not part.isdigit()) for key, name in names.items()}
    return flat if len(set(flat.values())) == len(flat) else names
