"""One iteration of a loop, as a list of operations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Fx

from ..capture import source_line
from ..exec_context import Arg, Count, CurrentDevice, ExecContext, Ref, Run
from ..instructions import MAX_CACHED, Op
from ..needed_nodes import asserts
from ..op_call import operation
from ..row_sizes import Unfollowed, known
from ..slice_bounds import limits
from ..values import ITEM

SAME = ("aten.alias.default", "aten.detach.default", "aten.lift_fresh_copy.default")


class NotACell(Exception):
    """An iteration can't be a list of operations: the reason."""


@dataclass(eq=False)
class Cell:
    """What one iteration computes.

    Attributes:
        ops: the operations.
        slots: their number.
        arguments: the number of argument slots. They come first: the frames, the states, then what is the same in all iterations.
        outs: the slots of the outputs.
        new: the slots of the states after the iteration.
    """

    ops: tuple[Op, ...]
    slots: int
    arguments: int
    outs: tuple[int, ...]
    new: tuple[int, ...]

    def __call__(self, inputs: Sequence[Tensor], batch: Any, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        """Run it.

        Args:
            inputs: the values of the argument slots.
            batch: rows of the network.
            device: of the frames.

        Returns:
            The outputs and the new states.
        """
        env: list[Any] = [*inputs, *self._blank]
        for slot, run in self._runs(batch, device):
            env[slot] = run(env)
        return [env[slot] for slot in self.outs], [env[slot] for slot in self.new]

    def __post_init__(self) -> None:
        self._blank = [None] * (self.slots - self.arguments)
        self._ready: dict[tuple[int, torch.device], list[tuple[int, Run]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_blank", "_ready")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def _runs(self, batch: Any, device: torch.device) -> list[tuple[int, Run]]:
        """The calls of the operations, each with the slot that it fills."""
        known = self._ready.get((batch, device)) if type(batch) is int else None
        if known is None:
            m = ExecContext([], 1, batch, device, [], None)
            known = [(op.out, op.prepared(m)) for op in self.ops]
            if type(batch) is int:
                if len(self._ready) >= MAX_CACHED:
                    self._ready.clear()
                self._ready[batch, device] = known
        return known


class CellMaker:
    """Makes a cell of nodes of a graph.

    Args:
        batch: the symbol of the batch in the graph; ``None``: sizes are numbers.
    """

    def __init__(self, batch: Any):
        self._batch = batch
        self._ops: list[Op] = []
        self._slot: dict[Any, int] = {}
        self._count = 0
        self._arguments = 0

    def take(self, node: Any) -> int:
        """The slot of an argument. Arguments come before the operations."""
        slot = self._slot[node] = self.new_slot()
        self._arguments += 1
        return slot

    def new_slot(self) -> int:
        """A slot."""
        self._count += 1
        return self._count - 1

    def name(self, node: Any, slot: int) -> None:
        """Set the slot of a node's value."""
        self._slot[node] = slot

    def slot(self, node: Any) -> int:
        """The slot of a node's value."""
        if node not in self._slot:
            raise NotACell(f"an iteration uses {node}, which is none of its operations")
        return self._slot[node]

    def apply(self, target: str, slot: int, *args: Arg) -> int:
        """An operation of the library on one value."""
        out = self.new_slot()
        self._ops.append(Op("", target, "", target, (Ref(slot), *args), {}, (), out, 0))
        return out

    def add(self, node: Fx, replaced: Callable[[Any, int], Any] | None = None) -> None:
        """An operation of the graph.

        Args:
            node: the operation.
            replaced: exchanges its arguments: takes one, and its number among all.
        """
        name = str(node.target)
        if isinstance(node.meta.get("val"), (torch.SymInt, int, bool)) or asserts(name):
            return
        if node.target is operator.getitem:
            args = (node.args[0], node.args[1])
            self._made(node, ITEM, args, {}, replaced)
        elif not hasattr(node.target, "_schema"):
            raise NotACell(f"an iteration calls `{operation(node)}`, which torch.export keeps as it is")
        elif name in SAME or name == "aten.clone.default":
            self._slot[node] = self.slot(node.args[0])
        elif name == "aten.slice.Tensor" and (stretch := _stretch(node)) is not None:
            self._made(node, "aten.narrow.default", (node.args[0], *stretch), {}, replaced)
        else:
            self._made(node, name, node.args, node.kwargs, replaced)

    def _made(self, node: Fx, target: str, args: Any, kwargs: Any, replaced: Any) -> None:
        numbers = iter(range(1 << 30))

        def argument(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [argument(v) for v in value]
            number = next(numbers)
            return self._arg(value if replaced is None else replaced(value, number))

        positional = tuple(argument(a) for a in args)
        named = {k: argument(v) for k, v in kwargs.items() if k != "pin_memory"}
        out = self._slot[node] = self.new_slot()
        self._ops.append(Op("", operation(node), source_line(node), target, positional, named, (), out, 0))

    def _arg(self, value: Any) -> Arg:
        """An argument of an operation."""
        if isinstance(value, Fx):
            val = value.meta.get("val")
            if isinstance(val, (torch.SymInt, int)) and not isinstance(val, bool) and value not in self._slot:
                return self._size(val)
            return Ref(self.slot(value))
        if isinstance(value, torch.SymInt):
            return self._size(value)
        return CurrentDevice() if isinstance(value, torch.device) else value

    def _size(self, size: Any) -> int | Count:
        """A size, which may grow with the batch."""
        if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None and size.node.expr.free_symbols != {self._batch}:
            raise NotACell("an iteration uses the length of the clip")
        try:
            return known(size)
        except Unfollowed as error:
            raise NotACell(f"a size in it is not a multiple of the batch: {error}") from error

    def made(self, outs: Iterable[int], new: Iterable[int]) -> Cell:
        """The cell, of what its results need."""
        outs, new = tuple(outs), tuple(new)
        wanted, kept = {*outs, *new}, list[Op]()
        for op in reversed(self._ops):
            if op.out in wanted:
                kept.append(op)
                wanted |= set(_read([*op.args, *op.kwargs.values()]))
        return Cell(tuple(kept[::-1]), self._count, self._arguments, outs, new)


def _stretch(node: Any) -> tuple[int, int, int] | None:
    """The dimension, the first entry and the number of a slice's entries, where they are numbers: ``narrow`` costs half of a slice."""
    dim: int = node.args[1] if len(node.args) > 1 else 0
    size, length, bounds = node.args[0].meta["val"].shape[dim], node.meta["val"].shape[dim], limits(node)
    if bounds is None or type(size) is not int or type(length) is not int:
        return None
    return dim, min(bounds[0] + size * (bounds[0] < 0), size - length), length


def _read(value: Any) -> Iterable[int]:
    if isinstance(value, Ref):
        return [value.slot]
    return [slot for v in value for slot in _read(v)] if isinstance(value, (list, tuple)) else []
