"""A loop on a whole clip at once. Tensors have the layout of the module's code, with time in dim 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....core.kernel import counted_macs
from .cell import Cell
from .layout import Layout
from .traced import Traced


@dataclass(eq=False)
class WholeLoop:
    """A loop on a clip.

    Attributes:
        body, prologue: what iterations compute.
        rows: the dimension of the rows in a frame of the first stream.
        rate: rows of that frame for each entry of the batch.
        layouts: layout and type of a frame of each stream, and of each state.
        ends: whether it also returns the states after the clip, before the outputs.
    """

    body: Cell
    prologue: tuple[Cell, ...]
    rows: int
    rate: int
    layouts: tuple[tuple[Layout, torch.dtype], ...]
    ends: bool

    @staticmethod
    def of(traced: Traced, ends: bool) -> WholeLoop:
        """The loop of some graphs.

        Raises:
            NotACell: they can't be followed.
        """
        body, *prologue = traced.cells(steps=False)
        traced.rate  # noqa: B018 (it refuses other rows)
        states, frames = traced.places[: traced.states], traced.places[traced.states : traced.states + traced.frames]
        vals = [n.meta["val"] for n in (*frames, *states)]
        inputs = tuple((Layout.of(v), v.dtype) for v in vals)
        return WholeLoop(body, tuple(prologue), inputs[0][0].rows or 0, inputs[0][0].rate, inputs, ends)

    def __call__(self, xs: Sequence[Tensor], init: Sequence[Tensor], same: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, ``(T, …)``.

        Args:
            xs: the streams ``(T, …)``.
            init: what the states begin with.
            same: what is the same for all iterations.
        """
        batch, states, outs = xs[0].shape[self.rows + 1] // self.rate, list(init), list[list[Tensor]]()
        for t, frames in enumerate(zip(*(x.unbind(0) for x in xs), strict=True)):
            cell = self.prologue[t] if t < len(self.prologue) else self.body
            y, states = cell([*frames, *states, *same], batch, xs[0].device)
            outs.append(y)
        return [*(states if self.ends else ()), *(torch.stack(parts) for parts in zip(*outs, strict=True))]

    def macs(self, frames: int, same: Sequence[Tensor]) -> int:
        """Multiply-adds of a row on a clip of so many frames."""
        zeros = [torch.zeros(own.sizes, dtype=dtype, device=same[0].device if same else None) for own, dtype in self.layouts]
        return frames * counted_macs(lambda: self.body([*zeros, *same], 1, zeros[0].device))
