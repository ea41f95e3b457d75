"""A converted network in a step program: its instructions, on the frames of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...core.program.context import Rows, Run, Site, built
from ...core.program.frame_schedule import Pace
from ...core.program.tracing import traced
from ...core.state import Node, Wire, frames
from ...core.timing import IDENTITY
from .instructions import ExecContext, Instruction, Layer, Op
from .program import Program
from .queues import AlignDelays, Positions

Step = Callable[[ExecContext, Rows], None]


def step_program(site: Site, program: Program, current: Callable[[], Program]) -> Run:
    """The instructions one after another.

    Args:
        site: where the network stands.
        program: what it runs.
        current: gives its program for the current dtypes.
    """
    paces = [site.plan.pace(site.before.then(program.timing.at(w))) for w in range(program.wires)]
    steps = [_step(site, instruction, paces) for instruction in program.instructions]

    def run(x: Wire, rows: Rows) -> Wire:
        own, tensors = current(), x if isinstance(x, list) else [x]
        count = len(own.streams)
        given = own.constants_of([g[:, :, -1] for g in tensors[count:]])
        m = own.context(tensors[:count], given, paces[0].frames, [], None)
        m.frames = [p.frames for p in paces]
        for step in steps:
            step(m, rows)
        return own.leaving([out.view.enter(m.env[slot], m.batch, paces[wire].frames) for out, slot, wire in own.outputs])

    return run


def _step(site: Site, instruction: Instruction, paces: list[Pace]) -> Step:
    """An instruction in a call."""
    if isinstance(instruction, Op):
        return _op(site, instruction)
    if isinstance(instruction, Layer):
        return _layer(site, instruction, paces)
    if isinstance(instruction, AlignDelays):
        return _align(site, instruction, paces)
    if isinstance(instruction, Positions):
        raise site.refuse(
            f"'{instruction.path}' numbers the frames of the clip, the same for all rows, and in a program every row is at another frame. "
            "Use co.RecyclingPositionalEncoding, co.SinusoidalPositionalEncoding or rotary positions in the module"
        )
    raise site.refuse(f"'{instruction.path}' ({type(instruction).__name__}) has no kernel for programs")


def _op(site: Site, instruction: Op) -> Step:
    """An operation of the module. Errors of an export name its path and line of code."""

    def step(m: ExecContext, rows: Rows) -> None:
        instruction.chunk(m)

    if not site.plan.located:
        return step
    path = f"{site.node.path}.{instruction.path}".lstrip(".")
    where = f" ({instruction.source})" if instruction.source else ""
    return traced(step, path + where, located=True)


def _layer(site: Site, instruction: Layer, paces: list[Pace]) -> Step:
    """A streaming layer, between two changes of layout."""
    node = site.node.kids[instruction.state_node]
    run = _by_rows(site, node.given, lambda: built(site.plan, instruction.module, node))
    before, after = paces[instruction.before].frames, paces[instruction.wire].frames

    def step(m: ExecContext, rows: Rows) -> None:
        if instruction.late:
            instruction.bind(m.env)
        x = instruction.enter.enter(m.env[instruction.slot], m.batch, before)
        m.env[instruction.out] = instruction.leave.leave(run(x, rows), m.batch, after)

    return step


def _align(site: Site, instruction: AlignDelays, paces: list[Pace]) -> Step:
    """Queues that align streams."""
    wire = paces[instruction.wire]

    def queue(node: Node, before: Pace) -> Run:
        lag = Site(site.plan, site.module, node, IDENTITY).lag("queue", node.out, wire.first - before.first, before)
        return lambda x, rows: lag.waited(rows, x, wire.frames)

    queues = []
    for i, before in enumerate(instruction.before):
        node = site.node.kids[instruction.state_node + i]
        queues.append(_by_rows(site, node.out, lambda node=node, before=before: queue(node, paces[before])))  # type: ignore[misc]

    def step(m: ExecContext, rows: Rows) -> None:
        ends = zip(instruction.inputs, instruction.outs, instruction.views, instruction.before, queues, strict=True)
        for slot, out, view, before, queue in ends:
            x = queue(view.enter(m.env[slot], m.batch, paces[before].frames), rows)
            m.env[out] = view.leave(x, m.batch, wire.frames)

    return step


def _by_rows(site: Site, given: Any, build: Callable[[], Run]) -> Run:
    """Run on frames of which a row of the program has several: the module has merged joints or pixels with the batch."""
    held = site.plan.held
    first, streams = len(held), frames(site.node.given)[0].shape[0]
    run, fold = build(), frames(given)[0].shape[0] // streams
    if fold == 1:
        return run
    own = range(first, len(held))
    for i in own:
        held[i] = replace(held[i], shape=(fold, *held[i].shape))

    def folded(x: Wire, rows: Rows) -> Wire:
        within = rows.repeated(fold, own)
        y = run(x, within)
        for i in own:
            rows.fresh[i] = within.fresh[i].unflatten(0, (-1, fold))
        return y

    return folded
