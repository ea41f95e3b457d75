"""Cells of recurrent networks in compiled programs: as the products and sums that they consist of, which compilers fuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from .native_code import emit


def write_out_cells(program: ExportedProgram) -> None:
    """Write cells as operations. Left as they are, their products are calls of a library, whatever their size."""
    aten, graph = torch.ops.aten, program.graph
    writers: dict[Any, Callable[[Graph, Node], list[Node]]] = {
        aten.gru_cell.default: _gru,
        aten.lstm_cell.default: _lstm,
        aten.rnn_tanh_cell.default: _tanh,
        aten.rnn_relu_cell.default: _relu,
    }
    for node in list(graph.nodes):
        if node.target not in writers:
            continue
        with graph.inserting_before(node):
            results: Any = writers[node.target](graph, node)
        if len(results) == 1:
            node.replace_all_uses_with(results[0])
        else:
            for user in list(node.users):  # each takes one
                user.replace_all_uses_with(results[user.args[1]])
                graph.erase_node(user)
        graph.erase_node(node)


def _gates(graph: Graph, node: Node, h: Any) -> tuple[Node, Node]:
    """What the input and the state add to the gates ``(B, gates * H)``."""
    linear, operands = torch.ops.aten.linear.default, [*node.args, None, None]
    x, _, from_x, from_h, x_bias, h_bias = operands[:6]
    return emit(graph, linear, x, from_x, x_bias), emit(graph, linear, h, from_h, h_bias)


def _split(graph: Graph, gates: Node, count: int) -> list[Node]:
    size = gates.meta["val"].shape[1] // count
    return [emit(graph, torch.ops.aten.slice.Tensor, gates, 1, i * size, (i + 1) * size) for i in range(count)]


def _gru(graph: Graph, node: Node) -> list[Node]:
    aten, h = torch.ops.aten, node.args[1]
    (reset, update, new), (h_reset, h_update, h_new) = (_split(graph, g, 3) for g in _gates(graph, node, h))
    reset = emit(graph, aten.sigmoid.default, emit(graph, aten.add.Tensor, reset, h_reset))
    update = emit(graph, aten.sigmoid.default, emit(graph, aten.add.Tensor, update, h_update))
    new = emit(graph, aten.add.Tensor, new, emit(graph, aten.mul.Tensor, reset, h_new))
    new = emit(graph, aten.tanh.default, new)
    kept = emit(graph, aten.mul.Tensor, emit(graph, aten.sub.Tensor, h, new), update)
    return [emit(graph, aten.add.Tensor, kept, new)]


def _lstm(graph: Graph, node: Node) -> list[Node]:
    aten, state = torch.ops.aten, list[Any](node.args[1])  # type: ignore[arg-type]
    h, c = state
    total = emit(graph, aten.add.Tensor, *_gates(graph, node, h))
    enter, forget, new, leave = _split(graph, total, 4)
    enter, forget, leave = (emit(graph, aten.sigmoid.default, gate) for gate in (enter, forget, leave))
    new = emit(graph, aten.mul.Tensor, enter, emit(graph, aten.tanh.default, new))
    c = emit(graph, aten.add.Tensor, emit(graph, aten.mul.Tensor, forget, c), new)
    return [emit(graph, aten.mul.Tensor, leave, emit(graph, aten.tanh.default, c)), c]


def _tanh(graph: Graph, node: Node) -> list[Node]:
    total = emit(graph, torch.ops.aten.add.Tensor, *_gates(graph, node, node.args[1]))
    return [emit(graph, torch.ops.aten.tanh.default, total)]


def _relu(graph: Graph, node: Node) -> list[Node]:
    total = emit(graph, torch.ops.aten.add.Tensor, *_gates(graph, node, node.args[1]))
    return [emit(graph, torch.ops.aten.relu.default, total)]
