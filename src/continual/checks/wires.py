"""Clips and chunks, parts of them, and what is said of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..state import Wire, rewire
from .compare import flat

Plan = Sequence[tuple[str, int]]  # ("step", 1), ("chunk", n), and ("end", n): a chunk with pad_end=True


def frames_in(y: Wire | None) -> int:
    """The number of outputs in a chunk."""
    return 0 if y is None else flat(y)[0].shape[2]


def cut(x: Wire, first: int, stop: int) -> Wire:
    """Frames ``first … stop - 1``."""
    return rewire(lambda t: t[:, :, first:stop], x)


def joined(parts: Sequence[Wire]) -> Wire | None:
    """Chunks one after another."""
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else rewire(lambda *ts: torch.cat(ts, 2), *parts)


def shapes(x: Wire) -> str:
    """The shapes and dtype of a wire, for messages."""
    return ", ".join(str(tuple(t.shape)) for t in flat(x)) + f" {str(flat(x)[0].dtype).removeprefix('torch.')}"


def described(plan: Plan) -> str:
    """A plan in words: chunk sizes, and steps."""
    said = []
    for piece, same in itertools.groupby(plan):
        count, (kind, n) = len(list(same)), piece
        one = {"step": "step", "chunk": f"{n}", "end": f"{n} with pad_end"}[kind]
        said.append(one if count == 1 else f"{count} steps" if kind == "step" else f"{count} × {one}")
    return ", ".join(said if len(said) <= 24 else [*said[:20], "…", *said[-3:]])


def turned_rows(t: Tensor) -> Tensor:
    """Three rows of one: as it is, reversed in time, and turned by half its length."""
    return torch.cat((t, t.flip(2), t.roll(t.shape[2] // 2, 2)))
