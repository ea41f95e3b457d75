"""The bounds of slices in an exported graph, and their tensors."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.fx import Node as Fx

aten = torch.ops.aten
END = 1 << 62
ALL = (0, END)
CATS = (aten.cat.default, aten.concat.default, aten.concatenate.default)


def cut_of(node: Any, dim: int, source: Fx | None = None) -> tuple[Any, tuple[int, int]]:
    """The tensor that a node slices in one dimension, covering the other dimensions, and the bounds of the slice.

    Args:
        source: goes no further than to this tensor.
    """
    found = ALL
    while isinstance(node, Fx) and node is not source and node.target is aten.slice.Tensor:
        own = limits(node)
        if own is None or (own != ALL and (found != ALL or cast(int, node.args[1]) % rank(node) != dim)):
            break
        found = own if own != ALL else found
        node = node.args[0]
    return node, found


def limits(node: Fx) -> tuple[int, int] | None:
    """Start and end of a slice with plain numbers and without steps."""
    bounds: list[Any] = [*node.args[2:], None, None, None]
    start, end, step = bounds[:3]
    if not all(v is None or isinstance(v, int) for v in (start, end)) or step not in (None, 1):
        return None
    return start or 0, END if end is None or end >= END else end


def pad_amounts(node: Fx, dim: int, start: Any, end: Any = 0) -> list[Any]:
    """The amounts of ``pad`` for one dimension of a tensor."""
    return [0] * (2 * (rank(node) - 1 - dim)) + [start, end]


def rank(node: Fx) -> int:
    """The number of dimensions."""
    return int(node.meta["val"].ndim)
