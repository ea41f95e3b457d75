"""Modules whose outputs depend on which frames come in one call: norms in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def that_see_calls(net: nn.Module) -> list[nn.Module]:
    """Such modules in a network. Then no call is split, and what the end of a stream brings is computed with the chunk before it."""
    return [module for module in net.modules() if getattr(module, "_sees_call", False)]


@contextmanager
def learned_before(modules: list[nn.Module]) -> Iterator[None]:
    """Run a chunk again, for the state that it leaves: the statistics that modules have learned of it stay as they are."""
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.data.copy_(value)  # by `data`, since backward passes refuse buffers that have been written to
