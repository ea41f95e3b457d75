"""Depthwise convolutions of images in the graph of a compiled program, as modules that are converted have them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from ...layers.native import depthwise, depthwise_operation
from .native_code import constants, emit, is_float


def use_depthwise(program: ExportedProgram) -> None:
    """Write depthwise convolutions of images with constant weights as the operation of the kernel, where one is."""
    kernel = depthwise.library()
    if kernel is None:
        return
    depthwise_operation.operation()
    constant = constants(program)
    for node in list(program.graph.nodes):
        geometry = _geometry(node, constant, kernel.lanes)
        if geometry is not None:
            with program.graph.inserting_before(node):
                y = _by_kernel(program.graph, node, geometry, kernel.lanes)
            node.replace_all_uses_with(y)
            y.meta = dict(node.meta)
            program.graph.erase_node(node)


def _geometry(node: Node, constant: set[Node], lanes: int) -> tuple[int, ...] | None:
    """Kernel, stride and padding of a convolution for the kernel; ``None`` of all else."""
    if node.target is not torch.ops.aten.conv2d.default:
        return None
    given: list[Any] = [*node.args, *([None, [1, 1], [0, 0], [1, 1], 1][len(node.args) - 2 :])]
    x, weight, _, stride, pads, dilation, groups = given
    if not (is_float(x) and is_float(weight)) or weight not in constant:
        return None
    channels, inner, *kernel = weight.meta["val"].shape
    one_each = inner == 1 and groups == channels >= lanes and list(kernel) == [3, 3]
    if not one_each or set(dilation) != {1} or list(stride) not in ([1, 1], [2, 2]):
        return None
    return 3, stride[0], pads[0], pads[-1]


def _by_kernel(graph: Graph, node: Node, geometry: tuple[int, ...], lanes: int) -> Node:
    """The operation, on images with their channels last."""
    aten, given = torch.ops.aten, [*node.args, None]
    x, weight, bias = given[:3]
    pixels = graph.call_function(aten.contiguous.default, (graph.call_function(aten.permute.default, (x, [0, 2, 3, 1])),))
    numbers = (None, None, pixels, _blocks(graph, weight, lanes), bias, *geometry, 1)
    y = graph.call_function(torch.ops.continual.depthwise.default, numbers)
    return graph.call_function(aten.permute.default, (y, [0, 3, 1, 2]))


def _blocks(graph: Graph, weight: Any, lanes: int) -> Node:
    """As :func:`~continual.layers.native.depthwise.in_blocks`: the compiler computes it once."""
    aten, (channels, _, *kernel) = torch.ops.aten, weight.meta["val"].shape
    size, whole = math.prod(kernel), channels // lanes
    flat = emit(graph, aten.reshape.default, weight, [channels, size])
    blocks = emit(graph, aten.slice.Tensor, flat, 0, 0, whole * lanes)
    blocks = emit(graph, aten.reshape.default, blocks, [whole, lanes, size])
    if channels > whole * lanes:
        last = emit(graph, aten.slice.Tensor, flat, 0, channels - lanes, channels)
        blocks = emit(graph, aten.cat.default, [blocks, emit(graph, aten.unsqueeze.default, last, 0)])
    blocks = emit(graph, aten.permute.default, blocks, [0, 2, 1])
    return graph.call_function(aten.clone.default, (blocks,), {"memory_format": torch.contiguous_format})
