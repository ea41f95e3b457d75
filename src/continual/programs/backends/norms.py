"""Batch norms in compiled programs: part of the convolution before them, as inductor has it for convolutions of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from .native_code import constants, emit


def fold_norms(program: ExportedProgram) -> None:
    """Scale the weights of convolutions by the norms behind them. The compiler computes them once."""
    aten, constant = torch.ops.aten, constants(program)
    for node in list(program.graph.nodes):
        if node.target is not aten.batch_norm.default or node.args[5]:
            continue
        before, *numbers = node.args[:5]
        plain = before.target in (aten.conv2d.default, aten.conv3d.default) and len(before.users) == 1
        if not plain or any(t is not None and t not in constant for t in (*before.args[1:3], *numbers)):
            continue
        with program.graph.inserting_before(before):
            weight, bias = _scaled(program.graph, before, numbers, node.args[7])
        constant |= {weight, bias}
        before.args = (before.args[0], weight, bias, *before.args[3:])
        node.replace_all_uses_with(before)
        program.graph.erase_node(node)


def _scaled(graph: Graph, convolution: Node, numbers: list[Any], eps: Any) -> tuple[Node, Node]:
    """The weight and the bias of a convolution with the norm in them."""
    aten, (gain, offset, mean, variance) = torch.ops.aten, numbers
    operands: list[Any] = [*convolution.args, None]
    weight, bias = operands[1:3]
    factor = emit(graph, aten.rsqrt.default, emit(graph, aten.add.Tensor, variance, eps))
    factor = factor if gain is None else emit(graph, aten.mul.Tensor, factor, gain)
    by_output = emit(graph, aten.reshape.default, factor, [-1, *[1] * (weight.meta["val"].ndim - 1)])
    mean = emit(graph, aten.neg.default, mean) if bias is None else emit(graph, aten.sub.Tensor, bias, mean)
    moved = emit(graph, aten.mul.Tensor, mean, factor)
    moved = moved if offset is None else emit(graph, aten.add.Tensor, moved, offset)
    return emit(graph, aten.mul.Tensor, weight, by_output), moved
