"""Exact windows in step programs. A call takes whole hops, and the values that windows share are tensors of the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....core.program.context import CallRows, KernelContext, StateSpec
from ....core.state import StepSpec
from ..axes import TIME
from ..exec_context import ExecContext
from .instruction import Windows, stacked
from .kept import History

Step = Callable[[ExecContext, CallRows], None]


def window_step(ctx: KernelContext, made: Windows) -> Step:
    """The windows of a call: one for each hop."""
    node, histories = ctx.node.children[made.state_node], made.schedule.histories
    device = ctx.node.in_spec[0].device if isinstance(ctx.node.in_spec, list) else ctx.node.in_spec.device
    specs = [_state_spec(ctx, node.path, i, h, device) for i, h in enumerate(histories)]
    hops = ctx.plan.chunk // made.every
    new = min(made.every, made.length)

    def step(m: ExecContext, rows: CallRows) -> None:
        kept, found = [rows.state[h.index] for h in specs], []
        chunk = [m.env[slot] for slot in made.inputs]
        for hop in range(hops):
            last = (hop + 1) * made.every
            frames = [x.narrow(d.index((TIME,)), last - new, new) for x, d in zip(chunk, made.streams, strict=True)]
            count = rows.calls * hops + hop
            taken: list[Any] = [
                Slots(h, k, count, m.batch) if _sparse(h) else h.layout.take(k, m.batch)
                for h, k in zip(histories, kept, strict=True)
            ]
            scores, added = made.computed(m, made.schedule, frames, taken)
            found.append(scores)
            put = [h.layout.put(x, m.batch, h.new) for h, x in zip(histories, added, strict=True)]
            kept = [
                t.pushed(x, rows.active) if isinstance(t, Slots) else h.pushed(k, x, h.layout.at)
                for h, t, k, x in zip(histories, taken, kept, put, strict=True)
            ]
        for h, k in zip(specs, kept, strict=True):
            rows.keep(h, k)
        for i, (slot, dims) in enumerate(zip(made.outs, made.leaving, strict=True)):
            m.env[slot] = stacked([f[i] for f in found], dims)

    return step


def _sparse(history: History) -> bool:
    """Whether a window reads only few of many entries. The entries are then not moved."""
    return history.rate > 1


@dataclass(frozen=True)
class Slots:
    """A history of which a window reads few entries: ``(B, size, …)``, that of hop ``c`` in slot ``c % size`` of each row.

    Args:
        history: what is kept.
        tensor: the state tensor.
        count: hops that each row has had, ``(B,)``.
        batch: rows.
    """

    history: History
    tensor: Tensor
    count: Tensor
    batch: int

    def pick(self, start: int, length: int, step: int) -> Tensor:
        """Entries ``start, start + step, …``, oldest first, as values with the positions in a dimension of their own."""
        offsets = torch.arange(start, start + length * step, step, device=self.tensor.device)
        slots = (self.count.unsqueeze(1) + offsets).remainder(self.history.size)
        rows = torch.arange(self.tensor.shape[0], device=self.tensor.device).unsqueeze(1)
        layout = self.history.layout
        found: Tensor = layout.take(self.tensor[rows, slots].movedim(1, layout.at), self.batch)
        return found

    def pushed(self, x: Tensor, active: Tensor | None) -> Tensor:
        """The state tensor with the oldest entry replaced by a new one. Inactive rows keep their entries."""
        rows, slots = torch.arange(self.tensor.shape[0], device=self.tensor.device), self.count.remainder(self.history.size)
        x = x.select(self.history.layout.at, 0)
        if active is not None:
            x = torch.where(active.view(-1, *(1,) * (x.ndim - 1)), x, self.tensor[rows, slots])
        return self.tensor.index_put((rows, slots), x)


def _state_spec(ctx: KernelContext, path: str, index: int, history: History, device: torch.device) -> StateSpec:
    """The state tensor of a history."""
    shape = list(history.layout.shape(1, history.size))
    if _sparse(history):
        shape.insert(1, shape.pop(history.layout.at))
    like = StepSpec(tuple(shape), history.dtype, device)
    return ctx.state_of_shape(
        f"{path.rpartition('.')[2]}.window{index}", like, tuple(shape[1:]), 0.0, keeps_inactive=_sparse(history)
    )
