"""Sums and means over growing slices, ``x[:, : t + 1]``, as running sums with one frame for each iteration."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from .simplify import argument, earliest, is_regular, name_of, put, range_of, replace, sizes

A = torch.ops.aten
SUMS = ("aten.mean.dim", "aten.sum.dim_IntList")


def running(graph: Graph) -> None:
    """Replace sums and means of ``x[:, : t + 1]`` by frames of a running sum, in place."""
    groups: dict[tuple[Fx, int], list[tuple[Fx, int]]] = defaultdict(list)
    for node in graph.nodes:
        source = node.args[0] if name_of(node) in SUMS else None
        if not isinstance(source, Fx):
            continue
        dims: Any = argument(node, 1, "dim")
        if not isinstance(dims, (list, tuple)) or len(dims) != 1:
            continue
        dim = int(dims[0]) % len(sizes(source))
        found = range_of(source) if name_of(source) == "aten.slice.Tensor" else None
        if found is not None and found[:2] == (dim, 0):
            groups[source.args[0], dim].append((node, found[2]))  # type: ignore[index]
        elif found is None and isinstance(sizes(source)[dim], int):  # the last iteration takes all frames
            groups[source, dim].append((node, int(sizes(source)[dim])))
    for (source, dim), members in groups.items():
        if is_regular(width for _, width in members):  # each slice has a frame more than the one before
            _exchange(graph, source, dim, members)


def _exchange(graph: Graph, source: Fx, dim: int, members: list[tuple[Fx, int]]) -> None:
    before = earliest(graph, (node for node, _ in members))
    total = put(graph, before, A.cumsum.default, (source, dim), before)
    for node, width in members:
        frame = put(graph, node, A.select.int, (total, dim, width - 1), node)
        if name_of(node) == "aten.mean.dim":
            frame = put(graph, node, A.div.Tensor, (frame, width), node)
        if argument(node, 2, "keepdim", False):
            frame = put(graph, node, A.unsqueeze.default, (frame, dim), node)
        replace(node, frame)
