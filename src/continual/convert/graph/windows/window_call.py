"""One operation of an exported window, with the arguments by their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node as Fx


@dataclass
class Call:
    """One operation of the graph.

    Attributes:
        node: the node in the exported graph.
        name: the operation, ``"aten.add.Tensor"``.
        args: its arguments, by their names in torch's schema: tasks, constants, numbers.
        positional: which of them are positional.
    """

    node: Fx
    name: str
    args: dict[str, Any]
    positional: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, if the operation has it."""
        return self.args.get(name, default)

    @property
    def op(self) -> str:
        """The operation's name without namespace and overload."""
        return self.name.split(".")[1]
