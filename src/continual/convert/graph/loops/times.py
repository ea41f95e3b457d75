"""Which operations of an exported graph belong to which iteration of a loop over frames."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from .simplify import PACED, WINDOW, dim_of, elements_of, name_of, short, sizes

LEAST = 4  # iterations of a loop in a short clip


class Tap(NamedTuple):
    """A source of frames.

    Attributes:
        source: a tensor.
        dim: where time is in it.
        late: by how many iterations its frames are used after those of the longest source.
    """

    source: Fx
    dim: int
    late: int = 0

    @property
    def frames(self) -> int:
        """The number of its frames."""
        return int(sizes(self.source)[self.dim])


@dataclass
class Times:
    """The iterations of a graph.

    Attributes:
        of: the iteration of an operation: that of the last frame that it has seen.
        taps: for each frame that is taken: where, and which.
        joins: operations that put the results of iterations together.
        frames: of a clip, for one iteration each.
    """

    of: dict[Fx, int] = field(default_factory=dict)
    taps: dict[Fx, tuple[Tap, int]] = field(default_factory=dict)
    joins: list[Fx] = field(default_factory=list)
    frames: int = 0


def times_of(graph: Graph, inputs: set[str], frames: int, at_end: bool = True, evolving: bool = False) -> Times:
    """Find the frames that are taken one by one, and their iterations.

    Args:
        graph: simplified.
        inputs: names of the module's inputs.
        frames: of the clip, for one iteration each.
        at_end: shorter sources end with the longest; otherwise they begin with it.
        evolving: whether values that depend on no frame also belong to iterations, if each has its own, as the covariance of a
            Kalman filter.
    """
    found = Times(frames=frames)
    groups = _groups(graph, frames)
    moving = _moving(graph, inputs)
    longest = max((int(sizes(s)[d]) for s, d in groups if s in moving), default=0)
    for node in graph.nodes:
        if node.op == "output":
            continue
        if node in found.taps:
            tap, index = found.taps[node]
            found.of[node] = index + tap.late
            continue
        own = [found.of[a] for a in node.all_input_nodes if a in found.of and a in moving]
        if own and _is_join(node, found, longest):
            found.joins.append(node)
            own = []
        if own:
            found.of[node] = max(own)
            continue
        for (source, dim), members in groups.items():
            if source is node and node in moving:
                late = longest - int(sizes(source)[dim]) if at_end else 0
                found.taps.update({m: (Tap(source, dim, late), i) for m, i in members.items()})
    if evolving:
        found.of.update(_evolving(graph, found.of, moving))
    return found


def _evolving(graph: Graph, of: dict[Fx, int], moving: set[Fx]) -> dict[Fx, int]:
    """The iteration of what depends on no frame and is used by one iteration, or by the next one too. Others are the same for all."""
    found: dict[Fx, int] = {}
    for node in reversed(graph.nodes):
        if node.op != "call_function" or node in moving or not node.users or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        used = [of.get(u, found.get(u)) for u in node.users]
        times = [t for t in used if t is not None]
        if len(times) == len(used) and max(times) - min(times) <= 1:
            found[node] = min(times)
    return found


def _groups(graph: Graph, frames: int) -> dict[tuple[Fx, int], dict[Fx, int]]:
    """Frames of a tensor, almost all of which are taken."""
    groups: dict[tuple[Fx, int], dict[Fx, int]] = defaultdict(dict)
    for node in graph.nodes:
        if name_of(node) == "aten.select.int" and isinstance(node.args[2], int):
            dim = dim_of(node)
            size = sizes(node.args[0])[dim]
            if isinstance(size, int) and (abs(size - frames) <= 3 or PACED in node.args[0].meta):
                groups[node.args[0], dim][node] = node.args[2] % size
    return {
        (source, dim): members
        for (source, dim), members in groups.items()
        if len(set(members.values())) >= max(LEAST - 1, int(sizes(source)[dim]) - 2)
    }


def _moving(graph: Graph, inputs: set[str]) -> set[Fx]:
    """What depends on values of the inputs."""
    found: set[Fx] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.target in inputs:  # a copied node of a Python builtin's name, such as `input`, has another one
                found.add(node)
        elif short(node) != "sym_size" and any(a in found for a in node.all_input_nodes):
            found.add(node)
    return found


def _is_join(node: Fx, found: Times, longest: int) -> bool:
    """Whether it puts the results of almost all iterations together, in their order."""
    if short(node) not in ("cat", "stack") or node.meta.get(WINDOW):
        return False
    own = [found.of[e] for e in elements_of(node) if e in found.of]
    steps = [b - a for a, b in itertools.pairwise(own)]
    return len(set(own)) >= max(3, longest - 3) and all(0 <= s <= 1 for s in steps) and own[-1] >= longest - 2


def components(graph: Graph, times: Times) -> list[list[Fx]]:
    """The operations of each loop, in order. Loops that follow each other, or take the same frames, are several."""
    parent = {n: n for n in times.of if n not in times.taps}
    tails = _behind(times)

    def root(n: Fx) -> Fx:
        while parent[n] is not n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for node in parent:
        for a in node.all_input_nodes:
            if a in parent and node not in tails:
                parent[root(a)] = root(node)
    for join in times.joins:
        own = [e for e in elements_of(join) if e in parent]
        for e in own[1:]:
            parent[root(e)] = root(own[0])
    found: dict[Fx, list[Fx]] = defaultdict(list)
    for node in graph.nodes:
        if node in parent and node not in tails:
            found[root(node)].append(node)
    return list(found.values())


def _behind(times: Times) -> set[Fx]:
    """Operations behind a loop on its last results: no earlier iteration comes by their lines of code."""
    last = max(times.of.values(), default=0)
    traces = {n.meta.get("stack_trace") for n, t in times.of.items() if last - 3 <= t < last and n not in times.taps}
    return {n for n, t in times.of.items() if t == last and n not in times.taps and n.meta.get("stack_trace") not in traces}
