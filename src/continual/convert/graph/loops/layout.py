"""The place of the rows in the tensors of a loop. States and outputs have the rows first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..axes import BATCH, Dim, Dims, dim_of
from ..exec_context import Count
from ..row_sizes import known
from .cell import CellMaker, NotACell


@dataclass(frozen=True)
class Layout:
    """The layout of a tensor of one iteration, without time.

    Attributes:
        sizes: the sizes, in the dimension of the rows that of one entry of the batch.
        rows: the dimension of the rows; ``None`` if it has none.
    """

    sizes: tuple[int, ...]
    rows: int | None

    @staticmethod
    def of(val: Any) -> Layout:
        """The layout of an exported tensor.

        Raises:
            NotACell: the batch is in it twice, or added to something.
        """
        sizes, rows = list[int](), list[int]()
        for i, size in enumerate(val.shape):
            own = known(size)
            if isinstance(own, Count):
                if own.more:
                    raise NotACell("rows of the batch are joined with others")
                rows.append(i)
                own = own.rate
            sizes.append(own)
        if len(rows) > 1:
            raise NotACell("rows of the batch meet each other")
        return Layout(tuple(sizes), rows[0] if rows else None)

    @property
    def rate(self) -> int:
        """Rows for each entry of the batch."""
        return 1 if self.rows is None else self.sizes[self.rows]

    def row_shape(self, unit: int) -> tuple[int, ...]:
        """The shape of a row, in a tensor with ``unit`` rows for each entry of the batch."""
        shape = tuple(s for i, s in enumerate(self.sizes) if i != self.rows)
        return shape if self.rate == unit else (self.rate // unit, *shape)

    def dims(self, rows: Dim) -> Dims:
        """The layout for the conversion; ``rows``: the factors that are merged in the dimension of the rows."""
        more = self.rate // merged(rows)
        own = (*rows, more) if more > 1 else rows
        return tuple(own if i == self.rows else dim_of(s) for i, s in enumerate(self.sizes))

    def apart(self, rows: Dim) -> Dims:
        """The layout in which a layer gives it: rows that it keeps apart are in a dimension of their own, behind ``rows``."""
        unit = merged(rows)
        return self.dims(rows) if self.rate == unit else (rows, *map(dim_of, self.row_shape(unit)))

    def entered(self, cell: CellMaker, slot: int, unit: int, step: bool) -> int:
        """From rows first to this layout.

        Args:
            unit: rows for each entry of the batch; if it has more of them, they lie in a dimension of their own.
            step: it is a step, which has a dimension beside the rows.
        """
        if self.rate != unit:
            slot = cell.apply("aten.flatten.using_ints", slot, 0, 1)
        elif step and len(self.sizes) == 1:
            slot = cell.apply("aten.squeeze.dim", slot, 1)
        if self.rows:
            slot = cell.apply("aten.permute.default", slot, [*range(1, self.rows + 1), 0, *range(self.rows + 1, len(self.sizes))])
        return slot

    def left(self, cell: CellMaker, slot: int, unit: int, step: bool) -> int:
        """From this layout to rows first: the reverse of :meth:`entered`."""
        if self.rows:
            others = [i for i in range(len(self.sizes)) if i != self.rows]
            slot = cell.apply("aten.permute.default", slot, [self.rows, *others])
        if self.rate != unit:
            return cell.apply("aten.unflatten.int", slot, 0, [-1, self.rate // unit])
        return cell.apply("aten.unsqueeze.default", slot, 1) if step and len(self.sizes) == 1 else slot

    def rows_first(self, x: torch.Tensor, batch: int, unit: int) -> torch.Tensor:
        """A tensor of this layout, or one that broadcasts to it, as it is carried."""
        shape = [batch * s if i == self.rows else s for i, s in enumerate(self.sizes)]
        x = x.expand(shape).movedim(self.rows or 0, 0)
        return x if self.rate == unit else x.unflatten(0, (-1, self.rate // unit))


def merged(dim: Dim) -> int:
    """Rows for each entry of the batch, of a dimension with the batch in it."""
    found = 1
    for factor in dim:
        found *= 1 if factor == BATCH else int(factor)
    return found
