"""Means and variances of frames as they arrive: of one frame, of all frames up to now, of the last ones.

They are in the widest floating type (:mod:`continual.core.precision`). No sum is ever subtracted from another: variances are
sums of squares about a mean, weighted by counts (B. P. Welford, "Note on a method for calculating corrected sums of squares and
products", Technometrics 4 (1962); T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances", COMPSTAT (1982)). So a mean much larger than the deviations costs no digits, means stay within the
range of their values for ever, and the rounding of one step fades as the next ones come. After ``n`` steps the weight of a new
frame is ``1/n``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Statistics = tuple[Tensor, Tensor]  # means and variances (divided by the number of values) of equal shape


def of_frames(parts: Tensor, dims: list[int]) -> Statistics:
    """Statistics of every frame over some dimensions, which are kept with size 1."""
    if math.prod(parts.shape[d] for d in dims) == 1:
        return parts, torch.zeros_like(parts)
    variance, mean = torch.var_mean(parts, dims, correction=0, keepdim=True)  # by Welford's method, in one pass
    return mean, variance


def counts(first: int, number: int, like: Tensor) -> Tensor:
    """``first, first + 1, …``, also where the type can't tell these from each other."""
    return torch.arange(number, dtype=like.dtype, device=like.device) + first


def mean_up_to_now(x: Tensor, n_in: int, before: Tensor | None, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Means of all values up to each one along a dimension, as offsets from a reference value.

    Args:
        x: the values.
        n_in: how many came before.
        before: their mean, of size 1 along the dimension; not read if there were none.

    Returns:
        The offsets, and the reference: the mean before, or else the first value.
    """
    start = x.narrow(dim, 0, min(1, x.shape[dim])) if before is None or n_in == 0 else before
    shape = [1] * x.ndim
    shape[dim] = -1
    return (x - start).cumsum(dim) / counts(n_in + 1, x.shape[dim], x).view(shape), start


def up_to_now(mean: Tensor, variance: Tensor, n_in: int = 0, before: Statistics | None = None) -> Statistics:
    """Statistics of all frames up to each one, of the statistics of each frame. Time is the last dimension.

    Args:
        mean, variance: of every frame, ``(…, n)``; all frames have the same number of values.
        n_in: how many frames came before.
        before: their statistics ``(…, 1)``; not read if there were none.
    """
    number = counts(n_in + 1, mean.shape[-1], mean)
    offset, start = mean_up_to_now(mean, n_in, None if before is None else before[0])
    shift = mean - start - F.pad(offset[..., :-1], (1, 0))  # of each frame's mean against the mean of the frames before
    total = (variance + shift.square() * ((number - 1) / number)).cumsum(-1) / number
    if before is not None and n_in:
        total = total + before[1] * (n_in / number)
    return start + offset, total


def over_last(mean: Tensor, variance: Tensor, size: int) -> Statistics:
    """Statistics of the last ``size`` frames up to each one, of those present at the start. Time is the last dimension.

    Frames are cut into blocks of ``size``: a window is the end of one block and the beginning of the next, so the work per frame
    does not depend on the size, and what has left a window leaves no trace.
    """
    total = mean.shape[-1]
    if total <= size:
        return up_to_now(mean, variance)
    blocks = -(-total // size)
    rest = (0, blocks * size - total)
    mean, variance = (F.pad(t, rest).unflatten(-1, (blocks, size)) for t in (mean, variance))
    begun = up_to_now(mean, variance)
    ended = (t.flip(-1) for t in up_to_now(mean.flip(-1), variance.flip(-1)))
    # of the block before, from the next position on; nothing of it at the last position
    older = [F.pad(t[..., :-1, 1:], (0, 1)) for t in ended]
    merged = merge((older[0], older[1]), (begun[0][..., 1:, :], begun[1][..., 1:, :]))
    return tuple(  # type: ignore[return-value]
        torch.cat((first[..., :1, :], later), -2).flatten(-2)[..., :total] for first, later in zip(begun, merged, strict=True)
    )


def merge(older: Statistics, newer: Statistics) -> Statistics:
    """Statistics of ``size`` frames, of which the newer ones are 1, 2, … ``size`` along the last dimension."""
    size = newer[0].shape[-1]
    share = counts(1, size, newer[0]) / size  # of the newer ones
    apart = older[0] - newer[0]
    mean = newer[0] + apart * (1 - share)
    return mean, newer[1] * share + older[1] * (1 - share) + apart.square() * (share * (1 - share))
