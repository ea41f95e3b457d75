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


def mask_rows(mask: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of an additive mask ``(…, T, T)``, as ``(1 or H, n, T)``, minus the value at the query's own position.

    Softmax does not change if the same number is added to all scores of a query. So a bias by the position of the key, as many
    models write ALiBi, becomes a bias by distance. ``-inf`` hides a key.
    """
    x = mask[..., list(rows), :]
    x = x if x.ndim == 3 else x.unsqueeze(0)
    if x.dtype == torch.bool:
        x = torch.zeros(x.shape, device=x.device).masked_fill(~x, -torch.inf)
    x = x.masked_fill(x - x.amax(-1, keepdim=True) <= HIDDEN, -torch.inf)
    own = x[:, torch.arange(len(rows)), [r % mask.shape[-1] for r in rows]]
    return x - own.unsqueeze(-1) if bool(own.isfinite().all()) else x


def plus_table(x: Tensor, table: Tensor) -> Tensor:
    """A mask of attention and a table, in the mask's dtype."""
    return x + table.to(x.dtype)


def by_distance(rows: Tensor) -> Tensor:
    """The values for all distances of a key from its query, ``(1 or H, 2T - 1)``, of the last and the first query ``(1 or H, 2, T)``."""
    return torch.cat((rows[:, 0, :-1], rows[:, 1]), -1)


def band_row(mask: Tensor, behind: int, ahead: int) -> Tensor:
    """What a mask ``(…, T, T)`` adds for the distances in a band; ``-inf`` hides a key."""
    size = mask.shape[-1]
    return by_distance(mask_rows(mask, (-1, 0)))[:, size - 1 - behind : size + ahead]


def factor_row(factors: Tensor, behind: int, ahead: int) -> Tensor:
    """The factors of a multiplicative mask ``(…, T, T)`` for the distances in a band: ``(1 or H, behind + ahead + 1)``."""
    size = factors.shape[-1]
    return by_distance(factor_rows(factors, (-1, 0)))[:, size - 1 - behind : size + ahead]


def factor_rows(factors: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of factors ``(…, T, T)``, as ``(1 or H, n, T)``."""
    x = factors[..., list(rows), :]
    x = x if x.ndim == 3 else x.unsqueeze(0)
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def decay_of(factors: Tensor) -> Tensor:
    """The factor of one frame more of distance, for each head."""
    row = factor_row(factors, 1, 0)
    return row[:, 0] / row[:, 1]


def gain_of(factors: Tensor) -> Tensor:
    """The factor of a frame itself, for each head."""
    return factor_row(factors, 0, 0)[:, 0]
