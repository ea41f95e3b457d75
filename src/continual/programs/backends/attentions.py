"""Attention in compiled programs: by the kernel of this library, whose source becomes part of the code."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from ...layers.native import attention
from .native_code import NAMESPACE, Shims, calls, embedded, emit, is_float, openmp

_SHIM = """
AOTITorchError aoti_torch_cpu_attention(AtenTensorHandle q, AtenTensorHandle k, AtenTensorHandle v, AtenTensorHandle* mask,
                                        int64_t causal, double scale, AtenTensorHandle* ret) {{
  AtenTensorHandle given[4] = {{q, k, v, mask ? *mask : nullptr}};
  continual_attention::Strides of[4] = {{}};
  int64_t sizes[4][4], *found, *apart;
  void *at[4] = {{}}, *to;
  for (int i = 0; i < (mask ? 4 : 3); ++i) {{
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(given[i], &found));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(given[i], &apart));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(given[i], &at[i]));
    for (int j = 0; j < 4; ++j) sizes[i][j] = found[j];
    if (found[3] > 1 && apart[3] != 1) return AOTI_TORCH_FAILURE;
    of[i] = {{found[0] > 1 ? apart[0] : 0, found[1] > 1 ? apart[1] : 0, found[2] > 1 ? apart[2] : 0}};
  }}
  const int64_t batch = sizes[0][0], heads = sizes[0][1], rows = sizes[0][2], size = sizes[0][3], keys = sizes[2][2];
  const int64_t features = sizes[2][3], shape[4] = {{batch, rows, heads, features}};
  const int64_t strides[4] = {{rows * heads * features, heads * features, features, 1}};
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      4, shape, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, ret));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ret, &to));
  const continual_attention::Call call{{(const float *)at[0], (const float *)at[1], (const float *)at[2], (const float *)at[3],
      (float *)to, batch, heads, rows, keys, size, features, of[0], of[1], of[2], of[3], float(scale), causal != 0}};
  const bool busy = batch * heads * rows * keys * (size + features) >= {alone};
  return continual_attention::run(call, {parallel}, busy ? {threads} : 1) ? AOTI_TORCH_SUCCESS : AOTI_TORCH_FAILURE;
}}"""


@functools.cache
def _library() -> torch.library.Library:
    """The operation that stands for the kernel in graphs."""
    made = torch.library.Library(NAMESPACE, "FRAGMENT")
    made.define("attention(Tensor q, Tensor k, Tensor v, Tensor? mask, int causal, float scale) -> Tensor")

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: int, scale: float) -> Tensor:
        return attention.attend(q, k, v, mask, bool(causal), scale)

    made.impl("attention", run, "CPU")

    @torch.library.register_fake("continual::attention", lib=made)
    def _(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: int, scale: float) -> Tensor:
        return q.new_empty((q.shape[0], q.shape[2], q.shape[1], v.shape[3]))

    return made


def code(program: ExportedProgram, threads: int) -> Shims:
    """The kernel's source and the function in C that stands for its operation, for so many threads; empty without it."""
    kernel = attention.library()
    if kernel is None or not calls(program, "attention"):
        return {}
    parallel, several = openmp(kernel.parallel, threads)
    shim = _SHIM.format(alone=attention.ALONE, parallel=parallel, threads=several)
    return {torch.ops.continual.attention.default: [embedded(attention.SOURCE), shim]}


def use_attention(program: ExportedProgram) -> None:
    """Write the attention of a program as the operation of the kernel, where one is: torch's, and what is written out."""
    if attention.library() is None:
        return
    _library()
    readers = {torch.ops.aten.scaled_dot_product_attention.default: _of_operation, torch.ops.aten.matmul.default: _written_out}
    for node in list(program.graph.nodes):
        parts = readers[node.target](node) if node.target in readers else None
        if parts is None:
            continue
        with program.graph.inserting_before(node):
            y = _by_kernel(program.graph, parts)
        if y is not None:
            node.replace_all_uses_with(y)
            y.meta = dict(node.meta)
            program.graph.erase_node(node)


class Parts(NamedTuple):
    """Of an attention: ``softmax(q @ kᵀ * scale + mask) @ v``. ``across`` is kᵀ, where that is what the program has."""

    q: Node
    k: Node
    v: Node
    mask: Node | None
    causal: bool
    scale: float
    across: bool = False


def _of_operation(node: Node) -> Parts | None:
    """The parts of an operation of torch."""
    operands: list[Any] = [*node.args, *(None, 0.0, False)[len(node.args) - 3 :]]
    q, k, v, mask, dropout, causal = operands
    if dropout or node.kwargs.get("enable_gqa") or not set(node.kwargs) <= {"scale", "enable_gqa"}:
        return None
    scale: Any = node.kwargs.get("scale")
    if not all(map(is_float, (q, k, v))) or not (mask is None or is_float(mask) or _value(mask).dtype == torch.bool):
        return None
    return Parts(q, k, v, mask, bool(causal), _value(q).shape[-1] ** -0.5 if scale is None else scale)


def _written_out(node: Node) -> Parts | None:
    """The parts of a product whose left side is a softmax of scores that nothing else reads."""
    aten, scale, mask = torch.ops.aten, 1.0, None
    operands: Any = node.args
    softmax, v = operands[:2]
    if (
        not _read_once(softmax, aten.softmax.int)
        or softmax.args[1] not in (-1, _value(softmax).ndim - 1)
        or len(softmax.args) > 2
    ):
        return None
    scores = softmax.args[0]
    if _read_once(scores, aten.add.Tensor) and not scores.kwargs:
        scores, mask = scores.args
    for operation in (aten.mul.Tensor, aten.div.Tensor):
        if _read_once(scores, operation) and isinstance(scores.args[1], (int, float)) and scores.args[1]:
            scores, factor = scores.args
            scale *= factor if operation is aten.mul.Tensor else 1 / factor
    if not _read_once(scores, aten.matmul.default) or not (mask is None or is_float(mask)):
        return None
    q, across = scores.args
    if not all(map(is_float, (q, across, v))) or {_value(t).ndim for t in (q, across, v)} != {4}:
        return None
    return Parts(q, across, v, mask, False, scale, across=True)


def _read_once(node: Any, target: Any) -> bool:
    """Whether this is an operation whose result is used once."""
    return isinstance(node, Node) and node.target is target and len(node.users) == 1


def _by_kernel(graph: Graph, parts: Parts) -> Node | None:
    """The operation of the kernel, ``(B, H, n, E)``; ``None`` where the shapes are not ones for it."""
    aten, mask = torch.ops.aten, parts.mask
    k = emit(graph, aten.transpose.int, parts.k, -2, -1) if parts.across else parts.k
    single = _value(parts.q).ndim == 3
    q, k, v = (emit(graph, aten.unsqueeze.default, t, 1) if single else t for t in (parts.q, k, parts.v))
    if single and mask is not None and _value(mask).ndim == 3:
        mask = emit(graph, aten.unsqueeze.default, mask, 1)
    if not attention.fits(_value(q), _value(k), _value(v), None if mask is None else _value(mask)):
        return None
    added = None if mask is None else _as_added(graph, mask, _value(k).shape[2])
    rows = (_in_rows(graph, t) for t in (q, k, v))
    y = graph.call_function(torch.ops.continual.attention.default, (*rows, added, int(parts.causal), parts.scale))
    y = graph.call_function(aten.transpose.int, (y, 1, 2))
    return graph.call_function(aten.squeeze.dim, (y, 1)) if single else y


def _as_added(graph: Graph, mask: Node, keys: int) -> Node:
    """What is added to the scores, with four dimensions, for each key."""
    aten = torch.ops.aten
    if _value(mask).dtype == torch.bool:
        mask = emit(graph, aten.where.Scalar, mask, 0.0, -math.inf)  # of torch's default dtype
        mask = emit(graph, aten.to.dtype, mask, torch.float32)
    while _value(mask).ndim < 4:
        mask = emit(graph, aten.unsqueeze.default, mask, 0)
    if _value(mask).shape[3] != keys:
        mask = emit(graph, aten.expand.default, mask, [*_value(mask).shape[:3], keys])
    return _in_rows(graph, mask)


def _value(node: Node) -> Tensor:
    found: Tensor = node.meta["val"]
    return found


def _in_rows(graph: Graph, node: Node) -> Node:
    """A tensor whose last numbers lie side by side."""
    value = _value(node)
    alike = value.stride(-1) == 1 or value.shape[-1] == 1
    return node if alike else graph.call_function(torch.ops.aten.contiguous.default, (node,))
