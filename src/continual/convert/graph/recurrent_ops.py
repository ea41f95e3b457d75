"""Recurrent layers as one operation in an export, whatever the clip's length.

torch runs `lstm`, `gru` and `rnn` frame by frame where shapes alone are computed, as in an export: its cost grows with the clip, and the
clip's length becomes a number. Here they are operations of this library whose shapes are known at once, and of torch again when the graph
is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.overrides import TorchFunctionMode

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
OPTIONS = "bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
_library = torch.library.Library("continual", "FRAGMENT")


def _shaped(x: Tensor, first: Tensor, batch_first: bool, bidirectional: bool) -> tuple[Tensor, Tensor]:
    """Wire and hidden state, as wide as the hidden state that the layer begins with."""
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
    """The operation that stands for one of torch's."""
    hidden, result = ("Tensor[]", "(Tensor, Tensor, Tensor)") if kind == "lstm" else ("Tensor", "(Tensor, Tensor)")
    _library.define(f"whole_{kind}(Tensor input, {hidden} hx, Tensor[] params, {OPTIONS}) -> {result}")
    shapes: Callable[..., Any] = _lstm if kind == "lstm" else _others
    _library.impl(f"whole_{kind}", shapes, "Meta")  # nothing runs it but an export, which asks for shapes
    return getattr(torch.ops.continual, f"whole_{kind}").default


_STANDS_FOR: dict[Any, Any] = {_defined(kind): getattr(torch.ops.aten, kind).input for kind in KINDS}
_BY_FUNCTION = {getattr(torch._VF, kind): own for kind, own in zip(KINDS, _STANDS_FOR, strict=True)}


class Whole(TorchFunctionMode):
    """Recurrent layers stay whole in what is exported under it, in this thread alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = _BY_FUNCTION.get(func)
        if own is not None and isinstance(args[3], bool):  # packed sequences have other arguments
            return own(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def restore(graph: Graph) -> None:
    """Give recurrent layers the names that torch has for them."""
    for node in graph.nodes:
        node.target = _STANDS_FOR.get(node.target, node.target)
