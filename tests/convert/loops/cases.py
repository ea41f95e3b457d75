"""Modules that loop over frames, each with an example. No tests are in this file."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from tests.convert.loops.networks import (
    PCEN,
    Biquad,
    Converting,
    ConvGRU,
    ConvLSTM,
    EachFrame,
    FromRest,
    GRUByHand,
    GRUCells,
    LSTMCells,
    Neurons,
    Offset,
    Residuals,
    Smoothing,
    TwoMemories,
)
from tests.convert.loops.special_networks import (
    ComplexStates,
    Corrected,
    FirstFrame,
    InPlace,
    Kalman,
    KeptRows,
    Nodes,
    Padded,
    RowsAsNumber,
    RunningMean,
    SoFar,
    Sorted,
)


class Case(NamedTuple):
    """A module, the shape of its example, and where time is in it and in the output."""

    cls: type[nn.Module]
    shape: tuple[int, ...]
    time: int
    out: int | None = None

    @property
    def out_time(self) -> int:
        """Where time is in the output."""
        return self.time if self.out is None else self.out


CASES = {
    "conv lstm": Case(ConvLSTM, (2, 5, 2, 3, 5), 1),
    "conv gru": Case(ConvGRU, (2, 2, 9, 3, 5), 2),
    "lstm cells": Case(LSTMCells, (2, 5, 3), 1),
    "gru cells": Case(GRUCells, (2, 3, 50), 2),
    "gru by hand": Case(GRUByHand, (12, 2, 3), 0),
    "smoothing": Case(Smoothing, (2, 30, 3), 1),
    "neurons": Case(Neurons, (2, 12, 3), 1),
    "biquad": Case(Biquad, (2, 40), 1),
    "from rest": Case(FromRest, (2, 3, 8), 2),
    "pcen": Case(PCEN, (2, 6, 20), 2),
    "converting": Case(Converting, (2, 9, 3), 1),
    "two memories": Case(TwoMemories, (2, 6, 2, 4, 5), 1),
    "residuals": Case(Residuals, (2, 9, 3), 1),
    "each frame": Case(EachFrame, (2, 10, 2, 5, 4), 1),
    "in place": Case(InPlace, (2, 3, 9), 2),
    "running mean": Case(RunningMean, (2, 3, 9), 2),
    "kalman filter": Case(Kalman, (2, 6, 3), 1),
    "corrected means": Case(Corrected, (2, 6, 3), 1),
    "kept rows": Case(KeptRows, (2, 5, 3), 1),
    "rows as a number": Case(RowsAsNumber, (6, 2, 3), 0),
    "offset": Case(Offset, (2, 5, 3), 1),
    "first frame": Case(FirstFrame, (2, 7, 3), 1),
    "padded": Case(Padded, (2, 3, 9), 2),
    "nodes": Case(Nodes, (2, 6, 5, 3), 1),
    "so far": Case(SoFar, (2, 7, 3), 1),
    "sorted": Case(Sorted, (2, 7, 3), 1),
    "complex": Case(ComplexStates, (2, 8, 4), 1),
}
