"""Positions in step programs, where each row has a clock of its own.

In a stream positions have no batch dimension, ``(T,)``, since all rows are at the same frame; here they differ between rows.
Operations of the module are local in time. So an operation on positions alone runs on the frames of all rows together, ``(B·T,)``.
Where positions meet a stream, the rows of the stream are concatenated in time, as a batch of one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.program.context import CallRows, KernelContext
from ...core.program.frame_schedule import FrameSchedule
from .axes import BATCH, TIME, Dims, View, shape_of, where
from .bound_calls import refs
from .exec_context import ExecContext
from .instructions import Instruction, Layer, Op, slots_of
from .program import Program
from .queues import AlignDelays, Positions

Step = Callable[[ExecContext, CallRows], None]
INSTEAD = "co.RecyclingPositionalEncoding, co.SinusoidalPositionalEncoding or rotary positions in the module"


class RowPositions:
    """Runs the instructions of a program that depend on positions.

    Args:
        program: the converted network.
    """

    def __init__(self, program: Program):
        self._layouts = _layouts(program)
        self._of_rows: set[int] = set()  # slots computed from positions alone: rows concatenated in time

    def concerns(self, instruction: Instruction) -> bool:
        """Whether an instruction reads or computes a tensor with time and without a batch dimension."""
        if isinstance(instruction, Positions) or self._of_rows.intersection(slots_of(instruction)):
            return True
        dims = instruction.dims if isinstance(instruction, Op) else None
        return dims is not None and where(dims, TIME) is not None and where(dims, BATCH) is None

    def step(self, ctx: KernelContext, instruction: Instruction, schedules: list[FrameSchedule]) -> Step:
        """Such an instruction in a call.

        Raises:
            NotStreamable: positions in a table that ends, or that meet what has rows and no frames.
        """
        why = ", the same for all rows, and in a program every row is at another frame"
        if isinstance(instruction, Positions):
            if instruction.limit is None and not ctx.target.int32:
                self._of_rows.add(instruction.out)
                return _numbers(instruction, schedules[instruction.wire])
            why = f" in a table of {instruction.limit}, and a program can't refuse a frame behind its end"
            if instruction.limit is None:
                why = " in 64 bits, and the runtime computes integers in 32"
        if isinstance(instruction, Op) and (dims := self._layouts.get(instruction.out)) is not None:
            slots = [s for s in dict.fromkeys(refs([*instruction.args, *instruction.kwargs.values()])) if s not in self._of_rows]
            laid = {s: _Laid(own) for s in slots if (own := self._layouts.get(s)) is not None and where(own, BATCH) is not None}
            if all(where(v.dims, TIME) is not None for v in laid.values()):
                if where(dims, BATCH) is None:
                    self._of_rows.add(instruction.out)
                return _by_rows(instruction, laid, None if where(dims, BATCH) is None else _Laid(dims))
        raise ctx.refuse(f"'{instruction.path}' numbers the frames of the clip{why}. Use {INSTEAD}")


def _numbers(positions: Positions, schedule: FrameSchedule) -> Step:
    """The positions of all rows; 0 for frames before the first."""

    def step(m: ExecContext, rows: CallRows) -> None:
        m.env[positions.out] = rows.index(schedule).clamp(min=0).to(torch.int64).flatten()

    return step


class _Laid:
    """Concatenates the rows of a layout in time, and separates them again.

    Args:
        dims: the layout, with batch and time in it.
    """

    def __init__(self, dims: Dims):
        self.dims = dims
        parts = [(d[: d.index(BATCH)], (BATCH,), d[d.index(BATCH) + 1 :]) if BATCH in d else (d,) for d in dims]
        self._apart = tuple(p for whole in parts for p in whole if p or len(whole) == 1)  # rows in a dimension of their own
        self._view = View(self._apart)

    def in_time(self, x: Tensor, batch: int, frames: int) -> Tensor:
        """The rows concatenated in time."""
        chunk = self._view.enter(x.reshape(shape_of(self._apart, batch, frames)), batch, frames)
        chunk = chunk.transpose(0, 1).flatten(1, 2).unsqueeze(0)
        return self._view.leave(chunk, 1, batch * frames).reshape(shape_of(self.dims, 1, batch * frames))

    def in_rows(self, x: Tensor, batch: int, frames: int) -> Tensor:
        """The inverse of :meth:`in_time`."""
        chunk = self._view.enter(x.reshape(shape_of(self._apart, 1, batch * frames)), 1, batch * frames)
        chunk = chunk.squeeze(0).unflatten(1, (batch, frames)).transpose(0, 1)
        return self._view.leave(chunk, batch, frames).reshape(shape_of(self.dims, batch, frames))


def _by_rows(op: Op, laid: dict[int, _Laid], leaving: _Laid | None) -> Step:
    """An operation on a batch of one, in which rows are frames.

    Args:
        op: the operation.
        laid: the layouts of those of its slots that have rows.
        leaving: the layout of its result, if that has rows.
    """

    def step(m: ExecContext, rows: CallRows) -> None:
        frames = m.frames[op.wire]
        env: Any = list(m.env)
        for slot, own in laid.items():
            env[slot] = _each(partial(own.in_time, batch=m.batch, frames=frames), env[slot])
        row = ExecContext(env, 0, 1, m.device, [], None)
        row.frames = [n * m.batch for n in m.frames]
        y = op.prepared(row)(env)
        m.env[op.out] = y if leaving is None else _each(partial(leaving.in_rows, batch=m.batch, frames=frames), y)

    return step


def _layouts(program: Program) -> dict[int, Dims]:
    """The layouts of the tensors with rows or frames that a program computes with, by slot."""
    found: dict[int, Dims] = {entry.slot: entry.view.dims for entry in program.streams}
    found |= {
        c.slot: ((BATCH,),) for c in program.constants if program.layout.inputs[c.number].batch is not None
    }  # rows, no frames
    for i in program.instructions:
        if isinstance(i, Op) and i.dims is not None:
            found[i.out] = i.dims
        elif isinstance(i, Layer):
            found[i.out] = i.leave.dims
        elif isinstance(i, AlignDelays):
            found |= {out: view.dims for out, view in zip(i.outs, i.views, strict=True)}
    return found


def _each(fn: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to a tensor, or to those in a list."""
    return fn(value) if isinstance(value, Tensor) else [fn(v) for v in value]
