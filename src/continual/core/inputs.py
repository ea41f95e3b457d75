"""Inputs: chunks and steps, checked and brought into one layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeMismatch
from .state import StepSpec, Wire, rewire
from .step_spec import Inputs, length

PIECE = 16 << 20  # bytes


def join(*chunks: Wire | None) -> Wire | None:
    """Chunks one after another."""
    found = [c for c in chunks if c is not None]
    if len(found) < 2:
        return found[0] if found else None
    return rewire(lambda *parts: torch.cat(parts, 2), *found)


def pieces(x: Wire, largest: int) -> list[Wire]:
    """A chunk in pieces of 16 MiB of its largest frames, so that the results of a layer stay close to a processor's caches.

    A long clip of a network for video is up to twice as fast so, and its intermediate results take no more memory than those of
    a piece.

    Args:
        x: the chunk.
        largest: bytes of the largest frame in the network; 0 where a chunk is best taken whole.
    """
    whole, most = length(x), max(4, PIECE // max(1, largest))
    if not largest or whole <= most:
        return [x]
    size = -(-whole // -(-whole // most))  # equally long ones: a short rest would cost as much as a long one
    return [rewire(lambda t, at=at: t[:, :, at : at + size], x) for at in range(0, whole, size)]


def frame_of(input: Inputs, chunk: bool) -> Any:
    """What a step of the input looks like."""
    if isinstance(input, (list, tuple)) and not input:
        raise ShapeMismatch("a chunk is a tensor (B, C, T, *S) or a list of them, got an empty list")
    return rewire(_frame_in_chunk, input) if chunk else StepSpec.of(input)


def _frame_in_chunk(chunk: Any) -> StepSpec:
    if not isinstance(chunk, Tensor):
        raise ShapeMismatch(f"a chunk is a tensor (B, C, T, *S) or a list of them, not {type(chunk).__name__}")
    if chunk.ndim < 3:
        raise ShapeMismatch(
            f"a chunk has the shape (B, C, T, *S), got {tuple(chunk.shape)}; forward_step takes a single step (B, C, *S)"
        )
    return StepSpec.of_chunk(chunk)


def check_lengths(name: str, input: Inputs, chunk: bool) -> None:
    """Streams that are fed together must bring the same number of frames."""
    if not chunk or isinstance(input, Tensor):
        return
    found: list[int] = []
    rewire(lambda t: found.append(t.shape[2]), input)
    if len(set(found)) > 1:
        raise ShapeMismatch(f"{name}: streams fed together must have equal lengths, got {found} frames")


def time_second(t: Tensor, dim: int) -> Tensor:
    """A chunk whose time is ``dim``, with time in dim 2."""
    if t.ndim < 3:
        raise ShapeMismatch(f"a chunk has three dimensions at least, dim {dim} of them time, got {tuple(t.shape)}")
    return t if dim == 2 else t.movedim(dim, 2)
