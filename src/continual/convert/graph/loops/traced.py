"""Loops of an exported graph, with the traced graph of an iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.fx import Node as Fx

from ..capture import Captured
from .cell import Cell, CellMaker, NotACell
from .layout import Layout


@dataclass(frozen=True)
class Traced:
    """A loop, as graphs.

    Each graph takes the states, then a frame of each stream, then what is the same for all iterations; it gives the new states,
    then the outputs.

    Attributes:
        body: what an iteration computes.
        prologue: what the first iterations compute, where that is something else.
        states: their number.
        frames: the number of streams.
        batch: the symbol of the batch in the graphs; ``None``: it is a number.
    """

    body: Graph
    prologue: tuple[Graph, ...]
    states: int
    frames: int
    batch: Any

    @property
    def places(self) -> list[Fx]:
        """The inputs of the body."""
        return [n for n in self.body.nodes if n.op == "placeholder"]

    @property
    def results(self) -> list[Fx]:
        """The outputs of the body."""
        return results_of(self.body)

    @property
    def same(self) -> list[int]:
        """Which of the values common to all iterations are tensors."""
        same = self.places[self.states + self.frames :]
        return [i for i, n in enumerate(same) if isinstance(n.meta["val"], Tensor)]

    @property
    def rate(self) -> int:
        """The least number of rows for each entry of the batch that a frame, a state or an output has.

        Raises:
            NotACell: states or outputs have rows that are not those of the frames.
        """
        nodes = [*self.places[: self.states + self.frames], *self.results]
        layouts = [Layout.of(n.meta["val"]) for n in nodes]
        if self.batch is None:
            raise NotACell("the module takes the number of rows of its example for a constant")
        if any(own.rows is None for own in layouts):
            raise NotACell(
                "a state or an output of it has no dimension for the rows of the batch (h.expand(x.shape[0], *h.shape) has)"
            )
        least = min(own.rate for own in layouts)
        if any(own.rate % least for own in layouts):
            raise NotACell("a state or an output of it has other rows than the frames")
        return least

    def cells(self, ends: Sequence[int] = (), steps: bool = True) -> list[Cell]:
        """The body and the prologue as lists of operations.

        Args:
            ends: states that leave, too, behind the outputs.
            steps: tensors have their rows first, and frames one more dimension; otherwise they have the layout of the trace.

        Raises:
            NotACell: they can't be followed.
        """
        return [self._cell(graph, ends, steps) for graph in (self.body, *self.prologue)]

    def _cell(self, graph: Graph, ends: Sequence[int], steps: bool) -> Cell:
        make, places = CellMaker(self.batch), [n for n in graph.nodes if n.op == "placeholder"]
        states, frames = places[: self.states], places[self.states : self.states + self.frames]
        taken = [(n, make.take(n), True) for n in frames] + [(n, make.take(n), False) for n in states]
        for i in self.same:
            make.take(places[self.states + self.frames + i])
        for node, slot, step in taken if steps else ():
            make.name(node, Layout.of(node.meta["val"]).entered(make, slot, self.rate, step))
        for node in graph.nodes:
            if node.op == "call_function":
                make.add(node)
        results = results_of(graph)
        leaving = [*results[self.states :], *(results[i] for i in ends)]
        if not steps:
            return make.made(map(make.slot, leaving), map(make.slot, results[: self.states]))
        outs = [Layout.of(n.meta["val"]).left(make, make.slot(n), self.rate, True) for n in leaving]
        new = [Layout.of(n.meta["val"]).left(make, make.slot(n), self.rate, False) for n in results[: self.states]]
        return make.made(outs, new)


def results_of(graph: Graph) -> list[Fx]:
    """What a graph gives."""
    found: Any = next(n for n in graph.nodes if n.op == "output").args[0]
    return list(found)


def batch_symbol(captured: Captured) -> Any:
    """The symbol of the batch in an export; ``None`` if it has a number there."""
    names = captured.program.graph_signature.user_inputs
    values = [n.meta["val"] for n in captured.program.graph.nodes if n.op == "placeholder" and n.name in names]
    for val, batch in zip(values, captured.batch_dims, strict=True):
        if batch is not None and isinstance(size := val.shape[batch], torch.SymInt) and size.node.maybe_as_int() is None:
            return size.node.expr
    return None


def traced_scan(node: Fx, captured: Captured) -> Traced:
    """The loop of ``torch._higher_order_ops.scan``."""
    owner: Any = node.graph.owning_module
    graph = owner.get_submodule(str(node.args[0].target)).graph  # type: ignore[union-attr]
    return Traced(graph, (), len(node.args[1]), len(node.args[2]), batch_symbol(captured))  # type: ignore[arg-type]
