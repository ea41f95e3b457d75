"""Recurrent layers as one operation in an export.

torch computes the shapes of `lstm`, `gru` and `rnn` frame by frame: an export then takes time in proportion to the clip, and fixes the
clip's length. Here they are operations of this library, whose shapes are known at once. The exported graph has torch's operations again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.overrides import TorchFunctionMode

from . import adaptive_pool_ops, linspace_ops, max_pool_ops, patch_ops

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
OPTIONS = "bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
_library = torch.library.Library("continual", "FRAGMENT")


def _shaped(x: Tensor, first: Tensor, batch_first: bool, bidirectional: bool) -> tuple[Tensor, Tensor]:
    """Outputs and hidden state, as wide as the initial hidden state."""
    width = first.shape[2] * (2 if bidirectional else 1)
    return x.new_empty(*x.shape[:2], width), torch.empty_like(first, memory_format=torch.contiguous_format)


def _lstm(x: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], has_biases: bool, num_layers: int, dropout: float, train: bool,
          bidirectional: bool, batch_first: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    y, h = _shaped(x, hx[0], batch_first, bidirectional)
    return y, h, torch.empty_like(hx[1], memory_format=torch.contiguous_format)


def _others(x: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, num_layers: int, dropout: float, train: bool,
            bidirectional: bool, batch_first: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _shaped(x, hx, batch_first, bidirectional)


def _defined(kind: str) -> Any:
    """Define the operation that replaces one of torch's."""
    hidden, result = ("Tensor[]", "(Tensor, Tensor, Tensor)") if kind == "lstm" else ("Tensor", "(Tensor, Tensor)")
    _library.define(f"whole_{kind}(Tensor input, {hidden} hx, Tensor[] params, {OPTIONS}) -> {result}")
    shapes: Callable[..., Any] = _lstm if kind == "lstm" else _others
    _library.impl(f"whole_{kind}", shapes, "Meta")  # only an export runs it, for shapes
    return getattr(torch.ops.continual, f"whole_{kind}").default


_TORCH_OPS: dict[Any, Any] = {_defined(kind): getattr(torch.ops.aten, kind).input for kind in KINDS}
_OWN = adaptive_pool_ops.BY_FUNCTION | max_pool_ops.BY_FUNCTION | patch_ops.BY_FUNCTION | linspace_ops.BY_FUNCTION
_BY_FUNCTION = {getattr(torch._VF, kind): own for kind, own in zip(KINDS, _TORCH_OPS, strict=True)}
_TORCH_OPS |= adaptive_pool_ops.TORCH_OPS | max_pool_ops.TORCH_OPS


class WholeOps(TorchFunctionMode):
    """Keeps recurrent layers and some pools whole in an export, and lengths open, in this thread alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = _BY_FUNCTION.get(func)
        if func in _OWN:
            return _OWN[func](*args, **(kwargs or {}))
        if own is not None and isinstance(args[3], bool):  # packed sequences have other arguments
            return own(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def to_torch_ops(graph: Graph) -> None:
    """Replace the operations of this library by torch's."""
    for node in graph.nodes:
        node.target = _TORCH_OPS.get(node.target, node.target)
