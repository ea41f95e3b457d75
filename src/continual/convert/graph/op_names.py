"""Names of operations in the program: unique paths, for tables, state tensors and messages."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from .capture import module_path, source_line
from .op_call import OpCall

_CONTAINERS = {nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict}


class Label(NamedTuple):
    """How people see an operation.

    Attributes:
        path: a unique path.
        op: the operation.
        source: the line of code.
    """

    path: str
    op: str
    source: str


class OpNames:
    """Gives every operation a path of its own.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module):
        own = {cls for cls in vars(nn).values() if isinstance(cls, type) and issubclass(cls, nn.Module)} - _CONTAINERS
        self._single = frozenset(name for name, part in module.named_modules() if name and own & set(type(part).__mro__))
        self._taken: set[str] = set()

    def label(self, call: OpCall) -> Label:
        """A new path, the operation and its source line."""
        return Label(self.unique(self.path(call)), call.op.strip("_"), source_line(call.node))

    def path(self, call: OpCall) -> str:
        """The path of the module, followed by the operation unless the module is one operation, as those of torch.nn are."""
        path = module_path(call.node)
        return path if path in self._single else f"{path}.{call.op}".lstrip(".")

    def unique(self, path: str) -> str:
        """A path that is not taken yet."""
        name, i = path, 1
        while name in self._taken:
            name, i = f"{path}_{i}", i + 1
        self._taken.add(name)
        return name
