"""What the backends of runtimes share: step programs on the CPU, without a C++ compiler.

A call takes over the state: the runtime writes the new state into spare tensors and returns these, and the old tensors become the spare
ones. So only the chunk and the outputs are copied, and a call that fails leaves the state unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...core.state import Wire
from ...errors import ExportError, StateMismatch
from ..layouts import flat, nested
from ..planning import Planned
from .base import exported

Bind = Callable[[list[Tensor], list[Tensor]], Callable[[], Any]]  # from bound inputs and outputs to a call
BINDINGS = 16  # bindings of pairs of old and new states in the cache


class _Flat(nn.Module):
    """A program as a function of a flat list: ``x …, calls, end, [active], state … → valid, y …, new state …``."""

    def __init__(self, planned: Planned, x: Wire, masked: bool):
        super().__init__()
        self.planned, self.masked = planned, masked
        self.leaves, self.spec = pytree.tree_flatten(x)

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        count = len(self.leaves)
        x = pytree.tree_unflatten(tensors[:count], self.spec)
        calls, end, *rest = tensors[count:]
        active = rest.pop(0) if self.masked else None
        y, valid, new_state = self.planned.call(x, calls, end, active, rest, (end < 0, self.planned.plan.far))
        return [valid, *flat(y), *new_state]


class Runtime:
    """A :data:`~continual.programs.backends.base.CompiledCall` in a runtime that binds tensors by their addresses.

    Args:
        planned: the program.
        example: the arguments of a call.
        open: opens an exported program in the runtime, and returns a function that binds its tensors.
    """

    def __init__(
        self,
        planned: Planned,
        example: tuple[Any, ...],
        open: Callable[[torch.export.ExportedProgram], Bind],
    ):
        x, clock, _, active, state = example
        self._name, self._plan = type(planned.net).__name__, planned.plan
        own = [*flat(x), clock, clock, *([] if active is None else [active])]
        self._inputs = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in own]
        module = _Flat(planned, x, active is not None)
        tensors = (*self._inputs, *state)
        with torch.no_grad():
            valid, *rest = module(*tensors)
        y = rest[: len(rest) - len(state)]
        self._out = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (valid, *y)]
        self._spare = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in state]
        self._out_frames = planned.node.out
        self._bind = open(exported(planned, tensors, module))
        self._bound: dict[tuple[int, ...], Callable[[], Any]] = {}

    def __call__(self, x: Wire, clock: Tensor, end: Tensor, active: Tensor | None, state: list[Tensor]) -> Any:
        plan = self._plan
        if state and state[0] is self._spare[0]:
            raise StateMismatch(
                f"program of {self._name}: this state was handed over to the previous call, and its tensors are in use: continue with "
                "the state that the call returned"
            )
        with torch.no_grad():
            calls = clock - plan.start
            calls = calls.div_(plan.chunk, rounding_mode="floor") if plan.chunk > 1 else calls
            ends = torch.where(end >= plan.far, -1, end)  # negative: the stream goes on
            for own, t in zip(self._inputs, [*flat(x), calls, ends, *([] if active is None else [active])], strict=True):
                own.copy_(t)
            state = [t.contiguous() for t in state]
            self._call(state)
            new_state, self._spare = self._spare, state
            valid, *y = [t.clone() for t in self._out]
            later = clock + plan.chunk
            later = later if active is None else torch.where(active, later, clock)
        return nested(self._out_frames, iter(y)), valid, later, new_state

    def _call(self, state: list[Tensor]) -> None:
        where = tuple(t.data_ptr() for t in (*state, *self._spare))
        run = self._bound.get(where)
        if run is None:
            if len(self._bound) == BINDINGS:
                self._bound.clear()
            run = self._bound[where] = self._bind([*self._inputs, *state], [*self._out, *self._spare])
        run()


def check_runtime(backend: str, example: tuple[Any, ...]) -> None:
    """Check that a runtime has tensors for a program.

    Raises:
        ExportError: the network is on another device, or in bfloat16.
    """
    x, clock, _, _, state = example
    if clock.device.type != "cpu":
        raise ExportError(f"co.compile: backend {backend!r} runs on the CPU, this network is on {clock.device}")
    if any(t.dtype == torch.bfloat16 for t in (*flat(x), *state)):
        raise ExportError(f"co.compile: backend {backend!r} has no bfloat16 on the CPU. Take 'aot' or 'inductor', or float32")
