"""Rings: the frames of a wire that are kept, frame ``i`` in slot ``i % L`` of a tensor ``(B, L, C, *S)``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .state import StateNode, StepSpec


def ring_zeros(frame: StepSpec, depth: int, fill: float = 0.0, last: bool = False) -> Tensor:
    """A cold ring ``(B, L, C, *S)``, time before channels so that a window is one block of memory.

    With ``last`` the channels are innermost in memory (channels-last frames), the shape is the same.
    """
    batch, channels, *space = frame.shape
    with torch.inference_mode(False):
        if last:
            ring = torch.full((batch, depth, *space, channels), fill, dtype=frame.dtype, device=frame.device)
            return ring.movedim(-1, 2)
        return torch.full((batch, depth, channels, *space), fill, dtype=frame.dtype, device=frame.device)


def match_memory_format(node: StateNode, frames: Sequence[Tensor]) -> None:
    """Store the rings of a node channels last, if the frames ``(B, C, …)`` that come to them are images stored so.

    No value changes. Images that have waited then lie as those that have not, and both are added 10 times as fast. So it is once
    for a stream; a state from a file has lost its layout.
    """
    for i, (ring, x) in enumerate(zip(node.tensors, frames, strict=True)):
        if ring.ndim > 4 and x.stride(1) == 1 != ring.stride(2) and x.shape[1] > 1:
            with torch.inference_mode(False):
                node.tensors[i], node.memo = ring.movedim(2, -1).contiguous().movedim(-1, 2), None


def ring_frames(ring: Tensor, first: int, stop: int) -> list[Tensor]:
    """Frames ``first … stop - 1`` of the wire as pieces ``(B, C, n, *S)``, in order. They are views of the ring."""
    if stop <= first:
        return []
    size = ring.shape[1]
    a, count = first % size, stop - first
    fit = min(count, size - a)
    pieces = [ring.narrow(1, a, fit).transpose(1, 2)]
    if fit < count:
        pieces.append(ring.narrow(1, 0, count - fit).transpose(1, 2))
    return pieces


def wire_frames(node: StateNode, index: int, new: Tensor | None, n_in: int, first: int, stop: int) -> list[Tensor]:
    """Frames ``first … stop - 1`` of a wire as pieces, of those kept in a ring (if the node has one) and of those that arrive.

    Args:
        node: whose state tensor ``index`` is the ring.
        index: of the ring.
        new: the chunk that arrives, ``(B, C, n, *S)``.
        n_in: how many frames came before it.
        first, stop: which frames.
    """
    pieces = ring_frames(node.tensors[index], first, min(stop, n_in)) if index < len(node.tensors) else []
    if new is not None and stop > n_in:
        pieces.append(new[:, :, max(0, first - n_in) : stop - n_in])
    return pieces


def one_piece(pieces: list[Tensor]) -> Tensor:
    """Pieces as one chunk; a single one as it is."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)
