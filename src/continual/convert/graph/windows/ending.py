"""Bidirectional recurrent layers of which only one end is needed: there, one of the directions has taken a single step.

``layer(x)[0][:, -1]`` is the last state of the forward direction, and the first state of the backward direction, which has read the
last frame alone. So the top layer runs over the window in one direction; the layers below it run in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..exec_context import ExecContext
from ..instructions import resolve
from .rolling import Recurrent
from .tasks import Block, Task, Value
from .wire import Ranges


@dataclass(eq=False)
class Ending(Task):
    """The output of a bidirectional recurrent layer, at one end of the window.

    Attributes:
        layer: what it computes.
        last: whether that is the last position, or the first.
    """

    layer: Recurrent = field(kw_only=True)
    last: bool = True

    @property
    def reads(self) -> tuple[int, ...]:
        return self.layer.params

    def share(self, ranges: Ranges) -> float:
        sizes = self.layer.sizes
        each, n = len(sizes) // (2 * self.layer.layers), self.wire.n
        once, upper = sum(sizes[-each:]), sum(sizes[-2 * each :])  # one direction of the top layer, and both
        return (sum(sizes) - upper + once + once / n) / sum(sizes)

    def reach(self, ranges: Ranges) -> list[tuple[Block, ...]]:
        return [(Block(0, self.inputs[0].wire.n),)]

    def run(self, m: ExecContext, ranges: Ranges, xs: Sequence[Value]) -> Value:
        layer, x = self.layer, xs[0]
        each = 4 if layer.biased else 2
        weights = [m.env[slot] for slot in layer.params]
        if layer.layers > 1:
            x = self._run(x, weights[: -2 * each], layer.layers - 1, both=True)
        forwards, backwards = weights[-2 * each : -each], weights[-each:]
        dim, n = self.inputs[0].wire.dim, x.shape[self.inputs[0].wire.dim]
        at = n - 1 if self.last else 0
        own = x.narrow(dim, at, 1)
        if self.last:
            one, other = self._run(x, forwards, 1).narrow(dim, at, 1), self._run(own, backwards, 1)
        else:
            one, other = self._run(own, forwards, 1), self._run(x.flip(dim), backwards, 1).narrow(dim, n - 1, 1)
        return (torch.cat((one, other), -1),)

    def _run(self, x: Tensor, weights: Sequence[Tensor], layers: int, both: bool = False) -> Tensor:
        """The outputs of some layers, from zeros on."""
        layer, dim = self.layer, self.inputs[0].wire.dim
        zeros = x.new_zeros(layers * (2 if both else 1), x.shape[1 - dim], layer.width)
        begins = [zeros, zeros] if layer.kind == "lstm" else zeros
        run = resolve(f"aten.{layer.kind}.input")
        found: Tensor = run(x, begins, list(weights), layer.biased, layers, 0.0, False, both, dim == 1)[0]
        return found


def ended(task: Recurrent, asked: Ranges) -> Ending | None:
    """A recurrent layer at the end that is needed, if that costs less than the whole layer."""
    n = task.wire.n
    if not task.both or asked not in (((0, 1),), ((n - 1, n),)) or n < 2:
        return None
    return Ending(
        task.path, task.label, task.source, task.inputs[:1], task.wire, task.items, macs=task.macs, weight=task.weight, dtype=task.dtype,
        layer=task, last=asked[0][0] > 0,
    )  # fmt: skip
