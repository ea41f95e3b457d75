"""Recurrent layers whose last state alone is asked for: all windows that have begun go on together, as rows of one batch.

A recurrent layer begins with the window, so that windows share none of its states. But each frame is projected once for all of them, and
one product of matrices moves them on, where a window by itself reads the weights once for each of its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..instructions import ExecContext
from .kept import History
from .tasks import Block, Local, Task, Value
from .wire import Ranges

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(eq=False)
class Recurrent(Local):
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

    def rolled(self, every: int) -> Rolling | None:
        """The same for windows that go on together, where that is possible."""
        wire = self.inputs[0].wire
        new = max(1, every // wire.stride)
        if not self.simple or wire.a or wire.b or every % wire.stride or wire.n % new or wire.n <= new:
            return None
        return Rolling(
            self.path, self.label, self.source, self.inputs[:1], self.wire, self.items, macs=self.macs, weight=self.weight,
            dtype=self.dtype, layer=self, new=new, windows=wire.n // new,
        )  # fmt: skip


@dataclass(eq=False)
class Rolling(Task):
    """Windows that have begun, the oldest first, each a few frames behind the one before.

    Attributes:
        layer: what it computes.
        new: positions that each hop brings.
        windows: how many have begun.
    """

    layer: Recurrent = field(kw_only=True)
    new: int = 1
    windows: int = 1

    @property
    def reads(self) -> tuple[int, ...]:
        return self.layer.params

    @property
    def size(self) -> int:
        """Numbers of the states of a window."""
        return self.layer.layers * self.layer.width * (2 if self.layer.kind == "lstm" else 1)

    def share(self, ranges: Ranges) -> float:
        return 1.0

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        n = self.inputs[0].wire.n
        return [(Block(n - self.new, n),)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        x, held = xs[0], xs[1]
        layer, dim = self.layer, self.inputs[0].wire.dim
        held = torch.cat((held[:, 1:], torch.zeros_like(held[:, :1])), 1)  # the oldest has ended, and another one begins
        count = layer.layers * (2 if layer.kind == "lstm" else 1)
        states = [s for s in held.unflatten(2, (count, layer.width)).unbind(2)]
        weights = [m.env[slot] for slot in layer.params]
        each = 4 if layer.biased else 2
        for frame in x.unbind(dim):
            given: Tensor = frame.unsqueeze(1)  # the same for all windows
            for i in range(layer.layers):
                given = self._cell(given, states, i, weights[each * i : each * (i + 1)])
        y = states[layer.layers - 1][:, 0].unsqueeze(dim)
        ends = [s[:, 0] for s in states]
        h = torch.stack(ends[: layer.layers])
        items = (y, h, torch.stack(ends[layer.layers :])) if layer.kind == "lstm" else (y, h)
        return (*items, torch.stack(states, 2).flatten(2))

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
class Whole:
    """How states are kept: as they are."""

    windows: int
    size: int
    at: int = 1

    def shape(self, batch: int, count: int) -> tuple[int, ...]:
        """The shape of what is kept."""
        return (batch, self.windows, self.size)

    def put(self, x: Tensor, batch: int, count: int) -> Tensor:
        """States as they are kept."""
        return x

    def take(self, x: Tensor, batch: int) -> Tensor:
        """What is kept as states."""
        return x


@dataclass(frozen=True)
class Carry(History):
    """The states of windows that have begun: each hop gives all of them anew."""

    windows: int = 1

    @property
    def hops(self) -> int:
        """After how many hops what came before has left."""
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
    def shelf(self) -> Any:
        return Whole(self.windows, self.size)


def carry_of(task: int, rolling: Rolling) -> Carry:
    """What is kept of a recurrent layer."""
    return Carry(task, 0, 1, 1, rolling.size, 0, rolling.wire, rolling.dtype, windows=rolling.windows)
