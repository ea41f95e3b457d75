"""Recurrent layers of which only the last state is needed: all open windows advance together, as rows of one batch.

A recurrent layer starts with the window, so windows share none of its states. But each frame is projected once for all windows, and
one matrix product advances them all. A window alone would read the weights once for each of its frames.

Padding may make the first and last positions different in each window (the margins of the layer's input). A window then enters the
batch after its first positions, which are computed from its own first frames, and takes its last positions when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exec_context import ExecContext
from ..instructions import resolve
from .kept import History
from .tasks import Block, OpTask, Task, Value
from .wire import Ranges

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(eq=False)
class Recurrent(OpTask):
    """A recurrent layer on the whole window.

    Attributes:
        kind: ``"lstm"``, ``"gru"``, ``"rnn_tanh"`` or ``"rnn_relu"``.
        params: slots of its weights, in torch's order.
        biased, layers: as the operation has them.
        sizes: of the matrices among them.
        width: of its states.
        simple: whether it goes forward in time, from zeros, without projections.
        both: whether it goes in both directions, from zeros, without projections.
    """

    kind: str = "lstm"
    params: tuple[int, ...] = ()
    biased: bool = True
    layers: int = 1
    sizes: tuple[int, ...] = ()
    width: int = 1
    simple: bool = False
    both: bool = False

    def rolled(self, every: int, first: Callable[[Task, int], Start]) -> Rolling | None:
        """The layer for windows that advance together, where that is possible.

        Args:
            first: computes a number of first positions of a task from the first frames of a window.
        """
        wire = self.inputs[0].wire
        new = max(1, every // wire.stride)
        if not self.simple or every % wire.stride or wire.clean % new or wire.clean <= new:
            return None
        windows = wire.clean // new
        start = first(self.inputs[0], wire.a) if wire.a else Start()
        if any(t.wire.n - (windows - 1) * every < start.frames for t in start.entries):
            return None
        return Rolling(
            self.path, self.label, self.source, (*self.inputs[:1], *start.entries), self.wire, self.items,
            macs=self.macs, weight=self.weight, dtype=self.dtype, layer=self, new=new, windows=windows, start=start, every=every,
        )  # fmt: skip


class Schedules(Protocol):
    """A schedule, :class:`~continual.convert.graph.windows.plan.Schedule`."""

    @property
    def macs(self) -> int:
        """Multiply-adds of a window and row."""

    def run(self, m: ExecContext, frames: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The outputs of a window, and the new entries of each history."""


@dataclass(frozen=True)
class Start:
    """How the first positions of a value are computed from the first frames of a window.

    Attributes:
        schedule: computes them; ``None``: no position is different in each window.
        entries: the streams, in their order.
        frames: how many that takes.
    """

    schedule: Schedules | None = None
    entries: tuple[Task, ...] = ()
    frames: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return 0 if self.schedule is None else self.schedule.macs


@dataclass(eq=False)
class Rolling(Task):
    """Windows that have begun, the oldest first, each a few frames behind the one before.

    Attributes:
        layer: what it computes.
        new: positions that each hop brings.
        windows: how many have begun.
        start: how a window takes its first positions, those that are its own.
        every: frames from one window to the next.
    """

    layer: Recurrent = field(kw_only=True)
    new: int = 1
    windows: int = 1
    start: Start = Start()
    every: int = 1

    @property
    def reads(self) -> tuple[int, ...]:
        return self.layer.params

    @property
    def size(self) -> int:
        """Numbers of the states of a window."""
        return self.layer.layers * self.layer.width * (2 if self.layer.kind == "lstm" else 1)

    def share(self, ranges: Ranges) -> float:
        return 1.0 + (self.start.macs / self.macs if self.macs else 0.0)

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        wire = self.inputs[0].wire
        own = (Block(wire.n - wire.b - self.new, wire.n),)
        later = (self.windows - 1) * self.every  # frames from the window that ends to the one that enters
        return [own, *((Block(later, later + self.start.frames),) for _ in self.start.entries)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        x, carried = xs[0], xs[-1]
        layer, dim = self.layer, self.inputs[0].wire.dim
        weights = [m.env[slot] for slot in layer.params]
        entering = torch.zeros_like(carried[:, :1])
        if self.start.schedule is not None:
            first = self.start.schedule.run(m, xs[1:-1], [])[0][0]
            entering = self._over(first, entering[:, 0], weights)[1].unsqueeze(1)
        carried = torch.cat((carried[:, 1:], entering), 1)  # the oldest has ended, and another one begins
        count = layer.layers * (2 if layer.kind == "lstm" else 1)
        states = [s for s in carried.unflatten(2, (count, layer.width)).unbind(2)]
        each = 4 if layer.biased else 2
        for frame in x.narrow(dim, 0, self.new).unbind(dim):
            inner: Tensor = frame.unsqueeze(1)  # the same for all windows
            for i in range(layer.layers):
                inner = self._cell(inner, states, i, weights[each * i : each * (i + 1)])
        y, ends = states[layer.layers - 1][:, 0].unsqueeze(dim), [s[:, 0] for s in states]
        if self.inputs[0].wire.b:
            last = x.narrow(dim, self.new, self.inputs[0].wire.b)
            y, flat = self._over(last, torch.stack(ends, 1).flatten(1), weights)
            y, ends = y.narrow(dim, y.shape[dim] - 1, 1), list(flat.unflatten(1, (count, layer.width)).unbind(1))
        h = torch.stack(ends[: layer.layers])
        items = (y, h, torch.stack(ends[layer.layers :])) if layer.kind == "lstm" else (y, h)
        return (*items, torch.stack(states, 2).flatten(2))

    def _over(self, x: Tensor, state: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The outputs of one window at some positions, starting from its states ``(B, size)``, and its new states."""
        layer = self.layer
        count = layer.layers * (2 if layer.kind == "lstm" else 1)
        before = state.unflatten(1, (count, layer.width)).transpose(0, 1).contiguous()
        begins = [before[: layer.layers], before[layer.layers :]] if layer.kind == "lstm" else before
        run = resolve(f"aten.{layer.kind}.input")
        y, *after = run(x, begins, list(weights), layer.biased, layer.layers, 0.0, False, False, self.inputs[0].wire.dim == 1)
        return y, torch.cat(after).transpose(0, 1).flatten(1)

    def _cell(self, x: Tensor, states: list[Tensor], i: int, own: Sequence[Tensor]) -> Tensor:
        """One layer's next states, ``(B, windows, H)``."""
        kind, layers = self.layer.kind, self.layer.layers
        bias, more = (own[2], own[3]) if self.layer.biased else (None, None)
        a, b = F.linear(x, own[0], bias), F.linear(states[i], own[1], more)
        if kind == "lstm":
            entered, kept, cell, leaves = (a + b).chunk(4, -1)
            c = torch.sigmoid(kept) * states[layers + i] + torch.sigmoid(entered) * torch.tanh(cell)
            states[layers + i], states[i] = c, torch.sigmoid(leaves) * torch.tanh(c)
        elif kind == "gru":
            ra, za, na = a.chunk(3, -1)
            rb, zb, nb = b.chunk(3, -1)
            z, n = torch.sigmoid(za + zb), torch.tanh(na + torch.sigmoid(ra + rb) * nb)
            states[i] = n + z * (states[i] - n)
        else:
            states[i] = torch.tanh(a + b) if kind == "rnn_tanh" else torch.relu(a + b)
        return states[i]


@dataclass(frozen=True)
class StateLayout:
    """The layout of kept states: that of the states themselves."""

    windows: int
    size: int
    at: int = 1

    def shape(self, batch: int, count: int) -> tuple[int, ...]:
        """The shape of what is kept."""
        return (batch, self.windows, self.size)

    def put(self, x: Tensor, batch: int, count: int) -> Tensor:
        """States in the layout of the history."""
        return x

    def take(self, x: Tensor, batch: int) -> Tensor:
        """The history as states."""
        return x


@dataclass(frozen=True)
class Carry(History):
    """The states of the open windows. Each hop returns all of them."""

    windows: int = 1

    @property
    def hops(self) -> int:
        """The number of hops after which earlier frames no longer matter."""
        return self.windows

    def old(self, buffer: Tensor, hop: int) -> Tensor:
        return buffer

    def slots(self, buffer: Tensor, hop: int) -> tuple[Tensor, ...]:
        return (buffer,)

    def buffer(self, entries: Tensor, hops: int) -> Tensor:
        return entries

    def added(self, value: Any, m: ExecContext) -> Tensor:
        found: Tensor = value[-1]
        return found

    def pushed(self, kept: Tensor, x: Tensor, at: int) -> Tensor:
        return x

    @cached_property
    def layout(self) -> Any:
        return StateLayout(self.windows, self.size)


def carry_of(task: int, rolling: Rolling) -> Carry:
    """The history of a recurrent layer."""
    return Carry(task, 0, 1, 1, rolling.size, 0, rolling.wire, rolling.dtype, windows=rolling.windows)
