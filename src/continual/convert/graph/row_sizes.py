"""Sizes in an export whose rows are a symbol."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Fx

from .exec_context import Count

ROW_ARGS, ROW_SIZES = "row_args", "row_sizes"  # notes of nodes whose sizes an export has as plain numbers


class Unfollowed(Exception):
    """An operation can't be followed position by position: it is computed on the window."""


@lru_cache(maxsize=4096)
def _linear(formula: Any) -> Count:
    """A size as a function of the rows."""
    found = [int(formula.subs(dict.fromkeys(formula.free_symbols, n))) for n in (2, 3, 5)]
    rate = found[1] - found[0]
    if found[2] != found[0] + 3 * rate:
        raise Unfollowed(f"{formula} is not a multiple of the rows")
    return Count(rate, found[0] - 2 * rate)


def known(size: Any) -> int | Count:
    """A size: a number, or one that grows with the rows."""
    if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None:
        return _linear(size.node.expr)
    return int(size)


def sizes_of(node: Fx, item: int | None = None) -> tuple[int | Count, ...]:
    """The sizes of a tensor that a node gives.

    Args:
        item: which one of several.

    Raises:
        Unfollowed: one of them is not a multiple of the rows.
    """
    noted = node.meta.get(ROW_SIZES)
    if noted is not None:
        found: tuple[int | Count, ...] = noted[item or 0]
        return found
    return tuple(map(known, value_of(node, item).shape))


def value_of(node: Fx, item: int | None = None) -> Tensor:
    """A tensor that a node gives, without values."""
    val = node.meta["val"]
    found: Tensor = val[item or 0] if isinstance(val, (list, tuple)) else val
    return found
