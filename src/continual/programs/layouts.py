"""The two layouts of a program's inputs and outputs: the network's own, and the internal one of kernels, ``(B, C, n, *S)``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..convert.graph.graph_module import GraphModule
from ..core.module import CoModule
from ..core.state import Wire, rewire
from ..core.step_spec import Nested


def internal_layout(net: CoModule, inputs: tuple[Any, ...], chunk: bool) -> Wire:
    """Inputs of ``forward_steps`` (a chunk) or ``forward_step`` in the internal layout."""
    x: Any = inputs[0] if len(inputs) == 1 else list(inputs)
    return net.io_layout.chunk_in(x) if chunk else net.io_layout.step_in(x)


def network_layout(net: Any, y: Wire, chunk: bool) -> Any:
    """Outputs, a chunk or a step, as ``forward_steps`` or ``forward_step`` returns them."""
    return net.io_layout.chunk_out(y) if chunk else net.io_layout.step_out(y)


def input_times(net: Any, wire: Any) -> Any:
    """The dimension of time of each internal input, nested like ``wire``; ``None`` for inputs that are not streams."""
    if not isinstance(net, GraphModule) or not isinstance(wire, list):
        return rewire(lambda _: 2, wire)
    streams = sum(i.time is not None for i in net.io_layout.inputs)
    return [2 if i < streams else None for i in range(len(wire))]


def flat(wire: Wire) -> list[Tensor]:
    """All tensors of a wire."""
    return [wire] if isinstance(wire, Tensor) else [t for w in wire for t in flat(w)]


def nested(like: Nested[Any], tensors: Iterator[Tensor]) -> Wire:
    """Tensors as a wire that is nested like another one."""
    return [nested(w, tensors) for w in like] if isinstance(like, list) else next(tensors)
