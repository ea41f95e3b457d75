"""The program of a module while it is built: plain data that the parts of the conversion share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.fx import Node as Fx

from ...core.timing_graph import Wires
from .capture import Captured, module_path
from .instructions import Instruction, Layer, Op, slots_of
from .op_call import OpCall
from .parameter_table import Source
from .values import LengthDependent, Stream, Value


@dataclass
class ProgramDraft:
    """What the walk through the graph has collected.

    Attributes:
        captured: the exported module.
        module: the module itself.
        time_pooling: what to do with reductions over the clip in the middle of the network.
        middle: names of the nodes that are such reductions.
        middle_found: those that this walk has found.
        so_far: whether the last frame of a clip is that of the clip so far, in each step, rather than that of a sliding window.
        mixed: whether frames leave beside values of the whole clip.
        wires: the timings.
        values: the value of every node that was visited.
        instructions: what runs on frames.
        constants: what runs when parameters change.
        sources: what fills slots from outside.
        tensors: constants of the module's code, by name.
        origins: how constants were computed, by slot.
        names: of the module's inputs.
        notes: what users should know.
        baked: where a size of the example went into the program.
        windowed: whether an operation looks at a window of the example's length, so that longer clips are a different function.
        divided: whether the program is for clips whose length the strides divide, as a note says.
        refused: whether the network refuses some lengths that the module takes.
        nested: whether the module gives several outputs.
        nesting: how it nests them, with their numbers in place of them, where that is more than a list.
    """

    captured: Captured
    module: nn.Module
    time_pooling: str | None = None
    middle: frozenset[str] = frozenset()
    so_far: bool = False
    mixed: bool = False
    middle_found: set[str] = field(default_factory=set)
    wires: Wires = field(default_factory=Wires)
    values: dict[Fx, Value] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    constants: list[Op] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[int, LengthDependent] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    baked: list[str] = field(default_factory=list)
    windowed: bool = False
    divided: bool = False
    refused: bool = False
    nested: bool = False
    nesting: Any = None
    slots: int = 0
    state_nodes: int = 0

    def new_slot(self) -> int:
        """A slot that is not used yet."""
        self.slots += 1
        return self.slots - 1

    def new_state_node(self, count: int = 1) -> int:
        """The index of the next state node, or of the first of several."""
        self.state_nodes += count
        return self.state_nodes - count

    def note(self, call: OpCall, text: str) -> None:
        """Record what users should know about an operation."""
        self.notes.append(f"{module_path(call.node) or call.op}: {text}")

    def window_note(self, call: OpCall, text: str) -> None:
        """Record that an operation looks at a window of the example's length."""
        self.windowed = True
        self.note(call, text)

    def sole_use(self, by: Fx | None, slot: int) -> Instruction | None:
        """The instruction that computes a slot, if only one operation uses it (and that one, where ``by`` says which)."""
        made = next((i for i in reversed(self.instructions) if slot in i.outs), None)
        same = {n for n, value in self.values.items() if getattr(value, "slot", None) == slot}
        users = {user for n in same for user in n.users} - same
        # a size that goes with it
        users -= {u for u in users if str(u.target) == "aten.sym_size.int" and u.users.keys() <= users}
        return made if len(users) == 1 and (by is None or users == {by}) else None

    def sole_producer(self, call: OpCall, stream: Stream) -> Layer | None:
        """The layer that computes a stream, if only this operation uses the stream: the layer may then be changed instead."""
        last = next((i for i in reversed(self.instructions) if stream.slot in i.outs), None)
        same = {n for n, value in self.values.items() if value == stream}  # a slice of everything is the stream itself
        users = {user for n in same for user in n.users} - same
        if users != {call.node} or any(stream.slot in slots_of(i) for i in self.instructions):  # a rule has used it already
            return None
        return last if isinstance(last, Layer) else None
