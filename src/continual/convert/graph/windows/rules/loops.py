"""Loops over frames. They start with the window, so windows share none of their outputs."""

from __future__ import annotations

from typing import Any

from .....errors import NotStreamable
from ...axes import BATCH, TIME, Dim, Dims
from ...loops.cell import NotACell
from ...loops.layout import Layout, merged
from ...loops.operation import LOOPS
from ...loops.traced import Traced, traced_scan
from ...loops.whole import WholeLoop
from ...op_call import OpCall
from ...values import Const
from ..sizes import Unfollowed, tasks_in
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import Wire
from .pointwise import alike


@rule("higher_order.scan")
def scanned(w: Walk, call: Call) -> Any:
    """``torch._higher_order_ops.scan`` on the window."""
    return looped(w, call, traced_scan(call.node, w.captured), True)


@rule("continual.loop.default")
def rolled(w: Walk, call: Call) -> Any:
    """A loop that the conversion has found, on the window."""
    return looped(w, call, LOOPS[call["number"]], False)


def looped(w: Walk, call: Call, traced: Traced, states: bool) -> Any:
    """All iterations in order. ``states``: the final states are returned first."""
    same_args = [call["same"][i] for i in traced.same]
    own = Call(call.node, call.name, {"xs": call["xs"], "init": call["init"], "same": same_args}, ("xs", "init", "same"))
    try:
        loop = WholeLoop.of(traced, states)
    except NotACell as error:
        raise NotStreamable(
            f"{w.names.path(OpCall(call.node, call.name, {}))}: a loop over frames can't be followed: {error}"
        ) from error
    same = [g.value for g in same_args if isinstance(g, Const)]
    frames = int(call.node.meta["val"][-1].shape[0])
    macs = loop.macs(frames, same) if len(same) == len(same_args) else 0
    wire, dims = _timed(own, traced, states) if w.rows is None else (None, None)
    return w.window(own, dims, wire, function=loop, macs=macs)


def _timed(call: Call, traced: Traced, states: bool) -> tuple[Wire | None, list[Dims | None] | None]:
    """The wire of the streams, and the layouts of the results; ``None``: they are tensors of the window without positions."""
    streams = tasks_in(call["xs"])
    try:
        wire = alike([t for t in streams if t.wire.timed])
    except Unfollowed:
        return None, None
    if len(streams) < len(call["xs"]) or any(not t.wire.timed or t.wire.dim != 0 or not t.wire.alone for t in streams):
        return None, None
    rows: set[Dim] = {d for d in wire.dims if BATCH in d}
    if len(rows) != 1 or merged(next(iter(rows))) != traced.rate:
        return None, None
    dim = rows.pop()
    ends: list[Dims | None] = [None] * traced.states if states else []
    return wire, [*ends, *(((TIME,), *Layout.of(n.meta["val"]).dims(dim)) for n in traced.results[traced.states :])]
