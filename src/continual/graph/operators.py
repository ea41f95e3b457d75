"""Small operations that converted graphs run beside those of torch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def spread(x: Tensor, batch: int, shape: Sequence[int], dim: int) -> Tensor:
    """Windows that lie in the rows, ``(B·n, …)``, as frames in dim ``dim``, whose own size is 1."""
    return x.unflatten(batch, tuple(shape)).squeeze(dim + (dim > batch)).movedim(batch + 1, dim)


def gathered(x: Tensor, batch: int, dim: int) -> Tensor:
    """Frames in dim ``dim`` as windows that lie in the rows."""
    frames = x.movedim(dim, batch + 1 if dim > batch else batch)
    return frames.flatten(batch, batch + 1)


def item(values: Sequence[Tensor], index: int) -> Tensor:
    """One of several results."""
    return values[index]
