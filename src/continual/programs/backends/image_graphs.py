"""Convolutions of images in the graph of a compiled program, as modules that are converted have them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from ...layers.native import convolution, depthwise, image_operations, product
from .native_code import constants, emit, is_float
from .products import panels


def use_images(program: ExportedProgram) -> None:
    """Write convolutions of images with constant weights as operations of the kernels, where these are the faster ones."""
    if product.library() is None or depthwise.library() is None or convolution.library() is None:
        return
    image_operations.operations()
    constant = constants(program)
    for node in list(program.graph.nodes):
        if node.target is not torch.ops.aten.conv2d.default:
            continue
        given: list[Any] = [*node.args, *([None, [1, 1], [0, 0], [1, 1], 1][len(node.args) - 2 :])]
        if not (is_float(given[0]) and is_float(given[1])) or given[1] not in constant:
            continue
        with program.graph.inserting_before(node):
            y = _depthwise(program.graph, *given) or _dense(program.graph, *given)
        if y is not None:
            node.replace_all_uses_with(y)
            y.meta = dict(node.meta)
            program.graph.erase_node(node)


def _depthwise(
    graph: Graph, x: Node, weight: Node, bias: Node | None, stride: Any, pads: Any, dilation: Any, groups: int
) -> Node | None:
    """A convolution for each channel, by a square of 3."""
    channels, inner, *kernel = weight.meta["val"].shape
    compiled: Any = depthwise.library()
    one_each = inner == 1 and groups == channels >= compiled.lanes and kernel == [3, 3]
    if not one_each or set(dilation) != {1} or list(stride) not in ([1, 1], [2, 2]):
        return None
    blocks = _blocks(graph, weight, compiled.lanes)
    return _called(graph, "image_depthwise", x, blocks, bias, 3, stride[0], pads[0], pads[-1], 1)


def _dense(
    graph: Graph, x: Node, weight: Node, bias: Node | None, stride: Any, pads: Any, dilation: Any, groups: int
) -> Node | None:
    """A convolution of all channels."""
    aten, (features, channels, *kernel) = torch.ops.aten, weight.meta["val"].shape
    size = weight.meta["val"].numel()
    if groups > 1 or channels < convolution.FEWEST_CHANNELS or size > convolution.MOST_WEIGHTS:
        return None
    compiled: Any = convolution.library()
    flat = emit(graph, aten.reshape.default, emit(graph, aten.permute.default, weight, [0, 2, 3, 1]), [features, -1])
    weights = panels(graph, flat, features, compiled.lanes)
    pairs = ([p[0], p[-1]] for p in (kernel, stride, pads, dilation))
    return _called(graph, "image_convolution", x, weights, bias, features, *(n for pair in pairs for n in pair), 1)


def _called(graph: Graph, name: str, x: Node, weights: Node, bias: Node | None, *numbers: int) -> Node:
    """An operation of images with their channels last."""
    aten = torch.ops.aten
    pixels = graph.call_function(aten.contiguous.default, (graph.call_function(aten.permute.default, (x, [0, 2, 3, 1])),))
    y = graph.call_function(getattr(torch.ops.continual, name).default, (None, None, pixels, weights, bias, *numbers))
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
