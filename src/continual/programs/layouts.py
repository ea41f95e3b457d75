"""What a program takes and gives in the network's own layout; inside, a chunk is ``(B, C, n, *S)``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..core.module import CoModule
from ..core.state import Wire


def arrived(net: CoModule, inputs: tuple[Any, ...], chunk: bool) -> Wire:
    """Inputs of ``forward_steps`` (a chunk) or ``forward_step`` as the kernels take them."""
    x: Wire = inputs[0] if len(inputs) == 1 else list(inputs)
    return net.io_layout.chunk_in(x) if chunk else net.io_layout.step_in(x)


def departed(net: Any, y: Wire, chunk: bool) -> Any:
    """Outputs, chunks or single steps, as ``forward_steps`` or ``forward_step`` gives them."""
    if hasattr(net, "_leave_step"):  # attention, whose own layout may have time elsewhere
        y = net._leave(y) if chunk else net._leave_step(y)
    return net.io_layout.chunk_out(y) if chunk else net.io_layout.step_out(y)


def flat(wire: Wire) -> list[Tensor]:
    """All tensors of a wire."""
    return [wire] if isinstance(wire, Tensor) else [t for w in wire for t in flat(w)]
