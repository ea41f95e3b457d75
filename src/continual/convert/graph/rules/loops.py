"""Loops over frames that an export keeps as one operation."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from ..axes import TIME, Dim
from ..loops.cell import NotACell
from ..loops.emit import as_streams, mixes_rows, put_loop, same_for_all, seeds_of, with_rows
from ..loops.layer import Loop
from ..loops.layout import Layout, merged
from ..loops.operation import LOOPS
from ..loops.traced import Traced, traced_scan
from ..op_call import Misfit, OpCall, RowsMixed
from ..rule_context import RuleContext, rule
from ..values import Stream, Value
from .reduce import at_end


@rule("higher_order.scan")
def scanned(ctx: RuleContext, call: OpCall) -> Sequence[Value]:
    """``torch._higher_order_ops.scan`` as one recurrence."""
    traced = traced_scan(call.node, ctx.draft.captured)
    return looped(ctx, call, traced, _used_ends(call.node, traced.states))


@rule("continual.loop.default")
def rolled(ctx: RuleContext, call: OpCall) -> Sequence[Value]:
    """A loop that the conversion has found, as one recurrence."""
    traced = LOOPS[call.integer("number")]
    return looped(ctx, call, traced, [])[traced.states :]


def looped(ctx: RuleContext, call: OpCall, traced: Traced, ends: Sequence[int]) -> list[Value]:
    """The used final states of a loop, and its outputs."""
    streams = as_streams(call.sequence("xs"), 0)
    same_args = call.sequence("same")
    same = same_for_all([same_args[i] for i in traced.same])
    try:
        unit = traced.rate
        body, *prologue = traced.cells(ends)
    except NotACell as error:
        raise Misfit(
            f"a loop over frames can't be a step: {error}", "operations that keep the rows of the batch apart"
        ) from error
    frames = [Layout.of(n.meta["val"]) for n in traced.places[traced.states : traced.states + traced.frames]]
    streams, rows = with_rows(ctx, call, streams, frames, unit)
    states = [(Layout.of(n.meta["val"]), n.meta["val"].dtype) for n in traced.places[: traced.states]]
    seeds, begins = seeds_of(call.sequence("init"), states, streams[0], len(same))
    loop = Loop(body, tuple(prologue), tuple(seeds), len(same), unit)
    results = [n.meta["val"] for n in traced.results]
    leaving = [*results[traced.states :], *(results[i] for i in ends)]
    layouts = [Layout.of(val) for val in leaving]
    merged_rows = any(own.rate != unit for own in (*frames, *layouts, *(own for own, _ in states)))
    if mixes_rows(loop, streams, same, merged_rows):
        if merged_rows:
            raise Misfit("the states of a loop mix rows of the batch", "the batch before what is merged with it: x.flatten(0, 1)")
        raise RowsMixed("a loop mixes the rows of the batch", "operations that keep the rows apart")
    outs = [(((TIME,), *own.apart(rows)), val.dtype) for own, val in zip(layouts, leaving, strict=True)]
    found = put_loop(ctx, call, loop, streams, [*same, *begins], outs)
    made = [_as_traced(ctx, call, y, own, rows) for y, own in zip(found, layouts, strict=True)]
    last: dict[int, Value] = {}
    count = len(results) - traced.states
    for i, y in zip(ends, made[count:], strict=True):
        last[i] = at_end(ctx, call, y, 0)
    return [*(last.get(i) for i in range(traced.states)), *made[:count]]


def _used_ends(node: Node, states: int) -> list[int]:
    """Which states after the last frame are used."""
    found = [user.args[1] for user in node.users if user.users]
    return sorted({i for i in found if isinstance(i, int) and i < states})


def _as_traced(ctx: RuleContext, call: OpCall, y: Stream, own: Layout, rows: Dim) -> Stream:
    """The outputs of a loop in the layout of the module's code. Rows that the layer splits are merged again."""
    if own.rate == merged(rows):
        return y
    at = own.rows or 0
    y = ctx.emit.reshape(call, y, (y.dims[0], own.dims(rows)[at], *y.dims[3:]))
    return ctx.emit.permute(call, y, [0, *range(2, at + 2), 1, *range(at + 2, len(y.dims))])
