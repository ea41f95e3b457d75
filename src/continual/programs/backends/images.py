"""Convolutions of images in compiled programs: by kernels of this library, whose sources become part of the code.

Layers that wait for their window write its operation themselves (``layers/image_program.py``); here are convolutions of single images.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from ...layers.native import convolution, depthwise, product
from ...layers.native.image_operations import define
from .native_code import Shims, calls, constants, embedded, is_float, openmp

LARGEST = 1 << 17  # numbers in an output, above which oneDNN's convolution, and what it does with its sums, costs less
OWN = ("continual.image_depthwise.default", "continual.image_convolution.default")

_SHIM = """
AOTITorchError aoti_torch_cpu_image_{name}(AtenTensorHandle* ring, AtenTensorHandle* index, AtenTensorHandle x, AtenTensorHandle weight,
    AtenTensorHandle* bias, {numbers}, int64_t dilation, {after}AtenTensorHandle* ret) {{
  using namespace continual_{name};
  int64_t *of, *shape;
  void *newest, *weights, *kept = nullptr, *place = nullptr, *bias_at = nullptr, *to;
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(x, &shape));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(weight, &of));
  const int64_t batch = shape[0], height = shape[1], width = shape[2], channels = shape[3];
  {geometry}
  const int64_t sizes[] = {{batch, out_h, out_w, features}};
  const int64_t strides[] = {{out_h * out_w * features, out_w * features, features, 1}};
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      4, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, ret));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(x, &newest));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(weight, &weights));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ret, &to));
  if (ring) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ring, &kept));
  if (index) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*index, &place));
  if (bias) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*bias, &bias_at));
  const int64_t size = height * width * channels, depth = dilation * (taps - 1);
  std::vector<{frame}> frames;  // of each row, in its own slots of the ring
  frames.reserve(batch * taps);
  for (int64_t row = 0; row < batch; ++row) {{
    for (int64_t back = depth; back > 0; back -= dilation) {{
      const int64_t slot = ((((const int64_t *)place)[row] - back) % depth + depth) % depth;
      frames.push_back({{(const float *)kept + (row * depth + slot) * size}});
    }}
    frames.push_back({{(const float *)newest + row * size}});
  }}
  const bool busy = batch * out_h * out_w * of[0] * of[1] * of[2] >= {alone};
  const float *numbers = (const float *)weights, *added = (const float *)bias_at;
  {call}
  return AOTI_TORCH_SUCCESS;
}}"""

_DEPTHWISE = {
    "numbers": "int64_t kernel, int64_t stride, int64_t pad_h, int64_t pad_w",
    "after": "int32_t relu, ",
    "frame": "Frame",
    "geometry": """const int64_t taps = of[1] / (kernel * kernel), features = channels;
  const int64_t out_h = (height + 2 * pad_h - kernel) / stride + 1, out_w = (width + 2 * pad_w - kernel) / stride + 1;
  const Geometry geometry{channels, taps, kernel, stride, pad_h, pad_w, 1, taps};  // each row is an output of its own""",
    "run": """const Call call{&geometry, frames.data(), numbers, added, (float *)to, batch, height, width, out_h, out_w, relu != 0};
  run(call, 1, """,
}
_CONVOLUTION = {
    "numbers": "int64_t features, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w, "
    "int64_t dilation_h, int64_t dilation_w",
    "after": "",
    "frame": "const float *",
    "geometry": """const int64_t taps = of[1] / (kernel_h * kernel_w * channels);
  const int64_t out_h = (height + 2 * pad_h - dilation_h * (kernel_h - 1) - 1) / stride_h + 1;
  const int64_t out_w = (width + 2 * pad_w - dilation_w * (kernel_w - 1) - 1) / stride_w + 1;
  const Geometry geometry{kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w};""",
    "run": """const Call call{&geometry, frames.data(), numbers, added, (float *)to, taps, height, width, channels, out_h, out_w, features,
                  of[2] / LANES};
  run(call, batch, """,
}


def code(program: ExportedProgram, threads: int) -> Shims:
    """The functions in C that stand for operations of a program, behind the sources that they call; empty where there are none."""
    found: Shims = {}
    for name, module, parts in (("depthwise", depthwise, _DEPTHWISE), ("convolution", convolution, _CONVOLUTION)):
        kernel = module.library() if calls(program, f"image_{name}") else None
        if kernel is None:
            continue
        parallel, several = openmp(kernel.parallel, threads)
        parts = {**parts, "call": f"{parts['run']}{parallel}, busy ? {several} : 1);", "alone": module.ALONE, "name": name}
        check = f'static_assert(continual_{name}::LANES == {kernel.lanes}, "weights are laid out for vectors of {kernel.lanes}");'
        source = embedded(module.SOURCE, check)
        found[getattr(torch.ops.continual, f"image_{name}").default] = [source, _SHIM.format(**parts)]
    return found


def use_images(program: ExportedProgram) -> None:
    """Write the convolutions of images that the kernels compute faster as their operations."""
    constant, aten = constants(program), torch.ops.aten
    for node in list(program.graph.nodes):
        if node.target is not aten.conv2d.default or node.kwargs or node.args[1] not in constant:
            continue
        with program.graph.inserting_before(node):
            y = _by_kernel(program.graph, node)
        if y is not None:
            node.replace_all_uses_with(y)
            y.meta = dict(node.meta)
            program.graph.erase_node(node)


def _by_kernel(graph: Graph, node: Node) -> Node | None:
    """An operation of a kernel for a convolution with a constant weight; ``None`` where oneDNN's is the faster one."""
    operands: list[Any] = [*node.args, *(None, 1, 0, 1, 1)[len(node.args) - 2 :]]
    x, weight, bias, stride, padding, dilation, groups = operands
    image, numbers, out = x.meta["val"], weight.meta["val"], node.meta["val"]
    if image.ndim != 4 or not (is_float(x) and is_float(weight)) or math.prod(out.shape[1:]) > LARGEST:
        return None
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    features, inputs, *kernel = numbers.shape
    aten, own = torch.ops.aten, torch.ops.continual
    if groups == 1:
        if convolution.library() is None or kernel == [1, 1] or numbers.numel() > convolution.MOST_WEIGHTS:
            return None
        define()
        operation, packed = own.image_convolution.default, _panels(graph, weight, features, kernel)
        rest = [features, *kernel, *stride, *padding, *dilation, 1]
    else:
        compiled = depthwise.library()
        plain = kernel == [3, 3] and stride in ([1, 1], [2, 2]) and dilation == [1, 1] and inputs == 1 and groups == features
        if compiled is None or not plain or features < compiled.lanes:
            return None
        define()
        operation, packed = own.image_depthwise.default, _blocks(graph, weight, features, compiled.lanes)
        rest = [3, stride[0], *padding, 1]
    pixels = graph.call_function(aten.permute.default, (x, [0, 2, 3, 1]))
    pixels = graph.call_function(aten.contiguous.default, (pixels,))
    y = graph.call_function(operation, (None, None, pixels, packed, bias, *rest))
    return graph.call_function(aten.permute.default, (y, [0, 3, 1, 2]))


def _pair(value: Any) -> list[int]:
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    return found * 2 if len(found) == 1 else found


def _panels(graph: Graph, weight: Any, features: int, kernel: list[int]) -> Node:
    """As :func:`~continual.layers.native.convolution.packed`, of one tap: the compiler computes it once."""
    aten, compiled = torch.ops.aten, convolution.library()
    width = product.panel_vectors(features, compiled.lanes) * compiled.lanes  # type: ignore[union-attr]
    rows = graph.call_function(aten.permute.default, (weight, [0, 2, 3, 1]))
    rows = graph.call_function(aten.reshape.default, (rows, [features, -1]))
    rows = graph.call_function(aten.constant_pad_nd.default, (rows, [0, 0, 0, -features % width]))
    panels = graph.call_function(aten.reshape.default, (rows, [-(-features // width), width, -1]))
    return _turned(graph, panels)


def _blocks(graph: Graph, weight: Any, channels: int, lanes: int) -> Node:
    """As :func:`~continual.layers.native.depthwise.in_blocks`."""
    aten, whole = torch.ops.aten, channels // lanes
    rows = graph.call_function(aten.reshape.default, (weight, [channels, -1]))
    blocks = graph.call_function(aten.slice.Tensor, (rows, 0, 0, whole * lanes))
    blocks = graph.call_function(aten.reshape.default, (blocks, [whole, lanes, -1]))
    if channels > whole * lanes:
        last = graph.call_function(aten.slice.Tensor, (rows, 0, channels - lanes, channels))
        blocks = graph.call_function(aten.cat.default, ([blocks, graph.call_function(aten.unsqueeze.default, (last, 0))],))
    return _turned(graph, blocks)


def _turned(graph: Graph, panels: Node) -> Node:
    """The numbers of a vector side by side."""
    aten = torch.ops.aten
    turned = graph.call_function(aten.permute.default, (panels, [0, 2, 1]))
    return graph.call_function(aten.clone.default, (turned,), {"memory_format": torch.contiguous_format})
