"""Modules whose outputs depend on which frames come in one call: norms in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def call_dependent(net: nn.Module) -> list[nn.Module]:
    """The modules of a network whose outputs depend on which frames come in one call.

    Calls of such a network are not split, and the outputs at the end of a stream are computed with the chunk before it.
    """
    return [module for module in net.modules() if getattr(module, "_sees_call", False)]


@contextmanager
def restored_buffers(modules: list[nn.Module]) -> Iterator[None]:
    """Restore the buffers of modules afterwards: a chunk that is run again, for the state after it, is not learned twice."""
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.data.copy_(value)  # by `data`, since backward passes refuse buffers that have been written to
