"""Modules that `torch.export` looks at: where operations are from, and which module it can't follow."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LIBRARIES = tuple(str(Path(str(sys.modules[name].__file__)).parent) for name in ("torch", __name__.partition(".")[0]))


class Untraced(Exception):
    """`torch.export` can't follow a module; the cause says why.

    Attributes:
        module: its path and class.
    """

    def __init__(self, module: str):
        super().__init__(module)
        self.module = module


def traced(run: Callable[..., Any], name: str, located: bool) -> Callable[..., Any]:
    """A module's place in a program, whose errors on the way to an exported graph say which module it is.

    Args:
        run: on a chunk and the rows.
        name: the module's path and class.
        located: whether its operations in the graph say so too.
    """

    def guarded(x: Any, rows: Any) -> Any:
        try:
            return run(x, rows)
        except Untraced:  # of a module inside
            raise
        except Exception as error:
            if torch.compiler.is_exporting():
                raise Untraced(name) from error
            raise

    def marked(x: Any, rows: Any) -> Any:
        with torch.fx.traceback.annotate({"module": name}):
            return guarded(x, rows)

    return marked if located else guarded


def untraced(error: BaseException, network: str, any_rows: bool = False) -> str:
    """Which module can't be followed and why, in words, with the line of the user's code."""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode  # here: it imports sympy, for half a second

    chain = causes(error)
    module = next((e.module for e in chain if isinstance(e, Untraced)), network)
    cause = next((e for e in chain if not isinstance(e, Untraced)), error)
    lines = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith((*LIBRARIES, "<"))]
    where = f" ({Path(lines[-1].filename).name}:{lines[-1].lineno}: `{lines[-1].line}`)" if lines else ""
    if any(isinstance(e, GuardOnDataDependentSymNode) for e in chain):
        return (
            f"{module}: what it does depends on the values of a tensor{where}, and a program holds one way for all values. Say it by "
            "torch.where or by masks"
        )
    reason = (str(cause).strip() or repr(cause)).splitlines()[0]
    return f"{module}: {reason}{where}" + (". A fixed number of rows may do: batch=1" if any_rows else "")


def causes(error: BaseException | None) -> list[BaseException]:
    """An error, and those that it came of."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
