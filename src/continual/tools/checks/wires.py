"""Clips, chunks and their parts, and their descriptions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ...core.state import Wire, rewire
from .compare import flat

Plan = Sequence[tuple[str, int]]  # ("step", 1), ("chunk", n), and ("end", n): a chunk with pad_end=True


def frames_in(y: Wire | None) -> int:
    """The number of outputs in a chunk."""
    return 0 if y is None else flat(y)[0].shape[2]


def bytes_in(y: Wire | None) -> int:
    """The bytes of a wire's tensors."""
    return 0 if y is None else sum(t.numel() * t.element_size() for t in flat(y))


def cut(x: Wire, first: int, stop: int) -> Wire:
    """Frames ``first … stop - 1``."""
    return rewire(lambda t: t[:, :, first:stop], x)


def joined(parts: Sequence[Wire]) -> Wire | None:
    """Concatenate chunks."""
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else rewire(lambda *ts: torch.cat(ts, 2), *parts)


def shapes(x: Wire) -> str:
    """The shapes and dtype of a wire, for messages."""
    return ", ".join(str(tuple(t.shape)) for t in flat(x)) + f" {str(flat(x)[0].dtype).removeprefix('torch.')}"


def described(plan: Plan) -> str:
    """A plan as text: chunk sizes and steps."""
    said = []
    for piece, same in itertools.groupby(plan):
        count, (kind, n) = len(list(same)), piece
        one = {"step": "step", "chunk": f"{n}", "end": f"{n} with pad_end"}[kind]
        said.append(one if count == 1 else f"{count} steps" if kind == "step" else f"{count} × {one}")
    return ", ".join(said if len(said) <= 24 else [*said[:20], "…", *said[-3:]])


def two_rows(t: Tensor) -> Tensor:
    """Two rows of one: the row itself, and the row reversed in time and rolled by a third of its length."""
    return torch.cat((t, t.flip(2).roll(t.shape[2] // 3, 2)))


def repeated(x: Wire, first: int, stop: int) -> Wire:
    """Frames ``first … stop - 1`` of a clip that is repeated without end."""
    return rewire(lambda t: t[:, :, torch.arange(first, stop, device=t.device) % t.shape[2]], x)


def noise(x: Wire, scale: float, generator: torch.Generator) -> Wire:
    """Other content of the same kind: noise of ``scale`` times the largest value; for integers other frames of the clip."""

    def other(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            order = torch.randperm(t.shape[2], generator=generator)
            return t[:, :, order.to(t.device)]
        size = float(t.abs().nan_to_num(0.0, 0.0, 0.0).max()) if t.numel() else 1.0
        drawn = torch.randn(t.shape, generator=generator, dtype=torch.float32 if t.element_size() < 8 else t.dtype)
        return drawn.to(t).mul_(scale * size or 1.0)

    return rewire(other, x)


def lengthened(x: Wire, length: int, generator: torch.Generator) -> Wire:
    """A clip followed by similar content: the clip reversed, noise of its size, the clip, … up to so many steps."""
    likes = (lambda v: v, lambda v: rewire(lambda t: t.flip(2), v), lambda v: noise(v, 0.3, generator))
    count = -(-length // frames_in(x))
    return cut(cast(Wire, joined([likes[i % 3](x) for i in range(count)])), 0, length) if length > frames_in(x) else x
