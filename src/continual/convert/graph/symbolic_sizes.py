"""A limit for exports with a symbolic length: the size of the formulas."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .recurrent_ops import WholeOps

LARGEST = 60  # operations in the formula of a size; strided networks of practice stay below 30


class TooSymbolic(Exception):
    """The formula of a size is so long that torch's solver takes minutes for each comparison."""


class FormulaLimit(WholeOps):
    """Stops an export where the formula of a tensor's size becomes too long.

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


@contextlib.contextmanager
def divisions_kept() -> Iterator[None]:
    """Sizes keep their floored divisions, ceilings and maxima under this context: sympy does not look for simpler ones inside of them.

    Its search takes time that is exponential in their depth, a minute for ``ceil((n - k) / s) + 1`` of three strided layers, and finds
    nothing, since it knows nothing about torch's functions. Around them it simplifies as before.
    """
    import sympy  # type: ignore[import-untyped]  # here: it takes half a second, as the first export does
    from torch.utils._sympy import functions

    own = [
        f
        for f in vars(functions).values()
        if isinstance(f, type) and issubclass(f, sympy.Function) and f.__module__ == functions.__name__
    ]
    mine = [f for f in own if "_eval_simplify" not in vars(f)]
    for f in mine:
        f._eval_simplify = _itself  # type: ignore[attr-defined]  # by which sympy asks a function for a simpler form
    try:
        yield
    finally:
        for f in mine:
            with contextlib.suppress(AttributeError):  # another thread's conversion has ended in between
                del f._eval_simplify  # type: ignore[attr-defined]


def _itself(formula: Any, **_: Any) -> Any:
    return formula
