"""Rewrites the creation of tensors of one value, such as ``zeros_like(frame)``, as a function of sizes alone, not of a frame."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from ..exec_context import Count
from ..filled_ops import EVERY, SIZED
from ..row_sizes import Unfollowed, known
from .simplify import argument, short

A = torch.ops.aten


def plain_fills(graph: Graph) -> None:
    """Replace ``zeros_like`` and its like by operations on sizes, in place."""
    sizes = _Sizes(graph)
    for node in [n for n in graph.nodes if short(n) in EVERY]:
        try:
            shape = [sizes.of(size) for size in node.meta["val"].shape]
        except Unfollowed:
            continue
        name, val = short(node), node.meta["val"]
        value: Any = EVERY[name]
        if value is None:
            value = argument(node, 2 if name in SIZED else 1, "fill_value")
        if isinstance(value, Fx):
            continue
        with graph.inserting_before(node):
            options = {"dtype": val.dtype, "device": val.device}
            target, args = (A.zeros.default, (shape,)) if value == 0 else (A.full.default, (shape, value))
            made = graph.call_function(target, args, options)
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.erase_node(node)


class _Sizes:
    """Nodes for sizes that grow with the batch.

    Args:
        graph: whose inputs have a batch.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        self._places = [n for n in graph.nodes if n.op == "placeholder"]
        self._known: dict[int, Fx] = {}

    def of(self, size: Any) -> int | Fx:
        """A size as an argument.

        Raises:
            Unfollowed: it is not a multiple of the batch.
        """
        own = known(size)
        if not isinstance(own, Count):
            return own
        if own.more:
            raise Unfollowed("rows of the batch and others")
        if own.rate not in self._known:
            self._known[own.rate] = self._made(own.rate, size)
        return self._known[own.rate]

    def _made(self, rate: int, like: Any) -> Fx:
        for place in self._places:
            for dim, size in enumerate(getattr(place.meta.get("val"), "shape", ())):
                own = known(size)
                if isinstance(own, Count) and not own.more and rate % own.rate == 0:
                    with self._graph.inserting_after(self._places[-1]):
                        rows = self._graph.call_function(A.sym_size.int, (place, dim))
                    rows.meta["val"] = size
                    return rows if rate == own.rate else self._times(rows, rate // own.rate, like)
        raise Unfollowed("no input has a batch")

    def _times(self, rows: Fx, factor: int, like: Any) -> Fx:
        with self._graph.inserting_after(rows):
            made = self._graph.call_function(operator.mul, (rows, factor))
        made.meta["val"] = like
        return made
