"""Operations of converted networks that torch does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

HIDDEN = -1e4  # added to the score of a hidden key; its weight is exactly 0 at this value and below


def spread(x: Tensor, batch: int, rows: Sequence[int], dim: int) -> Tensor:
    """Windows in the batch dimension, ``(B·n·M, …)``, moved to dim ``dim`` as frames.

    Args:
        x: windows.
        batch: the batch dimension.
        rows: ``(B, n, M)``.
        dim: the dimension of the frames, of size 1 in ``x``.
    """
    frames = x.unflatten(batch, tuple(rows)).movedim(batch + 1, 0).flatten(batch + 1, batch + 2)
    return frames.squeeze(dim + 1).movedim(0, dim)


def gathered(x: Tensor, batch: int, dim: int) -> Tensor:
    """Frames in dim ``dim`` as windows in the batch dimension, last: ``(B·M·n, …)``."""
    frames = x.movedim(dim, batch + 1 if dim > batch else batch)
    return frames.flatten(batch, batch + 1)


def rows_first(x: Tensor, batch: int, rows: Sequence[int]) -> Tensor:
    """Windows moved from ``(B·M·n, …)`` to ``(B·n·M, …)``; ``rows``: ``(B, M, n)``."""
    return x.unflatten(batch, tuple(rows)).transpose(batch + 1, batch + 2).flatten(batch, batch + 2)


def as_complex(x: Tensor) -> Tensor:
    """Real and imaginary parts in the last dimension, as complex numbers."""
    return torch.view_as_complex(x.contiguous())


def indexed(x: Tensor, places: Sequence[int], indices: Sequence[Tensor]) -> Tensor:
    """``x[:, i, :, j]``: dimensions indexed by tensors."""
    return x[_everywhere(x, places, indices)]


def placed(x: Tensor, places: Sequence[int], indices: Sequence[Tensor], values: Tensor, accumulate: bool) -> Tensor:
    """A copy in which ``x[:, i, :, j]`` is replaced."""
    chosen = [None if isinstance(w, slice) else w for w in _everywhere(x, places, indices)]
    return cast(Tensor, torch.ops.aten.index_put(x, chosen, values, accumulate))


def _everywhere(x: Tensor, places: Sequence[int], indices: Sequence[Tensor]) -> tuple[Tensor | slice, ...]:
    chosen = dict(zip(places, indices, strict=True))
    return tuple(chosen.get(i, slice(None)) for i in range(x.ndim))


def item(values: Sequence[Tensor], index: int) -> Tensor:
    """One of several results."""
    return values[index]


def distances(scores: Tensor) -> Tensor:
    """The values of a matrix ``(…, T, T)`` by distance, ``(1 or H, 2T - 1)``: its first column and its first row."""
    scores = scores if scores.ndim == 3 else scores.unsqueeze(0)
    return torch.cat((scores[:, :, 0].flip(-1)[:, :-1], scores[:, 0, :]), -1)


def band_row(scores: Tensor, behind: int, ahead: int) -> Tensor:
    """The values for the distances in a band; ``-inf`` hides a key."""
    size = scores.shape[-1]
    row = distances(scores)[:, size - 1 - behind : size + ahead]
    return row.masked_fill(row <= HIDDEN, -torch.inf)
