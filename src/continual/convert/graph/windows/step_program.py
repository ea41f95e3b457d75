"""Exact windows in step programs: a call brings whole hops, and what windows take over from each other is a tensor of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ....core.program.context import CallRows, KernelContext, StateSpec
from ....core.state import StepSpec
from ..axes import TIME
from ..instructions import ExecContext
from .instruction import Windows, stacked

Step = Callable[[ExecContext, CallRows], None]


def window_step(ctx: KernelContext, made: Windows) -> Step:
    """The windows of a call: one for each hop."""
    node, histories = ctx.node.kids[made.state_node], made.schedule.histories
    device = ctx.node.given[0].device if isinstance(ctx.node.given, list) else ctx.node.given.device
    held = [_held(ctx, node.path, i, h, device) for i, h in enumerate(histories)]
    hops = ctx.plan.chunk // made.every
    new = min(made.every, made.length)

    def step(m: ExecContext, rows: CallRows) -> None:
        kept, found = [rows.held[h.index] for h in held], []
        given = [m.env[slot] for slot in made.inputs]
        for hop in range(hops):
            last = (hop + 1) * made.every
            frames = [x.narrow(d.index((TIME,)), last - new, new) for x, d in zip(given, made.streams, strict=True)]
            taken = [h.shelf.take(k, m.batch) for h, k in zip(histories, kept, strict=True)]
            scores, added = made.computed(m, made.schedule, frames, taken)
            found.append(scores)
            kept = [
                h.pushed(k, h.shelf.put(x, m.batch, h.new), h.shelf.at) for h, k, x in zip(histories, kept, added, strict=True)
            ]
        for h, k in zip(held, kept, strict=True):
            rows.keep(h, k)
        for i, (slot, dims) in enumerate(zip(made.outs, made.leaving, strict=True)):
            m.env[slot] = stacked([f[i] for f in found], dims)

    return step


def _held(ctx: KernelContext, path: str, index: int, history: Any, device: torch.device) -> StateSpec:
    """The state tensor of a history."""
    shape = history.shelf.shape(1, history.size)
    like = StepSpec(shape, history.dtype, device)
    return ctx._held(f"{path.rpartition('.')[2]}.window{index}", like, shape[1:], 0.0)
