"""Products with constant weights in compiled programs: by the kernel of this library, whose source becomes part of the code."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from ...layers.native import product
from .native_code import NAMESPACE, Shims, calls, constants, embedded, is_float, openmp, whole

_SHIM = """
AOTITorchError aoti_torch_cpu_{name}({arguments}, AtenTensorHandle* ret) {{
  int64_t *shape, *of, dim, sizes[16], strides[16];
  void *at, *other, *bias_at = nullptr, *to;
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim({x}, &dim));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes({x}, &shape));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes({weight}, &of));
  for (int64_t i = 0; i < dim; ++i) sizes[i] = shape[i];
  {sizes}
  for (int64_t i = dim - 1, step = 1; i >= 0; step *= sizes[i--]) strides[i] = step;
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dim, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, ret));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr({a}, &at));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr({b}, &other));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ret, &to));
  {bias}
  const continual_product::Call call{{(const float *)at, (const float *)other, (const float *)bias_at, (float *)to, {call}}};
  const int64_t rows = call.batch * {rows}, busy = (rows < {fewest} ? {fewest} : rows) * call.k * {features} >= {alone};
  continual_product::run(call, {parallel}, busy ? {threads} : 1);
  return AOTI_TORCH_SUCCESS;
}}"""


@functools.cache
def _library() -> torch.library.Library:
    """The operations that stand for the kernel in graphs."""
    made = torch.library.Library(NAMESPACE, "FRAGMENT")
    made.define("linear(Tensor x, Tensor panels, Tensor? bias, int features, bool relu=False) -> Tensor")
    made.define("multiply(Tensor weight, Tensor x) -> Tensor")
    made.impl("linear", product.by_panels, "CPU")
    made.impl("multiply", lambda weight, x: product.multiply(weight, x), "CPU")

    @torch.library.register_fake("continual::linear", lib=made)
    def _(x: Tensor, panels: Tensor, bias: Tensor | None, features: int, relu: bool = False) -> Tensor:
        return x.new_empty((*x.shape[:-1], features))

    @torch.library.register_fake("continual::multiply", lib=made)
    def _(weight: Tensor, x: Tensor) -> Tensor:
        return x.new_empty((x.shape[0], weight.shape[0], x.shape[2]))

    return made


def code(program: ExportedProgram, threads: int) -> Shims:
    """The kernel's source and the functions in C that stand for its operations, for so many threads.

    Empty for a program that :func:`use_products` has left as it was.
    """
    kernel, ops = product.library(), torch.ops.continual
    if kernel is None or not calls(program, "linear", "multiply"):
        return {}
    check = f'static_assert(continual_product::LANES == {kernel.lanes}, "weights are laid out for vectors of {kernel.lanes}");'
    parallel, several = openmp(kernel.parallel, threads)
    shared = {"fewest": product.FEWEST_ROWS, "alone": product.ALONE, "parallel": parallel, "threads": several}
    linear = _SHIM.format(
        name="linear",
        arguments="AtenTensorHandle x, AtenTensorHandle panels, AtenTensorHandle* bias, int64_t features, int32_t relu",
        x="x",
        weight="panels",
        sizes="int64_t m = 1; for (int64_t i = 0; i < dim - 1; ++i) m *= sizes[i]; sizes[dim - 1] = features;",
        a="x",
        b="panels",
        bias="if (bias) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*bias, &bias_at));",
        call="m, of[1], features, of[2] / continual_product::LANES, 0, 1, relu",
        rows="m",
        features="features",
        **shared,
    )
    multiply = _SHIM.format(
        name="multiply",
        arguments="AtenTensorHandle weight, AtenTensorHandle x",
        x="x",
        weight="weight",
        sizes="sizes[1] = of[0];",
        a="weight",
        b="x",
        bias="",
        call="of[0], of[1], sizes[2], 0, 0, sizes[0], 0",
        rows="call.n",
        features="call.m",
        **shared,
    )
    return {ops.linear.default: [embedded(product.SOURCE, check), linear], ops.multiply.default: [multiply]}


def use_products(program: ExportedProgram) -> None:
    """Write the products with constant weights of a program as operations of the kernel, where one is."""
    kernel = product.library()
    if kernel is None:
        return
    _library()
    constant = constants(program)
    for node in list(program.graph.nodes):
        with program.graph.inserting_before(node):
            y = _by_kernel(program.graph, node, constant, kernel.lanes)
        if y is not None:
            node.replace_all_uses_with(y)
            y.meta = dict(node.meta)
            program.graph.erase_node(node)


def _by_kernel(graph: Graph, node: Node, constant: set[Node], lanes: int) -> Node | None:
    """An operation of the kernel for a node; ``None`` where it is no product with a constant matrix on one side."""
    aten, own = torch.ops.aten, torch.ops.continual
    operands: list[Any] = [*node.args, None, None]
    if node.target in (aten.conv2d.default, aten.conv3d.default):
        return _pixel_by_pixel(graph, node, operands, constant, lanes)
    if node.target is aten.baddbmm.default and not node.kwargs:
        return _one_by_many(graph, operands[1], operands[2], constant, operands[0])
    if node.target is aten.bmm.default:
        return _one_by_many(graph, operands[0], operands[1], constant)
    if node.target not in (aten.linear.default, aten.matmul.default):
        return None
    left, right, bias = operands[:3]
    if not (is_float(left) and is_float(right)):
        return None
    if node.target is aten.matmul.default and right.meta["val"].ndim == 3:
        return _one_by_many(graph, left, right, constant)
    if right not in constant or left in constant or left.meta["val"].ndim < 2 or right.meta["val"].ndim != 2:
        return None
    features, weight = right.meta["val"].shape[0], right
    if node.target is aten.matmul.default:
        features, weight = right.meta["val"].shape[1], graph.call_function(aten.permute.default, (right, [1, 0]))
    return graph.call_function(own.linear.default, (whole(graph, left), panels(graph, weight, features, lanes), bias, features))


def _one_by_many(graph: Graph, left: Any, right: Any, constant: set[Node], bias: Node | None = None) -> Node | None:
    """Products of one matrix with several, one side of which is constant."""
    aten = torch.ops.aten
    if isinstance(left, Node) and left.target is aten.expand.default and left.args[0].meta["val"].ndim == 2:  # type: ignore[union-attr]
        left = left.args[0]
    if not (is_float(left) and is_float(right)) or (left in constant) == (right in constant):
        return None
    if (left.meta["val"].ndim, right.meta["val"].ndim) != (2, 3):
        return None
    y = graph.call_function(torch.ops.continual.multiply.default, (whole(graph, left), whole(graph, right)))
    return y if bias is None else graph.call_function(aten.add.Tensor, (y, bias))


def _pixel_by_pixel(graph: Graph, node: Node, operands: list[Any], constant: set[Node], lanes: int) -> Node | None:
    """A convolution with a kernel of 1: each pixel is a row of a product, as images lie in compiled programs, channels last."""
    aten, (x, weight, bias) = torch.ops.aten, operands[:3]
    if not (is_float(x) and is_float(weight)) or weight not in constant:
        return None
    features, size, *kernel = weight.meta["val"].shape
    plain = node.meta["val"].shape[2:] == x.meta["val"].shape[2:] and size == x.meta["val"].shape[1] and set(kernel) == {1}
    if not plain:  # strides, padding or groups
        return None
    rank = len(kernel) + 2
    flat = graph.call_function(aten.reshape.default, (weight, [features, size]))
    pixels = graph.call_function(aten.permute.default, (x, [0, *range(2, rank), 1]))
    pixels = graph.call_function(aten.contiguous.default, (pixels,))
    mapped = (pixels, panels(graph, flat, features, lanes), bias, features)
    y = graph.call_function(torch.ops.continual.linear.default, mapped)
    return graph.call_function(aten.permute.default, (y, [0, rank - 1, *range(1, rank - 1)]))


def panels(graph: Graph, weight: Node, features: int, lanes: int) -> Node:
    """As :func:`~continual.layers.native.product.packed`: the compiler computes it once."""
    aten = torch.ops.aten
    width = product.panel_vectors(features, lanes) * lanes
    full = graph.call_function(aten.constant_pad_nd.default, (weight, [0, 0, 0, -features % width]))
    laid_out = graph.call_function(aten.reshape.default, (full, [-(-features // width), width, -1]))
    laid_out = graph.call_function(aten.permute.default, (laid_out, [0, 2, 1]))
    return graph.call_function(aten.clone.default, (laid_out,), {"memory_format": torch.contiguous_format})
