"""Strided frames and windows of several frames, as frames of a tensor that has one frame for each iteration."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from .simplify import PACED, REST, WIDE, dead, dim_of, earliest, is_regular, name_of, put, range_of, replace, sizes

A = torch.ops.aten


def at_stride(graph: Graph, pace: int, frames: int) -> None:
    """Take frames out of ``x[:, r::stride]`` and ``x.unfold(dim, width, stride)``, where an iteration advances by several frames.

    Args:
        graph: simplified, in place.
        pace: frames of the clip for each iteration.
        frames: of the clip; shorter tensors have fewer frames for each iteration.
    """
    groups: dict[tuple[Fx, int, int | None], list[tuple[Fx, int]]] = defaultdict(list)
    for node in graph.nodes:
        if name_of(node) == "aten.select.int" and isinstance(node.args[2], int):
            dim = dim_of(node)
            size = sizes(node.args[0])[dim]
            if isinstance(size, int):
                groups[node.args[0], dim, None].append((node, node.args[2] % size))
        elif name_of(node) == "aten.slice.Tensor" and (found := range_of(node)) is not None and found[2] > 1:
            groups[node.args[0], found[0], found[2]].append((node, found[1]))
    for (source, dim, width), members in groups.items():
        size = sizes(source)[dim]
        stride = _stride([start for _, start in members], size, pace, frames) if isinstance(size, int) else 1
        if stride > 1 or (width is not None and width > WIDE):
            _regular(graph, source, dim, width, stride, members)
    dead(graph)


def _stride(starts: list[int], size: int, pace: int, frames: int) -> int:
    """By how many frames of a tensor an iteration advances. Where the frames used do not show it, the tensor's length does."""
    if pace == 1:
        return 1
    distances = {b - a for a, b in itertools.pairwise(sorted(set(starts)))}
    if len(distances) == 1 and distances != {1}:
        return distances.pop()
    strides = [n for n in range(1, pace) if pace % n == 0] + [pace * n for n in range(1, 5)]
    return min(strides, key=lambda stride: abs(size - stride * frames / pace))


def _regular(graph: Graph, source: Fx, dim: int, width: int | None, stride: int, members: list[tuple[Fx, int]]) -> None:
    """Take what lies at equal distances out of one strided tensor for each offset; frames at several offsets out of windows."""
    classes: dict[int, list[tuple[Fx, int]]] = defaultdict(list)
    for node, start in members:
        classes[start % stride].append((node, start))
    found = [own for own in classes.values() if is_regular((start for _, start in own), stride)]
    if width is None and len(found) > 1:
        own = sorted(itertools.chain(*found), key=lambda member: member[1])
        first, last = own[0][1], own[-1][1]
        places = max((start - first) % stride for _, start in own) + 1
        if first + (last - first) // stride * stride + places <= sizes(source)[dim]:
            found, width = [own], places
    for own in found:
        first, before = min(start for _, start in own), earliest(graph, (node for node, _ in own))
        made = _of_all(graph, before, source, dim, width, stride, first)
        for node, start in own:
            number, place = divmod(start - first, stride)
            frame = put(graph, node, A.select.int, (made, dim, number), node)
            if len(sizes(frame)) > len(sizes(node)):
                frame = put(graph, node, A.select.int, (frame, len(sizes(node)), place), node)
            elif width is not None:  # the frames of a window come last in an unfolded tensor
                rank = len(sizes(frame))
                frame = put(graph, node, A.permute.default, (frame, [*range(dim), rank - 1, *range(dim, rank - 1)]), node)
            replace(node, frame)


def _of_all(graph: Graph, before: Fx, source: Fx, dim: int, width: int | None, stride: int, first: int) -> Fx:
    """A tensor with one frame, or window, for each iteration."""
    made: Any = source
    if width is None:
        made = put(graph, before, A.slice.Tensor, (made, dim, first, REST, stride), before)
    else:
        if first:
            made = put(graph, before, A.slice.Tensor, (made, dim, first, REST), before)
        made = put(graph, before, A.unfold.default, (made, dim, width, stride), before)
    made.meta[PACED] = True
    return made
