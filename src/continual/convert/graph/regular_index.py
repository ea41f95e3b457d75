"""Indices of frames that follow from the length of the clip alone: regular steps, with fixed offsets, as slices and windows have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Sample = tuple[int, Tensor]  # a number of frames, and the indices for it


@dataclass(frozen=True)
class RegularIndex:
    """Frames ``step * j + offset`` for ``j = 0, 1, …`` and some offsets, of a stream that is padded or cut at both ends.

    Attributes:
        step: frames from one index to the next.
        offsets: counted from the smallest, in the shape of the indices without the dimension that grows.
        dim: the dimension of the indices that grows with the clip.
        first, last: how many frames are put before the first and behind the last one; negative: cut off.
        mode: with what frames: ``"replicate"`` or ``"reflect"``.
    """

    step: int
    offsets: Tensor
    dim: int
    first: int
    last: int
    mode: str

    @property
    def extent(self) -> int:
        """From the smallest to the largest offset."""
        return int(self.offsets.max()) + 1


def regular_index(samples: Sequence[Sample], dims: Sequence[int] | None = None) -> RegularIndex | None:
    """The rule that indices follow at all sample lengths; ``None`` if there is none.

    Args:
        samples: the longest first.
        dims: which dimensions of the indices may grow with the clip; by default any.

    Example:
        >>> found = regular_index([(n, (torch.arange(n) - 2).clamp(min=0)) for n in (20, 9)])
        >>> found.step, found.first, found.last, found.mode
        (1, 2, -2, 'replicate')
    """
    _, longest = samples[0]
    for dim in range(longest.ndim) if dims is None else dims:
        count = longest.shape[dim]
        if count < 3 or not longest.numel():
            continue
        middle = longest.select(dim, count // 2)
        steps = (longest.select(dim, count // 2 + 1) - middle).unique()
        if len(steps) != 1 or int(steps) < 1:
            continue
        offsets = middle - int(steps) * (count // 2)
        found = _ends(samples, dim, int(steps), offsets)
        if found is not None:
            return found
    return None


def _ends(samples: Sequence[Sample], dim: int, step: int, offsets: Tensor) -> RegularIndex | None:
    """What lies beyond the first and the last frame."""
    low, high = int(offsets.min()), int(offsets.max())
    lasts = [step * (index.shape[dim] - 1) + high - (frames - 1) for frames, index in samples]
    for mode, beyond in BEYOND.items():
        if all(torch.equal(beyond(_places(index, dim, step, offsets), frames - 1), index) for frames, index in samples):
            found = RegularIndex(step, offsets - low, dim, -low, max(lasts), mode)
            return found if all(_count(found, frames) == index.shape[dim] for frames, index in samples) else None
    return None


def _places(index: Tensor, dim: int, step: int, offsets: Tensor) -> Tensor:
    """The regular indices, as many as ``index`` has, before they are limited to the clip."""
    places = step * torch.arange(index.shape[dim], device=index.device)
    return places.view([-1 if i == dim else 1 for i in range(index.ndim)]) + offsets.unsqueeze(dim)


def _count(found: RegularIndex, frames: int) -> int:
    return max(0, (frames + found.first + found.last - found.extent) // found.step + 1)


def _clamped(places: Tensor, last: int) -> Tensor:
    return places.clamp(0, last)


def _reflected(places: Tensor, last: int) -> Tensor:
    return last - (last - places.abs()).abs()


BEYOND: dict[str, Callable[[Tensor, int], Tensor]] = {"replicate": _clamped, "reflect": _reflected}
