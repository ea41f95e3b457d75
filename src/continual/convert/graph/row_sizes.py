"""Sizes in an export whose rows are a symbol."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from .instructions import Count


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
