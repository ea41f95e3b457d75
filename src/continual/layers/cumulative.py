"""Running reductions over time: the sum, the mean and the maximum of all frames up to now.

Each output depends on all that came before, and the state is one frame: what has been reduced so far.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.module import CoModule
from ..core.naming import named
from ..core.precision import widest
from ..core.program.context import KernelContext, Run, carried, of_rows
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..core.timing import IDENTITY, Timing
from ..errors import NotStreamable, ShapeMismatch
from .norms.statistics import mean_up_to_now


class _Cumulative(CoModule):
    """Base class of running reductions. A subclass defines the type and the operation."""

    has_products = False
    unbounded_memory = True
    sums = True  # the state is a sum or a mean, in the widest type; else it is like the frames
    nothing = 0.0  # the state that changes no result
    takes = "real numbers"

    @property
    def timing(self) -> Timing:
        return IDENTITY

    def refuses(self, dtype: torch.dtype) -> bool:
        """Whether frames of a type can't be reduced."""
        return dtype.is_complex

    def __init__(self) -> None:
        super().__init__()

    def out_type(self, dtype: torch.dtype) -> torch.dtype:
        """The type of the outputs."""
        return dtype

    def reduce(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        """The reduction after every frame of a chunk ``(B, C, n, *S)``, from the reduction of the ``n_in`` frames before it."""
        raise NotStreamable(f"{type(self).__name__} defines no `reduce`")

    def reduce_step(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        """The same for one frame ``(B, C, *S)``."""
        raise NotStreamable(f"{type(self).__name__} defines no `reduce_step`")

    # ---- the kernel -------------------------------------------------------------------------------------------------

    def _cold(self, frame: StepSpec, name: str) -> Tensor:
        if self.refuses(frame.dtype):
            raise ShapeMismatch(f"{name}: takes {self.takes}, got steps {frame}")
        dtype = frame.dtype
        if self.sums:
            dtype = widest(frame.device) if dtype.is_floating_point else torch.int64
        fill: Any = self.nothing
        if not dtype.is_floating_point:
            fill = 0 if self.sums or dtype == torch.bool else torch.iinfo(dtype).min
        with torch.inference_mode(False):
            return torch.full(frame.shape, fill, dtype=dtype, device=frame.device)

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        cold = self._cold(frame, named(init.path, self))
        out = replace(frame, dtype=self.out_type(frame.dtype))
        return StateNode(init, self.kind, out, {"so_far": cold}, accumulator=self.sums)

    def forward(self, input: Tensor) -> Tensor:
        """The clip ``(B, C, T, *S)`` reduced up to each of its frames."""
        cold = self._cold(StepSpec.of_chunk(input), type(self).__name__)
        return self.reduce(input.to(cold.dtype), 0, cold).to(self.out_type(input.dtype))

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        _, _, ended = self.count(x, node, n_if_ended, updates)
        if x is None:
            return None, ended
        before = node.tensors[0]
        y = self.reduce(x.to(before.dtype), node.n_in, before)
        updates.put(node, 0, y[:, :, -1])
        return y.to(self.out_type(x.dtype)), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        before, n = node.tensors[0], node.n_in + 1
        now = self.reduce_step(x, node.n_in, before)
        updates.ticks.append((node, n, n))
        updates.slots.append((before, now))
        return now.to(self.out_type(x.dtype))

    def program(self, ctx: KernelContext) -> Run:
        """Sums, means, maxima of all frames up to now."""
        cold = ctx.node.tensors[0]
        fill = cold.flatten()[0].item() if cold.numel() else 0
        specs = [ctx.state_tensor("so_far", StepSpec.of(cold), None, fill)]

        reduce: Any = self.reduce_step  # the count of frames is a tensor here, one for each row

        def step(x: Tensor, state: list[Tensor], index: Tensor) -> tuple[Tensor, list[Tensor]]:
            now = reduce(x.to(cold.dtype), of_rows(index, x), state[0])
            return now.to(self.out_type(x.dtype)), [now]

        return lambda x, rows: carried(ctx, specs, x, rows, step)


class CumulativeSum(_Cumulative):
    """The sum of all frames up to now: ``torch.cumsum(x, 2)`` on clips ``(B, C, T, *S)``, for ever on steps ``(B, C, *S)``.

    The sum is kept in float64 (whole numbers in int64, which is also what leaves). Terms are added in the order of time, so that the sum
    of a stream is that of a clip of any length. A sum of ever more terms grows by its nature: where that is not meant,
    :class:`CumulativeMean` does not. A NaN stays until :meth:`clean_state`.

    Raises:
        ShapeMismatch: complex numbers.

    Example:
        >>> total = co.CumulativeSum()
        >>> [total.forward_step(torch.full((1, 1), float(t))).item() for t in range(4)]
        [0.0, 1.0, 3.0, 6.0]
    """

    def out_type(self, dtype: torch.dtype) -> torch.dtype:
        return dtype if dtype.is_floating_point else torch.int64

    def reduce(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return torch.cat((before.unsqueeze(2), x), 2).cumsum(2)[:, :, 1:]

    def reduce_step(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return before + x


class CumulativeMean(_Cumulative):
    """The mean of all frames up to now: ``torch.cumsum(x, 2) / (1, 2, …, T)`` on clips ``(B, C, T, *S)``.

    What is kept is the mean itself, in float64: it never grows beyond the values, and the rounding of a step fades as the next
    ones come. After ``n`` steps a new frame counts ``1/n``: a mean that should follow a change needs a window
    (:class:`AvgPool1d`). A NaN stays until :meth:`clean_state`.

    Raises:
        ShapeMismatch: numbers that are not floating point.

    Example:
        >>> mean = co.CumulativeMean()
        >>> [mean.forward_step(torch.full((1, 1), float(t))).item() for t in range(4)]
        [0.0, 0.5, 1.0, 1.5]
    """

    takes = "floating point numbers"

    def refuses(self, dtype: torch.dtype) -> bool:
        return not dtype.is_floating_point

    def reduce(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        offset, start = mean_up_to_now(x, n_in, before.unsqueeze(2), 2)
        return start + offset

    def reduce_step(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return before + (x - before) / (n_in + 1)


class CumulativeMax(_Cumulative):
    """The largest value of all frames up to now: ``torch.cummax(x, 2).values`` on clips ``(B, C, T, *S)``.

    Of equal values the newest gets the gradient, as in ``torch.cummax``. A NaN stays until :meth:`clean_state`.

    Raises:
        ShapeMismatch: complex numbers.

    Example:
        >>> peak = co.CumulativeMax()
        >>> peak.forward_steps(torch.tensor([[[1.0, 3.0, 2.0]]])), peak.forward_step(torch.tensor([[2.5]]))
        (tensor([[[1., 3., 3.]]]), tensor([[3.]]))
    """

    sums = False
    nothing = -math.inf

    def reduce(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return torch.cummax(torch.cat((before.unsqueeze(2), x), 2), 2).values[:, :, 1:]

    def reduce_step(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return torch.maximum(before, x)
