"""Small operations that converted graphs run beside those of torch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def spread(x: Tensor, batch: int, rows: Sequence[int], dim: int) -> Tensor:
    """Windows that lie in the rows, ``(B·n·M, …)``, as frames in dim ``dim``, whose own size is 1.

    Args:
        x: windows.
        batch: the dimension of the rows.
        rows: ``(B, n, M)``.
        dim: where frames are to be.
    """
    frames = x.unflatten(batch, tuple(rows)).movedim(batch + 1, 0).flatten(batch + 1, batch + 2)
    return frames.squeeze(dim + 1).movedim(0, dim)


def gathered(x: Tensor, batch: int, dim: int) -> Tensor:
    """Frames in dim ``dim`` as windows that lie behind what is in the rows, ``(B·M·n, …)``."""
    frames = x.movedim(dim, batch + 1 if dim > batch else batch)
    return frames.flatten(batch, batch + 1)


def settled(x: Tensor, batch: int, rows: Sequence[int]) -> Tensor:
    """Windows behind what else is in the rows, ``(B·M·n, …)``, right behind the batch; ``rows``: ``(B, M, n)``."""
    return x.unflatten(batch, tuple(rows)).transpose(batch + 1, batch + 2).flatten(batch, batch + 2)


def item(values: Sequence[Tensor], index: int) -> Tensor:
    """One of several results."""
    return values[index]
