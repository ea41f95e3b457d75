"""A loop as a layer: one recurrence, whose step is a list of operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ....core.kernel import counted_macs
from ....core.state import StateNode, StateUpdates, StepSpec, frames, rewire
from ....errors import ShapeMismatch
from ....layers.recurrence import Recurrence, States, leaving
from .cell import Cell
from .layout import Layout


@dataclass(frozen=True)
class Seed:
    """The initial value of a state.

    Attributes:
        layout: of the state.
        dtype: of the state.
        fill: the value of all its elements; ``None``: a tensor of the loop.
        index: which one of the tensors of the loop.
        follows: whether its type is that of the frames.
    """

    layout: Layout
    dtype: torch.dtype
    fill: float | None = None
    index: int = -1
    follows: bool = False


@dataclass(eq=False)
class Loop:
    """A loop over frames.

    Attributes:
        body: what an iteration computes.
        prologue: what the first iterations compute, where that is something else. Each has the inputs and outputs of the body.
        seeds: the initial values of the states.
        same: how many tensors are the same for all iterations. They come before the initial values among the tensors of the loop.
        rate: rows for each entry of the batch.
    """

    body: Cell
    prologue: tuple[Cell, ...]
    seeds: tuple[Seed, ...]
    same: int
    rate: int = 1


class LoopLayer(Recurrence):
    """A loop over frames as one recurrence.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: Loop):
        super().__init__()
        self.loop = loop
        self._names = tuple(f"state{i}" for i in range(len(loop.seeds)))
        seeds = sum(seed.fill is None for seed in loop.seeds)
        for i in range(loop.same + seeds):  # bound by the program
            self.register_parameter(f"given{i}", None)

    @property
    def kind(self) -> str:
        return f"Loop of {len(self.loop.body.ops)} operations"

    def initial_state(self, x: Any) -> States:
        """The initial values: zeros, or those of the module.

        Args:
            x: a step of each stream.
        """
        first = x[0] if isinstance(x, list) else x
        rows, parameters, found = first.shape[0], list(self._parameters.values()), States()
        for name, seed in zip(self._names, self.loop.seeds, strict=True):
            if seed.fill is None:
                own = seed.layout.rows_first(parameters[seed.index], rows // self.loop.rate, self.loop.rate)  # type: ignore[arg-type]
            else:
                dtype = first.dtype if seed.follows else seed.dtype
                own = torch.full((rows, *seed.layout.row_shape(self.loop.rate)), seed.fill, dtype=dtype, device=first.device)
            found[name] = own
        return found

    def _initial(self, frame: Any, name: str) -> States:
        """The states. They are computed from the shape of a frame, and from no values of frames."""
        first = frames(frame)[0]
        if first.shape[0] % self.loop.rate:
            raise ShapeMismatch(f"{name}: takes {self.loop.rate} rows for each of the batch, got {first.shape[0]}")
        return self.initial_state(rewire(StepSpec.zeros, frame))

    def _recur_at(self, x: Any, state: States, index: int | Tensor) -> tuple[Any, States]:
        y, new = self._iteration(x, state.values(), index)
        return y, dict(zip(self._names, new, strict=True))

    def _iteration(self, x: Any, state: Iterable[Tensor], index: int | Tensor) -> tuple[Any, list[Tensor]]:
        """Run iteration ``index``, an integer or one for each row. Returns the outputs and the new states."""
        loop, steps = self.loop, x if isinstance(x, list) else [x]
        inputs = [*steps, *state, *list(self._parameters.values())[: loop.same]]
        batch, device = steps[0].shape[0], steps[0].device
        batch = batch if loop.rate == 1 else batch // loop.rate
        if isinstance(index, int):
            outs, new = (loop.prologue[index] if index < len(loop.prologue) else loop.body)(inputs, batch, device)
        else:
            outs, new = loop.body(inputs, batch, device)
            for t, cell in enumerate(loop.prologue):
                first = cell(inputs, batch, device)
                outs, new = _chosen(index == t, first[0], outs), _chosen(index == t, first[1], new)
        return (outs if len(outs) > 1 else outs[0]), new

    def advance_step(self, x: Any, node: StateNode, updates: StateUpdates) -> Any:
        """One iteration. Shapes are those that were checked when the stream was opened."""
        return leaving(node, *self._iteration(x, node.tensors, node.n_in), updates)

    def blank(self, x: Tensor) -> States:
        """States of zeros, for a step."""
        unit, rows = self.loop.rate, x.shape[0]
        shapes = [(rows, *seed.layout.row_shape(unit)) for seed in self.loop.seeds]
        kinds = zip(self._names, shapes, self.loop.seeds, strict=True)
        return {name: torch.zeros(shape, dtype=seed.dtype, device=x.device) for name, shape, seed in kinds}

    def results(self, x: list[Tensor], state: States) -> list[Tensor]:
        """All results of each of the first steps, and of a step of a long stream."""
        found = list[Tensor]()
        for index in range(len(self.loop.prologue) + 1):
            y, new = self._recur_at(x, state, index)
            found += [*(y if isinstance(y, list) else [y]), *new.values()]
        return found

    def _chunk_from(self, x: Any, state: States, first: int) -> tuple[Any, States]:
        if first == 0 and torch.is_grad_enabled():  # gradients reach what the states begin with
            state = self.initial_state(x[0].select(2, 0) if isinstance(x, list) else x.select(2, 0))
        loop, streams, values = self.loop, x if isinstance(x, list) else [x], list(state.values())
        same: list[Any] = list(self._parameters.values())[: loop.same]
        batch, device, found = streams[0].shape[0] // loop.rate, streams[0].device, list[list[Tensor]]()
        for t, steps in enumerate(zip(*(s.unbind(2) for s in streams), strict=True), first):
            cell = loop.prologue[t] if t < len(loop.prologue) else loop.body
            outs, values = cell([*steps, *values, *same], batch, device)
            found.append(outs)
        y = [torch.stack(parts, 2) for parts in zip(*found, strict=True)]
        return (y if len(y) > 1 else y[0]), dict(zip(self._names, values, strict=True))

    def macs(self, x: Any) -> int | Fraction:
        """Multiply-adds for one row of a step ``x``."""
        step = rewire(StepSpec.of, x)
        state, index = self._initial(step, ""), len(self.loop.prologue)
        return Fraction(counted_macs(lambda: self._recur_at(x, state, index)), frames(step)[0].shape[0])


def _chosen(here: Tensor, first: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """The first value in some rows, the second in the others."""
    return [torch.where(here.view(-1, *(1,) * (b.ndim - 1)), a, b) for a, b in zip(first, others, strict=True)]
