"""Sizes of an export whose rows are a symbol."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from ..instructions import Count
from ..values import leaves
from .tasks import Task

ROWS = 10_007  # the rows for which layouts are worked out: a prime, so that no other size is taken for them


class Unfollowed(Exception):
    """An operation can't be followed position by position: it is computed on the window."""


@lru_cache(maxsize=4096)
def _linear(formula: Any) -> Count:
    """A size as a function of the rows."""
    found = [int(formula.subs(dict.fromkeys(formula.free_symbols, n))) for n in (2, 3, 5)]
    rate = found[1] - found[0]
    if found[2] != found[0] + 3 * rate:
        raise Unfollowed(f"{formula} is no multiple of the rows")
    return Count(rate, found[0] - 2 * rate)


def known(size: Any) -> int | Count:
    """A size: a number, or one that grows with the rows."""
    if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None:
        return _linear(size.node.expr)
    return int(size)


def number(size: int | Count) -> int:
    """A size for :data:`ROWS` rows."""
    return size.rate * ROWS + size.more if isinstance(size, Count) else size


def tasks_in(value: Any) -> list[Task]:
    """The tasks among values."""
    found: list[Any] = leaves(value)  # tasks stand among the values of a graph here
    return [v for v in found if isinstance(v, Task)]
