"""`Delay`, and the queue of frames that it and the parallel containers use."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.module import CoModule, PaddingMode
from ..core.program.context import KernelContext, Run
from ..core.ring_buffer import match_memory_format, ring_zeros, wire_frames
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..core.timing import Crop, Timing, Window
from ..errors import ShapeMismatch
from .window import FILLS, fill_name


def queued(node: StateNode, index: int, x: Tensor | None, have: int, first: int, stop: int) -> Tensor:
    """Frames ``first … stop - 1`` of a wire whose frames before ``have`` wait in a ring and whose next ones are ``x``.

    Always a tensor of its own, since the ring's slots are overwritten.
    """
    return torch.cat(wire_frames(node, index, x, have, first, stop), 2)


class Shift(CoModule):
    """Base class of modules that pass frames on later, or not all of them. Output ``j`` is input ``j + first``."""

    has_products = False
    first = 0

    def depth(self) -> int:
        """How many frames wait at most."""
        timing = self.timing
        return timing.last if isinstance(timing, Crop) else timing.receptive_field - 1

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        depth = self.depth()
        ring = {"frames": ring_zeros(frame, depth)} if depth else None
        return StateNode(init, self.kind, frame, ring)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        n_in = node.n_in
        _, n_out, ended = self.count(x, node, n_if_ended, updates)
        if x is not None and node.tensors:
            match_memory_format(node, [x])
            updates.ring(node, 0, n_in, x)
        if n_out <= node.n_out:  # fewer: a frame has left that the clip would not have if it ended now
            return None, ended
        first, stop = node.n_out + self.first, n_out + self.first
        if not node.tensors and x is not None:
            return x[:, :, first - n_in : stop - n_in], ended
        return queued(node, 0, x, n_in, first, stop), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        n_in = node.n_in
        emits = n_in >= node.delay
        updates.ticks.append((node, n_in + 1, node.n_out + emits))
        if not node.tensors:
            return x if emits else None
        match_memory_format(node, [x])
        ring = node.tensors[0]
        size = ring.shape[1]
        slot = ring[:, n_in % size]
        updates.slots.append((slot, x))
        if not emits:
            return None
        wanted = node.n_out + self.first
        return x if wanted == n_in else ring[:, wanted % size].clone()

    def program(self, ctx: KernelContext) -> Run:
        """Delays and cuts."""
        line = ctx.delay_line("frames", ctx.node.out, ctx.out_schedule.first + self.first - ctx.in_schedule.first)
        return lambda x, rows: line.delayed(rows, x, ctx.out_schedule.frames)


class Delay(Shift):
    """Pass on every frame ``delay`` steps later. On clips it is the identity, since each output still belongs to its input.

    Args:
        delay: in steps.
        temporal_fill: what :meth:`warm_up` feeds: ``"zeros"`` (also for ``None``), ``"neg_inf"``, ``"replicate"`` (as zeros).
        auto_shrink: cut frames from the clip instead, as a convolution without padding does: ``True`` or ``"centered"`` cuts
            ``delay`` at both ends, ``"lagging"`` cuts ``delay`` at the end.

    Example:
        >>> delay = co.Delay(2)
        >>> [delay.forward_step(torch.full((1, 1), float(t))) for t in range(4)]
        [None, None, tensor([[0.]]), tensor([[1.]])]
    """

    def __init__(self, delay: int, temporal_fill: PaddingMode | str | None = None, auto_shrink: bool | str = False):
        super().__init__()
        if int(delay) < 0:
            raise ValueError(f"Delay takes a number of steps from 0 up, got {delay}")
        if auto_shrink not in (False, True, "centered", "lagging"):
            raise ValueError(f"Delay: auto_shrink is False, True, 'centered' or 'lagging', not {auto_shrink!r}")
        self.waits, self.temporal_fill = int(delay), fill_name(temporal_fill)
        self.auto_shrink = "centered" if auto_shrink is True else auto_shrink
        if self.auto_shrink == "centered":
            self.first = self.waits

    @property
    def timing(self) -> Timing:
        if self.auto_shrink:
            return Crop(self.first, self.waits)
        return Window(self.waits + 1, end=self.waits)

    def forward(self, input: Tensor) -> Tensor:
        """The clip itself, or what ``auto_shrink`` leaves of it."""
        return _cropped(self, input, self.first, self.waits) if self.auto_shrink else input

    def dummy_value(self) -> float:
        return FILLS.get(self.temporal_fill or "zeros", 0.0)

    def extra_repr(self) -> str:
        fill = self.temporal_fill or "zeros"
        shrink = {False: "", "centered": ", auto_shrink=True"}.get(self.auto_shrink, f", auto_shrink={self.auto_shrink!r}")
        return f"{self.waits}" + (f", temporal_fill={fill!r}" if fill != "zeros" else "") + shrink


class Trim(Shift):
    """Cut ``first`` frames at the start and ``last`` at the end of every clip.

    Example:
        >>> co.Trim(1, 2)(torch.arange(6.0).view(1, 1, 6))
        tensor([[[1., 2., 3.]]])
    """

    def __init__(self, first: int = 0, last: int = 0):
        super().__init__()
        if min(first, last) < 0:
            raise ValueError(f"{type(self).__name__} cuts 0 frames or more, got {first} and {last}")
        self.first, self.last = first, last

    @property
    def timing(self) -> Timing:
        return Crop(self.first, self.last)

    def forward(self, input: Tensor) -> Tensor:
        """The clip without its first and last frames."""
        return _cropped(self, input, self.first, self.last)

    def extra_repr(self) -> str:
        return f"first={self.first}, last={self.last}"


def _cropped(module: CoModule, x: Tensor, first: int, last: int) -> Tensor:
    if x.shape[2] <= first + last:
        raise ShapeMismatch(f"{type(module).__name__} cuts {first} + {last} frames, but the clip has {x.shape[2]}")
    cropped: Tensor = x[:, :, first : x.shape[2] - last]
    return cropped
