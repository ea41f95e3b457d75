"""Values that a program would compute several times: once is enough.

The cosines and sines of positions are the common case. The walk through the graph writes them down once for each use, four times
for each layer of a transformer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...core.timing import Timing
from ...core.timing_graph import Wires
from .exec_context import Arg, Ref
from .instructions import Instruction, Layer, Op, resolve, slots_of
from .parameter_table import Source
from .queues import AlignDelays, Positions


class Repeats:
    """Lets what reads a value that is computed several times read the first of them.

    Values are handed over in the order in which they are computed: :meth:`sources`, then :meth:`once`.

    Args:
        instructions: all of a network.
        wires: the timings.
    """

    def __init__(self, instructions: Sequence[Instruction], wires: Wires):
        self._slots: dict[int, int] = {}  # from a slot to the one that has its value already
        self._first: dict[Hashable, int] = {}
        self._positions: dict[Hashable, Positions] = {}  # by what their wire counts
        counted = {i.wire for i in instructions if isinstance(i, Positions)}
        self._counts: dict[int, Hashable] = {wire: counts_of(wires.timing(wire)) or wire for wire in counted}
        readers = (Op, Layer, AlignDelays, Positions)
        self._kept = {slot for i in instructions if not isinstance(i, readers) for slot in slots_of(i)}  # what others read

    def slot(self, slot: int) -> int:
        """Where the value of a slot is."""
        return self._slots.get(slot, slot)

    def sources(self, sources: Iterable[Source]) -> None:
        """Look for parameters, buffers and constants in several slots."""
        for source in sources:
            if source.kind != "input":
                self._repeats((source.kind, source.name), source.slot)

    def once(self, instructions: Iterable[Instruction]) -> list[Any]:
        """The instructions without repeated operations. Layers and queues are changed: they read from other slots."""
        return [kept for i in instructions if (kept := self._read_elsewhere(i)) is not None]

    def _repeats(self, key: Hashable, slot: int) -> bool:
        """Whether a slot's value is in another one, and nothing needs it here."""
        first = self._first.setdefault(key, slot)
        if first == slot or slot in self._kept:
            return False
        self._slots[slot] = first
        return True

    def _read_elsewhere(self, instruction: Instruction) -> Instruction | None:
        if isinstance(instruction, Op):
            return self._operation(instruction)
        if isinstance(instruction, Positions):
            return self._frame_numbers(instruction)
        if isinstance(instruction, AlignDelays):
            instruction.inputs = tuple(map(self.slot, instruction.inputs))
        elif isinstance(instruction, Layer):
            instruction.take([(self.slot(slot), view) for slot, view in instruction.taken])
            instruction.weights = {name: self.slot(slot) for name, slot in instruction.weights.items()}
        return instruction

    def _operation(self, op: Op) -> Op | None:
        if type(op) is Op and {self.slot(s) for s in slots_of(op)} != {*slots_of(op)}:
            args, kwargs = tuple(map(self._argument, op.args)), {k: self._argument(v) for k, v in op.kwargs.items()}
            op = replace(op, args=args, kwargs=kwargs, inputs=tuple(map(self.slot, op.inputs)))
        if type(op) is not Op or torch.Tag.nondeterministic_seeded in getattr(resolve(op.target), "tags", ()):
            return op
        key = op.target, repr(op.args), repr(op.kwargs), op.inputs, self._counts.get(op.wire, op.wire), op.dims
        return None if self._repeats(key, op.out) else op

    def _argument(self, value: Arg) -> Arg:
        if isinstance(value, Ref):
            return Ref(self.slot(value.slot))
        return [self._argument(v) for v in value] if isinstance(value, (list, tuple)) else value

    def _frame_numbers(self, positions: Positions) -> Positions | None:
        positions.inputs = tuple(map(self.slot, positions.inputs))
        counts = self._counts[positions.wire]
        first = self._positions.setdefault(counts, positions)
        if not self._repeats(("positions", counts), positions.out):
            return positions
        first.limit = min((n for n in (first.limit, positions.limit) if n is not None), default=None)
        return None


def counts_of(timing: Timing) -> Hashable:
    """What wires have in common that have equally many frames at all times; ``None``: that is not known of this one."""
    rate, form = timing.constant_rate(), timing.closed_form
    if rate is None or rate.stride != 1 or timing.phase_dependent:
        return None
    return rate, form.balance, form.least


def without_repeats(
    instructions: Sequence[Instruction], constants: Sequence[Op], sources: Sequence[Source], wires: Wires
) -> tuple[list[Instruction], list[Op], Repeats]:
    """What a network computes, each value once.

    Args:
        instructions: what runs on frames. Layers and queues among them are changed.
        constants: what runs when parameters change.
        sources: what fills slots from outside.
        wires: the timings.

    Returns:
        The instructions, the constants, and where each value is.
    """
    found = Repeats(instructions, wires)
    found.sources(sources)
    constants = found.once(constants)
    return found.once(instructions), constants, found
