"""What a program takes and gives in the network's own layout; inside, a chunk is ``(B, C, n, *S)``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..convert.graph.graph_module import GraphModule
from ..core.inputs import time_second
from ..core.state import Wire, rewire


def arrived(net: Any, inputs: tuple[Any, ...], chunk: bool) -> Wire:
    """Inputs of ``forward_steps`` (a chunk) or ``forward_step`` as the kernels take them."""
    if isinstance(net, GraphModule):
        wire, given = net._ports.arrive(inputs, chunk=chunk)
        return net._ports.together(wire, given, int(chunk))
    x: Any = inputs[0] if len(inputs) == 1 else list(inputs)
    return rewire(lambda t: time_second(t, net.time_dim), x) if chunk else x


def departed(net: Any, y: Wire, chunk: bool) -> Any:
    """Outputs, chunks or single steps, as ``forward_steps`` or ``forward_step`` gives them."""
    if isinstance(net, GraphModule):
        return net._depart(y)
    if hasattr(net, "_leave_step"):  # attention, whose own layout may have time elsewhere
        y = net._leave(y) if chunk else net._leave_step(y)
    if not chunk or net.time_dim == 2:
        return y
    return rewire(lambda t: t.movedim(2, net.time_dim), y)


def flat(wire: Wire) -> list[Tensor]:
    """All tensors of a wire."""
    return [wire] if isinstance(wire, Tensor) else [t for w in wire for t in flat(w)]
