"""Operations of an exported graph that are loops over frames, each as the loop that it is: `continual.loop`, `scan`, recurrent layers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from ..capture import Captured
from ..masked_parts import before
from ..slice_bounds import rank
from .operation import LOOPS
from .traced import Traced, batch_symbol, results_of, traced_scan

A = torch.ops.aten
LOOP = torch.ops.continual.loop.default
CELLS: dict[Any, Any] = {
    A.gru.input: A.gru_cell.default,
    A.lstm.input: A.lstm_cell.default,
    A.rnn_tanh.input: A.rnn_tanh_cell.default,
    A.rnn_relu.input: A.rnn_relu_cell.default,
}


@dataclass
class Call:
    """A loop of a graph.

    Attributes:
        node: the operation.
        traced: the loop.
        xs: what it takes frame by frame, with time in dim 0.
        init: what its states begin with.
        same: what is the same for all iterations.
        give: lets the users of the operation take the results of another call of the loop instead.
    """

    node: Fx
    traced: Traced
    xs: list[Any]
    init: list[Any]
    same: list[Any]
    give: Callable[[Fx], None]


def begins_of(node: Fx) -> list[Any]:
    """What the states of a loop begin with; empty for other operations."""
    if node.target is LOOP or str(node.target) == "scan":
        return list(node.args[1])  # type: ignore[arg-type]
    hx: Any = node.args[1] if node.target in CELLS else []
    return [hx] if isinstance(hx, Fx) else list(hx)


def call_of(node: Fx, captured: Captured) -> Call | None:
    """A loop of a graph; ``None`` for a recurrent layer that is no loop over cells forward in time."""
    if node.target in CELLS:
        return _recurrent(node, captured)
    if node.target is LOOP:
        xs, init, same, number = node.args
        return Call(node, LOOPS[number], list(xs), list(init), list(same), node.replace_all_uses_with)  # type: ignore[arg-type, index]
    _, init, xs, same = node.args
    traced = _with_states(traced_scan(node, captured))
    return Call(node, traced, list(xs), list(init), list(same), lambda made: _give_scan(node, traced, made))  # type: ignore[arg-type]


def item(made: Fx, number: int) -> Fx:
    """One of the results of an operation, behind it."""
    with made.graph.inserting_after(made):
        found = made.graph.call_function(operator.getitem, (made, number))
    found.meta = dict(made.meta) | {"val": made.meta["val"][number]}
    return found


# ---- scan -----------------------------------------------------------------------------------------------------------------


def _with_states(traced: Traced) -> Traced:
    """A loop that gives its states at each frame, too, behind its outputs."""
    graph = Graph()
    env: dict[Fx, Fx] = {}
    graph.graph_copy(traced.body, env)
    results = [env[n] for n in results_of(traced.body)]
    graph.output((*results, *results[: traced.states]))
    return replace(traced, body=graph)


def _give_scan(node: Fx, traced: Traced, made: Fx) -> None:
    outs = len(results_of(traced.body)) - 2 * traced.states
    for user in list(node.users):
        number: Any = user.args[1]
        if number < traced.states:
            user.replace_all_uses_with(before(user, A.select.int, item(made, outs + number), 0, -1))
        else:
            user.replace_all_uses_with(item(made, number - traced.states))


# ---- recurrent layers -----------------------------------------------------------------------------------------------------


def _recurrent(node: Fx, captured: Captured) -> Call | None:
    """A recurrent layer as a loop over its cells."""
    x, _hx, params, biased, layers, _, _, both, first = node.args
    begins, per = begins_of(node), len(params) // layers  # type: ignore[arg-type, operator]
    if both or per == (5 if biased else 3) or rank(x) != 3:  # type: ignore[arg-type]
        return None  # a projected layer has another cell
    frames = before(node, A.movedim.int, x, 1, 0) if first else x
    init = [before(node, A.select.int, h, 0, i) for h in begins for i in range(layers)]  # type: ignore[arg-type]
    frame = before(node, A.select.int, frames, 0, 0)
    traced = _cells(CELLS[node.target], frame, init, list(params), layers, batch_symbol(captured))  # type: ignore[arg-type]

    def give(made: Fx) -> None:
        for user in list(node.users):
            kind: Any = user.args[1]
            if kind == 0:
                y = item(made, 0)
                user.replace_all_uses_with(before(user, A.movedim.int, y, 0, 1) if first else y)
                continue
            own = range(1 + (kind - 1) * layers, 1 + kind * layers)
            last = [before(user, A.select.int, item(made, i), 0, -1) for i in own]
            user.replace_all_uses_with(before(user, A.stack.default, last, 0))

    return Call(node, traced, [frames], init, list(params), give)  # type: ignore[arg-type]


def _cells(cell: Any, frame: Fx, init: list[Fx], params: list[Fx], layers: int, batch: Any) -> Traced:
    """One step of all layers, which gives the output and all states."""
    graph = Graph()

    def place(name: str, like: Fx) -> Fx:
        made = graph.placeholder(name)
        made.meta = {"val": like.meta["val"]}
        return made

    states = [place(f"state{i}", n) for i, n in enumerate(init)]
    x = place("frame", frame)
    weights = [place(f"same{i}", n) for i, n in enumerate(params)]
    kinds, per = len(init) // layers, len(params) // layers
    new: list[list[Fx]] = [[] for _ in range(kinds)]
    for layer in range(layers):
        own = states[layer::layers]
        y = graph.call_function(cell, (x, own if kinds > 1 else own[0], *weights[layer * per : (layer + 1) * per]))
        y.meta = {"val": [h.meta["val"] for h in own] if kinds > 1 else own[0].meta["val"]}
        for i in range(kinds):
            new[i].append(item(y, i) if kinds > 1 else y)
        x = new[0][-1]
    flat = [h for of in new for h in of]
    graph.output((*flat, x, *flat))
    return Traced(graph, (), len(init), 1, batch)
