"""From the draft of a program to a converted network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .axes import View
from .graph_module import GraphModule, MultiInputGraphModule
from .instructions import Instruction, Layer, Op, slots_of
from .io_layout import Input, ModuleLayout, Output
from .parameter_table import ParameterTable
from .program import Program, ProgramOutput
from .queues import AlignDelays, Positions
from .repeats import without_repeats
from .step_frames import without_permutations
from .walker import Walked
from .windows.instruction import Windows


def assemble(walked: Walked, module: nn.Module) -> GraphModule:
    """Assemble the converted network from what its outputs need.

    Args:
        walked: the result of the walk through the module's graph.
        module: the module that the network replaces, or a converted network whose names and weights it takes.
    """
    draft, outputs = walked.draft, walked.outputs
    instructions, constants, where = without_repeats(draft.instructions, draft.constants, draft.sources, draft.wires)
    taken = without_permutations(instructions, [(where.slot(o.slot), View(o.dims)) for o in outputs])
    leaving_slots = {slot for slot, _ in taken}
    instructions = needed(instructions, leaving_slots)
    used = {slot for i in instructions for slot in slots_of(i)} | leaving_slots
    constants = [c for c in needed(constants, used) if isinstance(c, Op)]
    used |= {slot for c in constants for slot in slots_of(c)}
    _number_state(instructions)
    captured = draft.captured
    of = zip(captured.inputs, captured.time_dims, captured.batch_dims, captured.rates, strict=True)
    inputs = [Input(t, b, x, rate, i) for i, (x, t, b, rate) in enumerate(of)]
    for source in draft.sources:
        if source.kind == "input" and (own := inputs[int(source.name)]).time is not None:
            source.view = own.view
    sources = [s for s in draft.sources if s.slot in used or s.kind == "input"]
    wires = len(draft.wires.entries)
    timing = draft.wires.timing(wires - 1).at(outputs[0].wire)
    layouts = [Output(View(o.dims), o.windows) for o in outputs]
    layout = ModuleLayout(type(module).__name__, inputs, layouts, draft.nested)
    layout.nesting = draft.nesting
    leaving = [ProgramOutput(own, slot, o.wire, view) for own, o, (slot, view) in zip(layouts, outputs, taken, strict=True)]
    table = ParameterTable(constants, dict(draft.tensors), draft.slots)
    notes = (*draft.notes, *(_so_far(i, own) for i, own in enumerate(layouts) if draft.so_far and own.windows))
    made = Program(instructions, table, layout, leaving, timing, wires, draft.names, notes)
    cls = GraphModule if len(inputs) == 1 else MultiInputGraphModule
    net = cls(module, made, sources)
    one_length = draft.windowed or draft.middle
    net.__dict__["lengths"] = "own" if one_length else "same rest" if draft.divided else "any"
    return net


def _so_far(number: int, output: Output) -> str:
    """The note on an output that is a value of the clip so far."""
    return (
        f"output {number}: the module gives it of the last frame of a clip; the stream after each step, and of several steps stacked in "
        f"dim {output.time}"
    )


def needed(instructions: Sequence[Instruction], wanted: set[int]) -> list[Instruction]:
    """The instructions that some slots depend on."""
    kept: list[Instruction] = []
    wanted = set(wanted)
    for instruction in reversed(instructions):
        if wanted & set(instruction.outs):
            kept.append(instruction)
            wanted |= set(slots_of(instruction))
    return kept[::-1]


def _number_state(program: Sequence[Instruction]) -> None:
    """Number the state nodes of the remaining instructions."""
    count = 0
    for instruction in program:
        if isinstance(instruction, (Layer, AlignDelays, Positions, Windows)):
            instruction.state_node = count
            count += len(instruction.inputs) if isinstance(instruction, AlignDelays) else 1
