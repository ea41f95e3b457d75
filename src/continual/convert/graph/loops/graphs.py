"""The graphs of a loop: of an iteration, and of the first iterations where these differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from ..row_sizes import known
from .clock import Clock, counted, counter, number
from .matching import Body, Fixed, Frame, Key, NotALoop, Result, line
from .simplify import ANY_LAYOUT, flat, short
from .split import Computed, Parts
from .times import Tap, Times
from .traced import Traced

COUNT = "iterations"  # ``of`` of the state that counts them


@dataclass(frozen=True)
class Past:
    """A state: the result of an operation, or a frame, ``lag`` iterations ago. ``lag`` 0: a result of the first iterations that is
    kept."""

    of: Any  # Key | Tap | Fx | COUNT
    lag: int
    like: Fx


@dataclass(frozen=True)
class Out:
    """An output of a loop: the results of one operation; in the first iterations, those of other operations."""

    key: Key
    first: tuple[tuple[int, Fx], ...] = ()


@dataclass
class Graphs:
    """Makes the graphs of a loop.

    Args:
        body: the loop.
        times: of the whole graph.
        batch: the symbol of the batch.
        parts: operations that are computed apart from it.

    Attributes:
        taps: the inputs that are read frame by frame: :class:`Tap` or :class:`Computed`.
        states: the states.
        same: what is the same for all iterations.
        outs: the outputs.
    """

    body: Body
    times: Times
    batch: Any
    parts: Parts = field(default_factory=Parts)
    taps: list[Any] = field(default_factory=list)
    states: list[Past] = field(default_factory=list)
    same: list[Fx] = field(default_factory=list)
    outs: list[Out] = field(default_factory=list)

    def __post_init__(self) -> None:
        body = self.body
        self._prologue = [{n: None for n in body.slices[t]} for t in range(body.first)]
        lags = dict(body.frame_lags)
        self._keys = [k for k in body.keys if k not in self.parts.all]
        for key in self._keys:
            for a in body.args[key]:
                if isinstance(a, Frame) and a.tap not in self.taps:
                    self.taps.append(a.tap)
                if isinstance(a, Fixed) and isinstance(a.value, Fx):
                    self._fixed(a.value)
        for t in range(body.first):
            for tap, lag in self._frames_of(body.slices[t], t):
                lags[tap] = max(lags.get(tap, 0), lag)
        for value in body.seeds.values():
            self._seed(value, lags)
        for tap, lag in lags.items():
            like = next(n for n, (own, _) in self.times.taps.items() if own == tap)
            self.states += [Past(tap, i + 1, like) for i in range(lag)]
            if tap not in self.taps:
                self.taps.append(tap)
        for key, lag in body.lags.items():
            self.states += [Past(key, i + 1, body.node[key]) for i in range(lag)]
        if any(isinstance(a, Clock) for key in self._keys for a in body.args[key]):
            vals = [like.meta["val"] for like in (*map(self.like, self.taps), *(state.like for state in self.states))]
            self.states.append(Past(COUNT, 1, counter(vals)))

    def like(self, tap: Any) -> Fx:
        """An example of a frame."""
        if isinstance(tap, Computed):
            return self.body.node[tap.key]
        return next(n for n, (own, _) in self.times.taps.items() if own == tap)

    def _frames_of(self, nodes: Sequence[Fx], t: int) -> Iterator[tuple[Tap, int]]:
        for node in nodes:
            for a in node.all_input_nodes:
                if a in self.times.taps:
                    yield self.times.taps[a][0], t - self.times.of[a]

    def _fixed(self, node: Fx) -> None:
        """Something that all iterations use: of the first frames it is kept as a state."""
        if not isinstance(node.meta.get("val"), torch.Tensor):  # a size of the batch
            return
        if node in self.times.of:
            self._keep(node)
        elif node not in self.same:
            self.same.append(node)

    def _keep(self, node: Fx) -> None:
        if all(state.of is not node for state in self.states):
            self.states.append(Past(node, 0, node))
            if node in self.times.taps and self.times.taps[node][0] not in self.taps:
                self.taps.append(self.times.taps[node][0])

    def _seed(self, value: Any, lags: dict[Tap, int]) -> None:
        if isinstance(value, Fx) and value in self.times.taps:
            tap, _ = self.times.taps[value]
            if tap not in self.taps:
                self.taps.append(tap)

    # ---- graphs -----------------------------------------------------------------------------------------------------

    def traced(self) -> Traced:
        """The graphs, given the outputs.

        Raises:
            NotALoop: a state begins with something that comes later.
        """
        self._kept_between()
        prologue = [self._first(t) for t in range(self.body.first)]  # they add to what is the same for all
        prologue = [self._first(t) for t in range(self.body.first)] if prologue else []
        return Traced(self._body(), tuple(prologue), len(self.states), len(self.taps), self.batch)

    def begins(self) -> list[Fx | Past]:
        """The initial states. Where these are zeros or unused: zeros like the state."""
        found: list[Fx | Past] = []
        for state in self.states:
            value = self.body.seeds.get((state.of, -state.lag)) if isinstance(state.of, tuple) and state.lag else None
            found.append(value if isinstance(value, Fx) and short(value) != "zeros" else state)
        return found

    def _there(self, node: Fx, t: int) -> bool:
        """Whether one of the first iterations has a value: computed, as a state, or computed again from these."""
        if node not in self.times.of or self.times.of[node] >= t or any(s.of is node for s in self.states):
            return True
        if node in self.times.taps:
            tap, lag = self.times.taps[node][0], t - self.times.of[node]
            return any(s.of == tap and s.lag == lag for s in self.states)
        return self._carried(node, t) is not None or all(self._there(a, t) for a in node.all_input_nodes)

    def _carried(self, node: Fx, t: int) -> Past | None:
        """The state by which one of the first iterations gets a result of another of them."""
        for (key, i), seed in self.body.seeds.items():
            if seed is node and i == self.times.of[node]:
                return next((s for s in self.states if s.of == key and s.lag == t - i), None)
        return None

    def _size(self, size: Any) -> Any:
        """A size, which may grow with the batch."""
        if isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None and size.node.expr.free_symbols != {self.batch}:
            raise NotALoop("an iteration uses the length of the clip", "sizes that are the same for all clips")
        return known(size) if isinstance(size, (int, torch.SymInt)) else size

    def _kept_between(self) -> None:
        """Results of one of the first iterations that a later one of them uses, or a state begins with, are kept."""
        for t in range(self.body.first):
            values = [a for n in self.body.slices[t] for a in n.all_input_nodes]
            values += [v for (_, i), v in self.body.seeds.items() if i == t and isinstance(v, Fx)]
            values += [n for out in self.outs for i, n in out.first if i == t]
            for a in values:
                if not self._there(a, t):
                    self._keep(a)

    def _opened(self) -> tuple[Graph, dict[Any, Fx]]:
        """A graph with its places."""
        graph, env = Graph(), dict[Any, Fx]()
        for i, state in enumerate(self.states):
            env[state] = _place(graph, f"state{i}", state.like)
        for i, tap in enumerate(self.taps):
            env[Frame(tap, 0)] = _place(graph, f"frame{i}", self.like(tap))
        for i, node in enumerate(self.same):
            env[node] = _place(graph, f"same{i}", node)
        return graph, env

    def _state(self, env: dict[Any, Fx], of: Any, lag: int) -> Fx:
        state = next((s for s in self.states if s.of == of and s.lag == lag), None)
        if state is None:
            raise NotALoop(
                "an iteration uses a result that is not kept", "one loop over the frames, each of whose iterations is alike"
            )
        return env[state]

    def _body(self) -> Graph:
        graph, env = self._opened()
        made: dict[Key, Fx] = {}

        def value(a: Any) -> Any:
            if isinstance(a, Result):
                return made[a.key] if not a.lag else self._state(env, a.key, a.lag)
            if isinstance(a, Frame):
                return env[a] if not a.lag else self._state(env, a.tap, a.lag)
            if isinstance(a.value, Fx):
                if not isinstance(a.value.meta.get("val"), torch.Tensor):
                    return self._size(a.value.meta["val"])
                return env[a.value] if a.value in env else self._state(env, a.value, 0)
            return a.value

        for key in self._keys:
            node = self.body.node[key]
            args = [self._number(env, a, node) if isinstance(a, Clock) else value(a) for a in self.body.args[key]]
            made[key] = copied(graph, node, args)
        new = []
        for state in self.states:
            if state.lag == 0:
                new.append(env[state])
            elif state.of is COUNT:
                new.append(counted(env[state]))
            elif state.lag > 1:
                new.append(self._state(env, state.of, state.lag - 1))
            else:
                new.append(env[Frame(state.of, 0)] if isinstance(state.of, Tap) else made[state.of])
        graph.output((*new, *(made[out.key] for out in self.outs)))
        return graph

    def _number(self, env: dict[Any, Fx], clock: Clock, node: Fx) -> Fx:
        """A number of the iteration, for an operation that takes it."""
        made = number(clock, self._state(env, COUNT, 1), node.meta["val"])
        if made is None:
            raise NotALoop(f"a number of the iteration meets tensors of other rows{line(node)}", "the batch in all of them", node)
        return made

    def _first(self, t: int) -> Graph:
        """One of the first iterations."""
        graph, env = self._opened()
        made: dict[Fx, Fx] = {}

        def value(a: Any) -> Any:
            if not isinstance(a, Fx):
                return a
            if a in made:
                return made[a]
            if not isinstance(a.meta.get("val"), (torch.Tensor, list, tuple)):
                return self._size(a.meta["val"])
            if a in self.times.taps:
                tap, lag = self.times.taps[a][0], t - self.times.of[a]
                return env[Frame(tap, 0)] if lag == 0 else self._state(env, tap, lag)
            if a in self.times.of:
                if self.times.of[a] > t:
                    raise NotALoop(f"a state begins with a later iteration{line(a)}", "states that begin before the loop", a)
                kept = self._carried(a, t) or next((s for s in self.states if s.of is a), None)
                if kept is None:  # computed again
                    made[a] = copied(graph, a, map(value, leaves_of(a)))
                return made[a] if kept is None else env[kept]
            if a not in env:
                self.same.append(a)
                env[a] = _place(graph, f"same{len(self.same) - 1}", a)
            return env[a]

        for node in self.body.slices[t]:
            made[node] = copied(graph, node, map(value, leaves_of(node)))
        new = [self._new_first(state, t, env, made, value) for state in self.states]
        outs = []
        for out in self.outs:
            first = dict(out.first).get(t)
            outs.append(self._blank(graph, self.body.node[out.key]) if first is None else value(first))
        graph.output((*new, *outs))
        return graph

    def _new_first(self, state: Past, t: int, env: dict[Any, Fx], made: dict[Fx, Fx], value: Any) -> Fx:
        """A state after one of the first iterations."""
        if state.of is COUNT:
            return counted(env[state])
        if state.lag == 0:
            here = self.times.of[state.of] == t
            found: Fx = value(state.of) if here else env[state]
            return found
        if isinstance(state.of, Tap):
            return env[Frame(state.of, 0)] if state.lag == 1 else self._state(env, state.of, state.lag - 1)
        seed = self.body.seeds.get((state.of, t + 1 - state.lag))
        if isinstance(seed, Fx) and (state.lag == 1 or self.times.of.get(seed, -1) == t):
            found = value(seed)
            return found
        return self._state(env, state.of, state.lag - 1) if state.lag > 1 else env[state]

    def _blank(self, graph: Graph, like: Fx) -> Fx:
        """The placeholder for an unused result."""
        val = like.meta["val"]
        shape = [self._size(n) for n in val.shape]
        made = graph.call_function(torch.ops.aten.zeros.default, (shape,), {"dtype": val.dtype, "device": val.device})
        made.meta = {"val": val}
        return made


def leaves_of(node: Fx) -> list[Any]:
    """The arguments of a node, one after another."""
    return flat([node.args, list(node.kwargs.values())])


def copied(graph: Graph, node: Fx, leaves: Any) -> Fx:
    """A copy of a node with other arguments."""
    replaced = iter(leaves)

    def build(value: Any) -> Any:
        return [build(v) for v in value] if isinstance(value, (list, tuple)) else next(replaced)

    args = tuple(build(a) for a in node.args)
    target: Any = node.target
    made = graph.call_function(ANY_LAYOUT.get(target, target), args, {k: build(v) for k, v in node.kwargs.items()})
    made.meta = dict(node.meta)
    return made


def _place(graph: Graph, name: str, like: Fx) -> Fx:
    place = graph.placeholder(name)
    place.meta = {"val": like.meta["val"]}
    return place
