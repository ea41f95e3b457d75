"""Exports for any number of rows, also of modules whose code fixes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import NotStreamable
from ..capture import Captured, TimeDims, capture_window
from .matching import NotALoop
from .parametrised import GraphCall, parametrised
from .traced import batch_symbol


def capture_rows(module: nn.Module, clip: Sequence[Tensor], time_dim: TimeDims) -> Captured:
    """The export of a module on a clip of one length, with a symbolic batch.

    A module may compare the number of rows with a stored number, or use it as a plain number. It is then exported with one more row
    too: either nothing is stored for that number, or the sizes in which the exports differ grow with the rows.

    Args:
        module: the module.
        clip: of two rows at least.
        time_dim: the dimension of time in each input.

    Returns:
        The export; with the clip's rows where they can't be told from other sizes.
    """
    found = capture_window(module, clip, time_dim)
    place = next(((i, b) for i, b in enumerate(found.batch_dims) if b is not None), None)
    if place is None or batch_symbol(found) is not None:
        return found
    rows = clip[place[0]].shape[place[1]]
    more = [x if b is None else torch.cat((x, x.narrow(b, 0, 1)), b) for x, b in zip(clip, found.batch_dims, strict=True)]
    try:
        other = capture_window(module, more, time_dim)
        if batch_symbol(other) is not None:
            return other
        graph = parametrised(found.program.graph, other.program.graph, (rows, rows + 1), "rows")
        made = capture_window(_OfRows(module, found, GraphCall(module, found, graph), place), clip, time_dim)
    except (NotStreamable, NotALoop):
        return found
    return replace(made, prefix="module." + made.prefix) if batch_symbol(made) is not None else found


class _OfRows(nn.Module):
    """What a module computes, for any number of rows."""

    def __init__(self, module: nn.Module, captured: Captured, call: GraphCall, place: tuple[int, int]):
        super().__init__()
        self.module, self._call, self._place, self.training = module, call, place, False

    def forward(self, *inputs: Tensor) -> Any:
        number, dim = self._place
        return self._call(inputs[number].shape[dim], inputs)
