"""How far an export with a symbolic length goes: until the formulas of its sizes get out of hand."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .recurrent_ops import Whole

LARGEST = 100  # operations in the formula of a size; strided networks of practice stay below 10


class TooSymbolic(Exception):
    """The formula of a size has become so long that torch's solver would take minutes for every question about it."""


class Bounded(Whole):
    """Stops what is exported under it where a size of a tensor has too long a formula.

    Sizes that are divided, floored and multiplied again (``view(b * t // n, n, …)`` in each of some blocks) are nested ever deeper, and
    torch's solver takes exponentially longer. The length of a formula is the same on every machine, unlike a time.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_function__(func, types, args, kwargs)
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
    """How many operations a formula has."""
    return int(formula.count_ops())
