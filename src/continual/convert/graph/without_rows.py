"""Layers over time on what has frames and no rows, as positions have: they run on rows that are all alike, of which one is taken.

In a step program rows are at frames of their own, and there they are not alike: see :mod:`~continual.convert.graph.row_positions`.
"""

from __future__ import annotations

from .axes import BATCH, Dims


def with_rows(taken: Dims, made: Dims) -> tuple[Dims, Dims]:
    """The layouts that a layer takes and gives, with rows: where both begin with a dimension of size 1, as the batch of one that it is."""
    first = int(taken[:1] == made[:1] == ((),))
    return ((BATCH,), *taken[first:]), ((BATCH,), *made[first:])
