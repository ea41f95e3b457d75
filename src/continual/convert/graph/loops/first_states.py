"""States of loops that begin with a function of the clip's first frame, as ``self.gru(x, self.init(y[:, 0])[None])``.

A stream has its first frame once: in the first iteration. The loop takes the tensor of that frame, frame by frame beside what it takes
anyway, and its first iteration computes the function in the place of the states.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.fx import Node as Fx

from ..capture import Captured
from ..masked_parts import before
from ..needed_nodes import writes_memory
from ..row_sizes import Unfollowed, known
from ..slice_bounds import END, limits, rank
from .cell import NotACell
from .layout import Layout
from .operation import LOOPS, registered
from .operations import LOOP, begins_of, call_of
from .traced import Traced, batch_symbol, results_of

A = torch.ops.aten
FAR = 10**6  # frames, for the ratio of two lengths


def with_first_states(captured: Captured) -> None:
    """Let the loops of an exported graph begin with their states, where these are functions of first frames."""
    graph, batch = captured.program.graph, batch_symbol(captured)
    names = captured.program.graph_signature.user_inputs
    streams = {n for n, time in zip(names, captured.time_dims, strict=True) if time is not None}
    moving: set[Fx] | None = None
    for node in list(graph.nodes):
        begins = begins_of(node)
        if not begins:
            continue
        moving = _moving(graph, streams) if moving is None else moving
        if any(value in moving for value in begins) and all(_Region(batch, moving).reaches(value) for value in begins):
            _exchange(node, captured, streams)
            moving = None


def _moving(graph: Graph, streams: set[str]) -> set[Fx]:
    """The tensors that depend on frames."""
    found: set[Fx] = set()
    for node in graph.nodes:
        given = node.name in streams if node.op == "placeholder" else any(a in found for a in node.all_input_nodes)
        if given and isinstance(node.meta.get("val"), (Tensor, list, tuple)):
            found.add(node)
    return found


# ---- between the first frame and a state ------------------------------------------------------------------------------------


@dataclass
class _Region:
    """What is computed of first frames, in the order of the graph.

    Attributes:
        batch: the symbol of the batch.
        moving: the tensors that depend on frames.
        frames: the first frames, each with its tensor and the dimension of time in it.
        same: what else it takes.
        computed: the operations.
    """

    batch: Any
    moving: set[Fx]
    frames: dict[Fx, tuple[Fx, int]] = field(default_factory=dict)
    same: dict[Fx, None] = field(default_factory=dict)
    computed: set[Fx] = field(default_factory=set)

    def reaches(self, node: Fx) -> bool:
        """Whether a node is computed of first frames, and of what is the same for all frames. Operations that write into tensors, and
        those that use the length of the clip, can't be done in an iteration."""
        if node in self.computed or node in self.same or node in self.frames:
            return True
        val = node.meta.get("val")
        if not isinstance(val, (Tensor, list, tuple)):
            return isinstance(val, (int, float)) or (isinstance(val, torch.SymInt) and self._is_of_batch(val))
        if node not in self.moving and isinstance(val, Tensor):
            self.same[node] = None
            return True
        cut = _first_frame(node)
        if cut is not None and self._is_time(cut) and not _is_written_later(*cut, node):
            self.frames[node] = cut
            return True
        if node.op != "call_function" or (writes_memory(node) and _elsewhere(node) is None) or _is_changed(node):
            return False
        if not all(map(self.reaches, node.all_input_nodes)):
            return False
        self.computed.add(node)
        return True

    def in_order(self) -> list[Fx]:
        """First frames and operations, in the order of the graph."""
        found = {*self.frames, *self.computed}
        return [n for n in next(iter(found)).graph.nodes if n in found] if found else []

    def _is_of_batch(self, size: torch.SymInt) -> bool:
        return size.node.maybe_as_int() is not None or size.node.expr.free_symbols == {self.batch}

    def _is_time(self, cut: tuple[Fx, int]) -> bool:
        size = cut[0].meta["val"].shape[cut[1]]
        return cut[0] in self.moving and isinstance(size, torch.SymInt) and not self._is_of_batch(size)


def _elsewhere(node: Fx) -> Any:
    """The operation that gives what another one writes into its argument, which nothing else uses; ``None`` where there is none."""
    x: Any = node.args[0]
    name, _, overload = str(node.target).removeprefix("aten.").rpartition(".")
    packet = getattr(A, name.removesuffix("_"), None) if name.endswith("_") else None
    fresh = all(_memory(x) != _memory(n) for n in x.all_input_nodes if isinstance(n.meta["val"], Tensor))
    return getattr(packet, overload, None) if len(x.users) == 1 and fresh and x.op == "call_function" else None


def _is_changed(node: Fx) -> bool:
    """Whether anything is written into the memory of a value, other than by operations that can give it elsewhere."""
    val = node.meta["val"]
    writes = (n for n in node.graph.nodes if writes_memory(n)) if isinstance(val, Tensor) else ()
    return any(_memory(n.args[0]) == _memory(node) and _elsewhere(n) is None for n in writes)


def _memory(node: Fx) -> int:
    return int(node.meta["val"].untyped_storage()._cdata)


def _first_frame(node: Fx) -> tuple[Fx, int] | None:
    """The tensor and the dimension of which a node is the first entry."""
    selected = node.target is A.select.int and node.args[2] == 0
    if not selected and not (node.target is A.slice.Tensor and limits(node) == (0, 1)):
        return None
    x: Any = node.args[0]
    at: Any = node.args[1] if len(node.args) > 1 else 0
    return x, at % rank(x)


def _is_written_later(x: Fx, at: int, node: Fx) -> bool:
    """Whether anything is written into a tensor behind a node, which is a view of it."""
    return any(_memory(n.args[0]) == _memory(x) for n in x.graph.nodes if n > node and writes_memory(n))


# ---- the loop -----------------------------------------------------------------------------------------------------------------


def _exchange(node: Fx, captured: Captured, streams: set[str]) -> None:
    """Call the loop that takes its first frames itself."""
    call = call_of(node, captured)
    if call is None:
        return
    moving = _moving(node.graph, streams)
    region, begins = _Region(batch_symbol(captured), moving), [i for i, value in enumerate(call.init) if value in moving]
    if not all(region.reaches(call.init[i]) for i in begins):
        return
    sources = list(dict.fromkeys(region.frames.values()))
    xs = [_beside(call.xs[0], source, at, node) for source, at in sources]
    frames = {source: before(node, A.select.int, source, at, 0) for source, at in sources}
    try:
        traced = _begun(call.traced, region, {i: call.init[i] for i in begins}, list(frames.items()))
    except (NotACell, Unfollowed):  # an iteration can't compute it
        return
    if None in xs:
        return
    number = registered(traced)
    weakref.finalize(node.graph, LOOPS.pop, number, None)
    init = list(call.init)
    for i in begins:  # unused
        init[i] = before(node, A.zeros.default, [1], dtype=call.init[i].meta["val"].dtype)
        init[i].meta["val"] = call.init[i].meta["val"].new_zeros(1)
    call.give(before(node, LOOP, [*call.xs, *xs], init, [*call.same, *region.same], number))


def _beside(first: Fx, x: Fx, at: int, node: Fx) -> Fx | None:
    """The frames of a tensor beside those of a loop, with time in dim 0; ``None`` where there are fewer of them."""
    x = before(node, A.movedim.int, x, at, 0) if at else x
    sizes = [n.meta["val"].shape[0].node.expr for n in (first, x)]
    if sizes[0] == sizes[1]:
        return x
    few, many = (int(size.subs(dict.fromkeys(size.free_symbols, FAR))) for size in sizes)
    every = round(many / few)
    x = before(node, A.slice.Tensor, x, 0, 0, END, every) if every > 1 else x
    return before(node, A.slice.Tensor, x, 0, 0, before(node, A.sym_size.int, first, 0)) if many >= few else None


def _begun(traced: Traced, region: _Region, begins: Mapping[int, Fx], frames: list[tuple[Fx, Fx]]) -> Traced:
    """A loop whose first iteration computes states.

    Args:
        traced: the loop.
        region: what states are computed of.
        begins: the states by their numbers.
        frames: the tensors of first frames, and such a frame of each.
    """
    first, *later = traced.prologue or (traced.body,)
    made = [_with_places(graph, traced, region, {}, frames) for graph in (traced.body, *later)]
    return replace(
        traced,
        body=made[0],
        prologue=(_with_places(first, traced, region, begins, frames), *made[1:]),
        frames=traced.frames + len(frames),
    )


def _with_places(old: Graph, traced: Traced, region: _Region, begins: Mapping[int, Fx], frames: list[tuple[Fx, Fx]]) -> Graph:
    """A graph of an iteration that takes more frames, and what else states are computed of."""
    graph, env = Graph(), dict[Any, Fx]()

    def place(key: Any, like: Fx) -> None:
        env[key] = graph.placeholder(f"given{len(env)}")
        env[key].meta = {"val": like.meta["val"]}

    places = [n for n in old.nodes if n.op == "placeholder"]
    before_frames = traced.states + traced.frames
    for n in places[:before_frames]:
        place(n, n)
    for source, like in frames:
        place(("frame", source), like)
    for n in (*places[before_frames:], *region.same):
        place(n, n)
    for node in region.in_order() if begins else ():
        if node in region.frames:
            source, at = region.frames[node]
            env[node] = env["frame", source]
            if node.target is A.slice.Tensor:
                env[node] = _added(graph, A.unsqueeze.default, (env[node], at), node)
        else:
            env[node] = graph.node_copy(node, lambda n: _given(env, n))
            env[node].target = _elsewhere(node) if writes_memory(node) else node.target
    for i, value in begins.items():
        env[places[i]] = _spread(graph, env[value], value, places[i])
    for node in old.nodes:
        if node.op not in ("placeholder", "output"):
            env[node] = graph.node_copy(node, env.__getitem__)
    graph.output(tuple(env[n] for n in results_of(old)))
    return graph


def _given(env: Mapping[Any, Fx], node: Fx) -> Any:
    """An argument: sizes are numbers, or numbers of rows."""
    val = node.meta["val"]
    return env[node] if isinstance(val, (Tensor, list, tuple)) else known(val)


def _spread(graph: Graph, made: Fx, value: Fx, state: Fx) -> Fx:
    """What is computed, in the shape of the state.

    Raises:
        NotACell: its rows are elsewhere.
    """
    own, wanted = Layout.of(value.meta["val"]), Layout.of(state.meta["val"])
    behind = [None if x.rows is None else len(x.sizes) - x.rows for x in (own, wanted)]
    if behind[0] is None or behind[0] != behind[1]:
        raise NotACell("a state begins with other rows than it has later")
    if own == wanted:
        return made
    return _added(graph, A.expand.default, (made, [known(n) for n in state.meta["val"].shape]), state)


def _added(graph: Graph, target: Any, args: tuple[Any, ...], like: Fx) -> Fx:
    made = graph.call_function(target, args)
    made.meta = dict(like.meta)
    return made
