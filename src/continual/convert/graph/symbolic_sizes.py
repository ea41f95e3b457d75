"""A limit for exports with a symbolic length: the size of the formulas."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .recurrent_ops import WholeOps

LARGEST = 100  # operations in the formula of a size; strided networks of practice stay below 10


class TooSymbolic(Exception):
    """The formula of a size is so long that torch's solver takes minutes for every question about it."""


class FormulaLimit(WholeOps):
    """Stops an export where the size of a tensor has too long a formula.

    Sizes that are divided, floored and multiplied again (``view(b * t // n, n, …)`` in each of several blocks) nest deeper with every
    block, and the time of torch's solver grows exponentially. The length of a formula is the same on every machine; a time is not.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_function__(func, types, args, kwargs)
        if torch.compiler.is_dynamo_compiling():  # inside of a scan, where it would be traced too
            return made
        for y in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(y, Tensor):
                longest = max(
                    (_operations(n.node.expr) for n in tuple[Any, ...](y.shape) if isinstance(n, torch.SymInt)), default=0
                )
                if longest > LARGEST:
                    raise TooSymbolic(f"the size of a tensor is a formula of {longest} operations")
        return made


@lru_cache(maxsize=4096)
def _operations(formula: Any) -> int:
    """The number of operations in a formula."""
    return int(formula.count_ops())
