"""One frame of each window's output: ``output=k`` of a module that has an output for each frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..axes import BATCH, TIME, Dim
from ..exec_context import ExecContext
from .tasks import Select, Task, Value
from .walk import Walk
from .wire import Ranges, Wire


@dataclass(frozen=True)
class Frame:
    """An entry of a dimension ``dim`` of an output, which may have the rows in it too.

    Attributes:
        index: the entry of each row, or of all rows.
        rows: whether the rows are in that dimension.
        behind: entries behind the rows there, for each entry before them.
    """

    dim: int
    index: int
    rows: bool = False
    behind: int = 1

    def of(self, y: Tensor, batch: int) -> Tensor:
        """The entry, of an output."""
        if not self.rows:
            return y.select(self.dim, self.index)
        before, behind = divmod(self.index, self.behind)
        apart = y.unflatten(self.dim, (-1, batch, self.behind))
        return apart.select(self.dim + 2, behind).select(self.dim, before)


@dataclass(eq=False)
class FrameOf(Task):
    """An entry of a value whose frames are not positions."""

    frame: Frame = Frame(0, 0)

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        return self.frame.of(xs[0], m.batch)


def frame_of(walk: Walk, out: Task, dim: int, index: int) -> tuple[Task, Frame]:
    """One frame of an output as a task, and where it is in what the module gives.

    Args:
        dim: where frames are; of an output with positions, the dimension of these.
        index: which one, from the end if negative.

    Raises:
        IndexError: there is no such frame.
    """
    own, n = out.wire.dims[dim], out.wire.n
    sizes = [n if f == TIME else int(f) for f in own if f != BATCH]
    count = math.prod(sizes)
    if not -count <= index < count:
        raise IndexError(f"output={index} of {count} frames of a window")
    index %= count
    whole = _frame(dim, tuple(n if f == TIME else f for f in own), index)
    name = (f"{out.path}.frame", f"frame {index}", "")

    def added(cls: Any, x: Task, left: Dim | None, **more: Any) -> Task:
        """A task after which ``left`` remains of the dimension; ``None``: the dimension is dropped."""
        dims = (*out.wire.dims[:dim], *([] if left is None else [left]), *out.wire.dims[dim + 1 :])
        made: Task = walk.keep(cls(*name, (x,), Wire(dims), dtype=out.dtype, **more))
        return made

    rows = (BATCH,) if BATCH in own else None
    if TIME not in own:
        return added(FrameOf, out, rows, frame=whole), whole
    place = [f for f in own if f != BATCH].index(TIME)
    behind = math.prod(sizes[place + 1 :])
    outer, position = divmod(index // behind, n)
    if count == n:
        return added(Select, out, rows, index=position), whole
    rest = tuple(f for f in own if f != TIME)
    entries = added(Select, out, rest, index=position)
    return added(FrameOf, entries, rows, frame=_frame(dim, rest, outer * behind + index % behind)), whole


def _frame(dim: int, own: Dim, index: int) -> Frame:
    if BATCH not in own:
        return Frame(dim, index)
    return Frame(dim, index, True, math.prod(int(f) for f in own[own.index(BATCH) + 1 :]))
