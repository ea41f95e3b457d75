"""A converted network in a step program: its instructions, on the frames of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ...core.program.context import CallRows, KernelContext, Run, built
from ...core.program.frame_schedule import FrameSchedule
from ...core.program.tracing import traced
from ...core.state import StateNode, Wire, frames
from ...core.timing import IDENTITY
from .exec_context import ExecContext
from .fitted_ends import FittedEnd
from .instructions import Instruction, Layer, Op
from .io_layout import tensors_of
from .program import Program
from .queues import AlignDelays
from .row_positions import RowPositions
from .windows.instruction import Windows
from .windows.step_program import window_step

Step = Callable[[ExecContext, CallRows], None]


def step_program(ctx: KernelContext, program: Program, current: Callable[[], Program]) -> Run:
    """The instructions one after another.

    Args:
        ctx: where the network stands.
        program: what it runs.
        current: gives its program for the current dtypes.
    """
    schedules = [ctx.plan.schedule(ctx.before.then(program.timing.at(w))) for w in range(program.wires)]
    positions = RowPositions(program)
    steps = [
        positions.step(ctx, i, schedules) if positions.concerns(i) else _step(ctx, i, schedules) for i in program.instructions
    ]

    def run(x: Wire, rows: CallRows) -> Wire:
        own, tensors = current(), tensors_of(x)
        count = len(own.streams)
        constants = own.constants_of([g[:, :, -1] for g in tensors[count:]])
        m = own.context(tensors[:count], constants, schedules[0].frames, [], None)
        m.frames = [s.frames for s in schedules]
        for step in steps:
            step(m, rows)
        return own.layout.leaving([out.view.enter(m.env[out.slot], m.batch, schedules[out.wire].frames) for out in own.outputs])

    return run


def _step(ctx: KernelContext, instruction: Instruction, schedules: list[FrameSchedule]) -> Step:
    """An instruction in a call."""
    if isinstance(instruction, Op):
        return _op(ctx, instruction)
    if isinstance(instruction, Layer):
        return _layer(ctx, instruction, schedules)
    if isinstance(instruction, AlignDelays):
        return _align(ctx, instruction, schedules)
    if isinstance(instruction, Windows):
        return window_step(ctx, instruction)
    raise ctx.refuse(f"'{instruction.path}' ({type(instruction).__name__}) has no kernel for programs")


def _op(ctx: KernelContext, instruction: Op) -> Step:
    """An operation of the module. Errors of an export name its path and line of code."""

    def step(m: ExecContext, rows: CallRows) -> None:
        instruction.chunk(m)

    if not ctx.target.annotate:
        return step
    path = f"{ctx.node.path}.{instruction.path}".lstrip(".")
    where = f" ({instruction.source})" if instruction.source else ""
    return traced(step, path + where, annotate=True)


def _layer(ctx: KernelContext, instruction: Layer, schedules: list[FrameSchedule]) -> Step:
    """A streaming layer, between two changes of layout."""
    node = ctx.node.children[instruction.state_node]
    run = _by_rows(ctx, node.in_spec, lambda: _built(ctx, instruction, node, schedules[instruction.wire]))
    before, after = schedules[instruction.before].frames, schedules[instruction.wire].frames

    def step(m: ExecContext, rows: CallRows) -> None:
        if instruction.late:
            instruction.bind(m.env)
        instruction.leaving(m, run(instruction.arriving(m, before), rows), after)

    return step


def _built(ctx: KernelContext, instruction: Layer, node: StateNode, leaves: FrameSchedule) -> Run:
    """The step of a layer."""
    if isinstance(instruction, FittedEnd):
        module: Any = instruction.module
        return cast(Run, module.program_on(KernelContext(ctx.plan, module, node), leaves))
    return built(ctx.plan, instruction.module, node)


def _align(ctx: KernelContext, instruction: AlignDelays, schedules: list[FrameSchedule]) -> Step:
    """Queues that align streams."""
    wire = schedules[instruction.wire]

    def queue(node: StateNode, before: FrameSchedule) -> Run:
        line = KernelContext(ctx.plan, ctx.module, node, IDENTITY).delay_line(
            "queue", node.out, wire.first - before.first, before
        )
        return lambda x, rows: line.delayed(rows, x, wire.frames)

    queues = []
    for i, before in enumerate(instruction.before):
        node = ctx.node.children[instruction.state_node + i]
        queues.append(_by_rows(ctx, node.out, lambda node=node, before=before: queue(node, schedules[before])))  # type: ignore[misc]

    def step(m: ExecContext, rows: CallRows) -> None:
        ends = zip(instruction.inputs, instruction.outs, instruction.views, instruction.before, queues, strict=True)
        for slot, out, view, before, queue in ends:
            x: Any = queue(view.enter(m.env[slot], m.batch, schedules[before].frames), rows)
            m.env[out] = view.leave(x, m.batch, wire.frames)

    return step


def _by_rows(ctx: KernelContext, example: Any, build: Callable[[], Run]) -> Run:
    """Run on several rows of frames for each row of the program: the module has merged joints or pixels with the batch."""
    specs = ctx.plan.state_specs
    first, streams = len(specs), frames(ctx.node.in_spec)[0].shape[0]
    run, fold = build(), frames(example)[0].shape[0] // streams
    if fold == 1:
        return run
    own = range(first, len(specs))
    for i in own:
        specs[i] = specs[i].of_several(fold)

    def folded(x: Wire, rows: CallRows) -> Wire:
        within = rows.repeated(fold, own)
        y = run(x, within)
        for i in own:
            rows.new_state[i] = within.new_state[i].unflatten(0, (-1, fold))
        return y

    return folded
