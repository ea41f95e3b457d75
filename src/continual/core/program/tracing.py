"""Errors of `torch.export` by module: the module of each operation, and the module that it can't trace."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LIBRARIES = tuple(str(Path(str(sys.modules[name].__file__)).parent) for name in ("torch", __name__.partition(".")[0]))


class Untraced(Exception):
    """`torch.export` can't trace a module; the cause says why.

    Attributes:
        module: its path and class.
    """

    def __init__(self, module: str):
        super().__init__(module)
        self.module = module


def traced(run: Callable[..., Any], name: str, annotate: bool) -> Callable[..., Any]:
    """The step of a module, whose errors during an export name the module.

    Args:
        run: takes a chunk and the rows.
        name: the module's path and class.
        annotate: whether its operations in the graph carry this name.
    """

    def guarded(x: Any, rows: Any) -> Any:
        try:
            return run(x, rows)
        except Untraced:  # from a child
            raise
        except Exception as error:
            if torch.compiler.is_exporting():
                raise Untraced(name) from error
            raise

    def marked(x: Any, rows: Any) -> Any:
        with torch.fx.traceback.annotate({"module": name}):
            return guarded(x, rows)

    return marked if annotate else guarded


def untraced(error: BaseException, network: str, any_rows: bool = False) -> str:
    """The module that can't be traced, the reason, and the line of the user's code."""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode  # here: it imports sympy, for half a second

    chain = causes(error)
    module = next((e.module for e in chain if isinstance(e, Untraced)), network)
    cause = next((e for e in chain if not isinstance(e, Untraced)), error)
    lines = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith((*LIBRARIES, "<"))]
    where = f" ({Path(lines[-1].filename).name}:{lines[-1].lineno}: `{lines[-1].line}`)" if lines else ""
    if any(isinstance(e, GuardOnDataDependentSymNode) for e in chain):
        return (
            f"{module}: its control flow depends on the values of a tensor{where}, and a program has one path for all values. Use "
            "torch.where or masks"
        )
    reason = (str(cause).strip() or repr(cause)).splitlines()[0]
    return f"{module}: {reason}{where}" + (". A fixed number of rows may do: batch=1" if any_rows else "")


def causes(error: BaseException | None) -> list[BaseException]:
    """An error and its causes."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
