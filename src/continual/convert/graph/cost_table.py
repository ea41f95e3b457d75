"""The table of a converted network: a row for every operation, and its multiply-adds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...core.op_rows import Row
from ...core.timing import Wiring
from .exec_context import ExecContext
from .instructions import Instruction, Layer, Op, slots_of
from .queues import AlignDelays, Positions
from .windows.instruction import Windows
from .windows.table import rows_of_windows

TimingOf = Callable[[int], Wiring]


def rows_of(
    program: Sequence[Instruction], entries: dict[int, int], timing: TimingOf, nbytes: dict[int, int] | None = None
) -> tuple[tuple[Row, ...], dict[int, int]]:
    """The rows of a program's operations.

    Args:
        program: the instructions.
        entries: the slots of the network's inputs, and their numbers.
        timing: gives the timing of a wire, from the network's input on.
        nbytes: the bytes of the state nodes, by their index.

    Returns:
        The rows, and for every slot the index of its row (``-1 - k`` for input ``k``).
    """
    nbytes, timing = nbytes or {}, functools.cache(timing)  # a timing searches for its delay once
    origin = {slot: (-1 - number, 0, 0) for slot, number in entries.items()}  # row, frames that wait, bytes of the queue
    rows: list[Row] = []
    for instruction in program:
        if isinstance(instruction, AlignDelays):
            for i, (slot, out, depth) in enumerate(zip(instruction.inputs, instruction.outs, instruction.depths(), strict=True)):
                if slot in origin:
                    origin[out] = (origin[slot][0], depth, nbytes.get(instruction.state_node + i, 0))
            continue
        if isinstance(instruction, Windows):
            streams = [origin[s][0] for s in instruction.inputs]
            made, at = rows_of_windows(instruction.schedule, streams, instruction.length, len(rows), 1)
            rows += made
            origin.update({s: (at[g.task], 0, 0) for s, g in zip(instruction.outs, instruction.schedule.outputs, strict=True)})
            continue
        own = nbytes.get(instruction.state_node, 0) if isinstance(instruction, (Layer, Positions)) else 0
        sources = [origin[s] for s in slots_of(instruction) if s in origin]
        after = timing(instruction.wire)
        rows.append(
            Row(
                instruction.path, instruction.label, tuple(g[0] for g in sources), tuple(g[1] for g in sources), 1 / Fraction(after.stride),
                after.receptive_field, after.delay, own + sum(g[2] for g in sources), instruction.source, instruction.note,
            )
        )  # fmt: skip
        origin.update(dict.fromkeys(instruction.outs, (len(rows) - 1, 0, 0)))
    return tuple(rows), {slot: found[0] for slot, found in origin.items()}


def macs_of(program: Sequence[Instruction], moment: ExecContext, timing: TimingOf) -> Fraction:
    """Multiply-adds per input step and row of the module's own operations. Layers count themselves."""
    total = Fraction(0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for instruction in program:
            before = counter.get_total_flops()
            if isinstance(instruction, Windows):
                total += Fraction(instruction.schedule.macs, instruction.every)
            if isinstance(instruction, Op):
                instruction.chunk(moment)
                done = counter.get_total_flops() - before
                total += Fraction(done, 2 * moment.batch) / Fraction(timing(instruction.wire).stride)
    return total
