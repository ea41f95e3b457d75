"""An operation that is a function of its own, such as a loop or a layer, in place of one of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from ..instructions import Op


@dataclass(eq=False)
class FunctionOp(Op):
    """An operation that calls a function.

    Attributes:
        function: takes the arguments of the operation.
    """

    function: Callable[..., Any] = field(kw_only=True)

    def _function(self) -> Callable[..., Any]:
        return self.function

    @staticmethod
    def of(op: Op, function: Callable[..., Any]) -> FunctionOp:
        """The same operation with a function."""
        values: dict[str, Any] = {f.name: getattr(op, f.name) for f in fields(op) if f.init}
        return FunctionOp(**values, function=function)
