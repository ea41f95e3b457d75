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

    It wraps a branch that waits for a slower one into a container of its own, and so adds a number to the names.
    """
    added: dict[str, str] = {}
    for path, container in module.named_modules(remove_duplicate=False):
        if getattr(container, "auto_delay", False):
            children: dict[str, Any] = container._modules
            delays = {name: child.delay for name, child in children.items()}
            number = "1" if hasattr(container, "predicate") else "0"  # a Conditional delays before its branch, others behind it
            added |= {f"{path}.{n}".lstrip("."): number for n, delay in delays.items() if delay < max(delays.values())}
    return {key: prefix + _with_added(key[len(prefix) :], added) for key in keys}


def _with_added(key: str, added: dict[str, str]) -> str:
    parts: list[str] = []
    for part, path in zip(key.split("."), accumulate(key.split("."), "{}.{}".format), strict=True):
        parts += [part, added[path]] if path in added else [part]
    return ".".join(parts)
