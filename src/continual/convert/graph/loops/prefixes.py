"""Sums, means and maxima of all frames so far, taken of longer and longer slices, as running ones: one frame for each iteration."""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from .simplify import argument, earliest, is_regular, name_of, put, range_of, replace, sizes

A = torch.ops.aten
SUMS = ("aten.mean.dim", "aten.sum.dim_IntList")
EXTREMES = {
    "aten.amax.default": A.cummax.default,
    "aten.amin.default": A.cummin.default,
    "aten.max.dim": A.cummax.default,
    "aten.min.dim": A.cummin.default,
}


def running(graph: Graph) -> None:
    """Exchange sums, means, maxima and minima of ``x[:, : t + 1]`` for frames of a running one, in place."""
    groups: dict[tuple[Fx, int, Any], list[tuple[Fx, int]]] = defaultdict(list)
    for node in graph.nodes:
        name = name_of(node)
        total = A.cumsum.default if name in SUMS else EXTREMES.get(name)
        source = node.args[0] if total is not None else None
        if not isinstance(source, Fx) or not all(
            _is_value(user) for user in node.users if name.endswith((".max.dim", ".min.dim"))
        ):
            continue
        dims: Any = argument(node, 1, "dim")
        dims = [dims] if isinstance(dims, int) else dims
        if not isinstance(dims, (list, tuple)) or len(dims) != 1:
            continue
        dim = int(dims[0]) % len(sizes(source))
        found = range_of(source) if name_of(source) == "aten.slice.Tensor" else None
        if found is not None and found[:2] == (dim, 0):
            groups[source.args[0], dim, total].append((node, found[2]))  # type: ignore[index]
        elif found is None and isinstance(sizes(source)[dim], int):  # the last iteration takes all frames
            groups[source, dim, total].append((node, int(sizes(source)[dim])))
    for (source, dim, total), members in groups.items():
        if is_regular(width for _, width in members):  # each slice has a frame more than the one before
            _exchange(graph, source, dim, total, members)


def _is_value(user: Fx) -> bool:
    """Whether this takes the values of an operation that gives values and places."""
    return user.target is operator.getitem and user.args[1:] == (0,)


def _exchange(graph: Graph, source: Fx, dim: int, total: Any, members: list[tuple[Fx, int]]) -> None:
    before = earliest(graph, (node for node, _ in members))
    running = put(graph, before, total, (source, dim), before)
    if total is not A.cumsum.default:
        values = running.meta["val"][0]
        with graph.inserting_before(before):
            running = graph.call_function(operator.getitem, (running, 0))
        running.meta["val"] = values
    for node, width in members:
        frame = put(graph, node, A.select.int, (running, dim, width - 1), node)
        if name_of(node) == "aten.mean.dim":
            frame = put(graph, node, A.div.Tensor, (frame, width), node)
        if argument(node, 2, "keepdim", False):
            frame = put(graph, node, A.unsqueeze.default, (frame, dim), node)
        for user in list(node.users) if name_of(node).endswith(("max.dim", "min.dim")) else [node]:
            replace(user, frame)
