"""Exact windows in step programs: a call brings whole hops, and what windows take over from each other is a tensor of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...graph.layout import TIME
from ...graph.program import Moment
from ...graph.windows.instruction import Windows, stacked
from ...state import Frame
from ..rows import Held, Rows, Site

Step = Callable[[Moment, Rows], None]


def exact(site: Site, net: Any, made: Windows) -> Step:
    """The windows of a call: one for each hop."""
    node, histories = site.node.kids[made.kid], made.schedule.histories
    device = site.node.given[0].device if isinstance(site.node.given, list) else site.node.given.device
    held = [_held(site, node.path, i, h, device) for i, h in enumerate(histories)]
    hops = site.plan.chunk // made.every
    new = min(made.every, made.length)

    def step(m: Moment, rows: Rows) -> None:
        kept, found = [rows.held[h.index] for h in held], []
        given = [m.env[slot] for slot in made.inputs]
        for hop in range(hops):
            last = (hop + 1) * made.every
            frames = [x.narrow(d.index((TIME,)), last - new, new) for x, d in zip(given, made.streams, strict=True)]
            taken = [h.shelf.take(k, m.batch) for h, k in zip(histories, kept, strict=True)]
            scores, added = made.computed(m, made.schedule, frames, taken)
            found.append(scores)
            kept = [_pushed(h, k, h.shelf.put(x, m.batch, h.new)) for h, k, x in zip(histories, kept, added, strict=True)]
        for h, k in zip(held, kept, strict=True):
            rows.keep(h, k)
        for i, (slot, dims) in enumerate(zip(made.outs, made.leaving, strict=True)):
            m.env[slot] = stacked([f[i] for f in found], dims)

    return step


def _held(site: Site, path: str, index: int, history: Any, device: torch.device) -> Held:
    """The state tensor of a history."""
    shape = history.shelf.shape(1, history.size)
    like = Frame(shape, history.dtype, device)
    return site._held(f"{path.rpartition('.')[2]}.window{index}", like, shape[1:], 0.0)


def _pushed(history: Any, kept: Tensor, x: Tensor) -> Tensor:
    """The last entries, with what a window has added."""
    at = history.shelf.at
    if history.size <= history.new:
        return x.narrow(at, history.new - history.size, history.size)
    return torch.cat((kept.narrow(at, history.new, history.size - history.new), x), at)
