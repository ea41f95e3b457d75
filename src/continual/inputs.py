"""What comes in: chunks and steps, checked and brought into one layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import ShapeMismatch
from .state import Frame, Wire, rewire


def join(a: Wire | None, b: Wire | None) -> Wire | None:
    """Chunks one after another."""
    if a is None or b is None:
        return b if a is None else a
    return rewire(lambda s, t: torch.cat((s, t), 2), a, b)


def frame_of(input: Wire, chunk: bool) -> Any:
    """What a step of the input looks like."""
    if isinstance(input, (list, tuple)) and not input:
        raise ShapeMismatch("a chunk is a tensor (B, C, T, *S) or a list of them, got an empty list")
    return rewire(_frame_in_chunk, input) if chunk else Frame.of(input)


def _frame_in_chunk(chunk: Any) -> Frame:
    if not isinstance(chunk, Tensor):
        raise ShapeMismatch(f"a chunk is a tensor (B, C, T, *S) or a list of them, not {type(chunk).__name__}")
    if chunk.ndim < 3:
        raise ShapeMismatch(
            f"a chunk has the shape (B, C, T, *S), got {tuple(chunk.shape)}; forward_step takes a single step (B, C, *S)"
        )
    return Frame.of_chunk(chunk)


def check_lengths(name: str, input: Wire, chunk: bool) -> None:
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
