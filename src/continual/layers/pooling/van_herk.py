"""Long pooling windows in constant time per step, without drift: prefix and suffix results of blocks.

Frames are cut into blocks as long as the window. A window that ends at position ``i`` of a block is the suffix of the block before
from ``i + 1`` on and the prefix of this block up to ``i``, so a step combines twice, whatever the length of the window; once per
block the suffixes are computed. Source: M. van Herk, "A fast algorithm for local minimum and maximum filters on rectangular
and octagonal kernels", Pattern Recognition Letters 13 (1992).

The state is one ring of the window's length, whose first ``i`` slots hold the frames of this block and whose other slots hold the
suffixes of the block before, and the prefix of this block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Combine = Callable[[Tensor, Tensor], Tensor]
Cumulate = Callable[[Tensor, int, bool], Tensor]


def windows(
    ring: Tensor, x: Tensor, n_in: int, size: int, nothing: float, combine: Combine, cumulate: Cumulate
) -> tuple[Tensor, Tensor, Tensor]:
    """All windows that end in a chunk, and the ring and prefix after it.

    Args:
        ring: the state ``(B, size, C, *S)``.
        x: the chunk ``(B, C, n, *S)``, ``n`` at least 1.
        n_in: frames before the chunk.
        size: the window's length.
        nothing: the neutral value of the reduction.
        combine: result of two neighbouring stretches, the older first.
        cumulate: results of all beginnings along a dimension, or of all endings (reverse).

    Returns:
        The windows ``(B, C, n, *S)``, the new ring and the new prefix ``(B, C, *S)``.
    """
    earlier = ring.transpose(1, 2)
    inside, count = n_in % size, x.shape[2]
    total = inside + count
    blocks = -(-total // size)
    rest = x.new_full((*x.shape[:2], blocks * size - total, *x.shape[3:]), nothing)
    split = torch.cat((earlier[:, :, :inside], x, rest), 2).unflatten(2, (blocks, size))
    prefix = cumulate(split, 3, False)
    suffix = torch.cat((earlier.unsqueeze(2), cumulate(split, 3, True)), 2)
    before = suffix.narrow(3, 1, size - 1)  # of the block before, from the next position on
    before = torch.cat((before, torch.full_like(suffix[:, :, :, :1], nothing)), 3)[:, :, :-1]
    y = combine(before.flatten(2, 3), prefix.flatten(2, 3))[:, :, inside:total]
    full, at = divmod(total, size)
    current = split[:, :, full, :at] if at else split[:, :, 0, :0]
    new_ring = torch.cat((current, suffix[:, :, full, at:]), 2).transpose(1, 2)
    return y, new_ring, prefix.flatten(2, 3)[:, :, total - 1]


def windows_in_block(
    ring: Tensor, prefix: Tensor, x: Tensor, at: int, combine: Combine, cumulate: Cumulate
) -> tuple[Tensor, Tensor]:
    """The same for a chunk that ends in the block in which it begins: with a few operations on its own frames.

    Args:
        ring, prefix: the state.
        x: the chunk ``(B, C, n, *S)``.
        at: the place of its first frame in the block; ``at + n`` is at most the window's length.
        combine, cumulate: as above.

    Returns:
        The windows ``(B, C, n, *S)``, and the prefix ``(B, C, *S)`` after each frame.
    """
    prefixes = cumulate(x, 2, False)
    if at:
        prefixes = combine(prefix.unsqueeze(2), prefixes)
    stop = at + x.shape[2]
    suffixes = ring[:, at + 1 : stop + 1].transpose(1, 2)  # of the block before, from the next position on
    if stop < ring.shape[1]:
        return combine(suffixes, prefixes), prefixes
    last = prefixes.shape[2] - 1  # the window that is this block
    return torch.cat((combine(suffixes, prefixes[:, :, :last]), prefixes[:, :, last:]), 2), prefixes


def cumulative_sum(x: Tensor, dim: int, reverse: bool) -> Tensor:
    """Sums of all beginnings, or of all endings."""
    return x.flip(dim).cumsum(dim).flip(dim) if reverse else x.cumsum(dim)


def cumulative_max(x: Tensor, dim: int, reverse: bool) -> Tensor:
    """Maxima of all beginnings, or of all endings. NaN stays."""
    if not x.requires_grad:
        return torch.cummax(x.flip(dim), dim).values.flip(dim) if reverse else torch.cummax(x, dim).values
    size, reach = x.shape[dim], 1
    while reach < size:  # twice the reach in each round
        both = older_max(x.narrow(dim, 0, size - reach), x.narrow(dim, reach, size - reach))
        rest = x.narrow(dim, size - reach, reach) if reverse else x.narrow(dim, 0, reach)
        x = torch.cat((both, rest) if reverse else (rest, both), dim)
        reach *= 2
    return x


def older_max(older: Tensor, newer: Tensor) -> Tensor:
    """The larger value. Where gradients are wanted, the older of two equal ones gets it, as in torch.nn."""
    if not (older.requires_grad or newer.requires_grad):
        return torch.maximum(older, newer)
    return torch.where((older >= newer) | older.isnan(), older, newer)
