"""The program of a converted network, and how a run of it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.state import StateNode, StateUpdates
from ...core.timing import Wiring
from .axes import View
from .exec_context import Arg, Env, ExecContext
from .instructions import Instruction, Layer, Op, Step
from .io_layout import ModuleLayout, Output
from .parameter_table import ParameterTable
from .step_frames import framed_slots


class StreamInput(NamedTuple):
    """An input that is a stream: its number, its slot, and its view as a chunk."""

    number: int
    slot: int
    view: View


class ConstantInput(NamedTuple):
    """An input that is not a stream: its number and its slot."""

    number: int
    slot: int


class ProgramOutput(NamedTuple):
    """An output: its layout, its slot, its wire, and its view in that slot."""

    layout: Output
    slot: int
    wire: int
    view: View

    def chunk(self, m: ExecContext) -> Tensor:
        """The output as a chunk ``(B, C, n, *S)``."""
        return self.view.enter(m.env[self.slot], m.batch, m.frames[self.wire])


@dataclass(eq=False)
class Program:
    """What a converted network runs.

    Attributes:
        instructions: what runs on frames.
        table: parameters, and what is computed from them.
        layout: between callers and the program.
        outputs: what leaves.
        timing: of the first output.
        wires: the number of wires.
        names: of the inputs.
        notes: what users should know.
        streams: the inputs that are streams.
        constants: the inputs that are not streams.
    """

    instructions: list[Instruction]
    table: ParameterTable
    layout: ModuleLayout
    outputs: list[ProgramOutput]
    timing: Wiring
    wires: int
    names: list[str]
    notes: tuple[str, ...]
    streams: list[StreamInput] = field(default_factory=list)
    constants: list[ConstantInput] = field(default_factory=list)
    layers: list[Layer] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = [i for i in self.instructions if isinstance(i, Layer)]

    def environment(self, constants: Sequence[Tensor]) -> Env:
        """All slots, with the current parameters and constants.

        Args:
            constants: the inputs that are not streams, in their own shapes.
        """
        env, changed = self.table.environment([c.slot for c in self.constants], constants)
        if changed:
            for layer in self.layers:
                if not layer.late:
                    layer.bind(env)
        return env

    def context(
        self,
        streams: Sequence[Tensor],
        constants: Sequence[Tensor],
        frames: int,
        nodes: list[StateNode],
        call: StateUpdates | None,
    ) -> ExecContext:
        """A run on so many frames of every stream.

        Args:
            streams: as chunks ``(B, C, n, *S)``.
            constants: the inputs that are not streams, in their own shapes.
            frames: ``n``.
            nodes: the state nodes of the instructions.
            call: takes changes of state.
        """
        batch = streams[0].shape[0]
        m = ExecContext(self.environment(constants), self.wires, batch, streams[0].device, nodes, call)
        for entry, x in zip(self.streams, streams, strict=True):
            m.env[entry.slot] = entry.view.leave(x, batch, frames)
        return m

    def step_context(
        self, streams: Sequence[Tensor], constants: Sequence[Tensor], nodes: list[StateNode], call: StateUpdates
    ) -> ExecContext:
        """A run on one step of every stream, ``(B, C, *S)``; the other arguments are those of :meth:`context`."""
        m = ExecContext(self.environment(constants), self.wires, streams[0].shape[0], streams[0].device, nodes, call)
        m.framed, m.frames = self.framed, [1] * self.wires
        for entry, x in zip(self.streams, streams, strict=True):
            m.put_frame(entry.slot, entry.view, x)
        return m

    @cached_property
    def framed(self) -> frozenset[int]:
        """The slots that hold frames in a step."""
        entries = [(entry.slot, entry.view) for entry in self.streams]
        return framed_slots(self.instructions, entries, [(out.slot, out.view) for out in self.outputs])

    @cached_property
    def steps(self) -> list[Step]:
        """What one step of every stream runs."""
        return [instruction.stepper(self.framed) for instruction in self.instructions]

    def __getstate__(self) -> dict[str, Any]:
        """Copies have instructions of their own."""
        return {k: v for k, v in self.__dict__.items() if k != "steps"}

    def constants_of(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Inputs that are not streams, in their own shapes again."""
        return [self.layout.constant(i, v) for i, v in enumerate(values)]

    def release(self) -> None:
        """Release the weights; the next call looks them up."""
        self.table.forget()
        for layer in self.layers:
            layer.unbind()

    def for_own_stream(self) -> Program:
        """The program for a stream that may run at the same time as others: own values, and own layers where weights are computed."""
        computed = {op.out for op in self.table.constants}
        own = [
            i.with_own_weights() if isinstance(i, Layer) and (i.late or computed & {*i.weights.values()}) else i
            for i in self.instructions
        ]
        return replace(self, instructions=own, table=self.table.for_own_stream())

    @property
    def has_dtypes(self) -> bool:
        """Whether dtypes of the example may be in the program: in arguments of operations, or as tensors."""
        ops = [i for i in (*self.instructions, *self.table.constants) if isinstance(i, Op)]
        inside = any(name not in layer.weights for layer in self.layers for name in _tensor_names(layer))
        return (
            any(i.has_dtypes for i in self.instructions)
            or bool(self.table.tensors)
            or inside
            or any(_has_dtype([*op.args, *op.kwargs.values()]) for op in ops)
        )


def _tensor_names(layer: Layer) -> Iterator[str]:
    for name, _ in (*layer.module.named_buffers(), *layer.module.named_parameters()):
        yield name


def _has_dtype(value: Arg) -> bool:
    return any(map(_has_dtype, value)) if isinstance(value, (tuple, list)) else isinstance(value, torch.dtype)
