"""Patches of frames that are laid one behind the other, or over each other: the inverse of windows."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...core.kernel import chunk_of_one
from ...core.module import CoModule
from ...core.naming import named
from ...core.program.context import CallRows, KernelContext, Run
from ...core.resampling import Upsampling
from ...core.ring_buffer import one_piece, ring_zeros, wire_frames
from ...core.state import InitContext, StateNode, StateUpdates, StepSpec
from ...core.timing import Timing
from ...errors import ShapeMismatch


class OverlapAdd(CoModule):
    """Patches in the last dimension, added where they overlap: ``(B, C, T, *S, size)`` to ``(B, C, (T - 1)·hop + size, *S)``.

    Patch ``i`` lies at the frames ``hop·i … hop·i + size - 1``. With as many frames from patch to patch as a patch has, this is a reshape.

    Args:
        size: frames of a patch.
        hop: frames from patch to patch, at most ``size``.
    """

    has_products = False

    def __init__(self, size: int, hop: int):
        super().__init__()
        if not 1 <= hop <= size:
            raise ValueError(f"OverlapAdd: from patch to patch there are 1 … {size} frames (the size), got {hop}")
        self.size, self.hop = size, hop
        self._older = -(-size // hop) - 1  # earlier patches that reach into the frames of the newest one
        self._timing = Upsampling(hop, size)

    @property
    def timing(self) -> Timing:
        return self._timing

    def forward(self, input: Tensor) -> Tensor:
        """The frames of all patches."""
        return self._added(input).narrow(2, 0, self._timing.ended(input.shape[2]))

    def _added(self, patches: Tensor) -> Tensor:
        """The frames that the patches lie on, and zeros behind them: a whole number of hops."""
        if not self._older:
            return patches.movedim(-1, 3).flatten(2, 3)
        padded = F.pad(patches, (0, (self._older + 1) * self.hop - self.size))
        parts = padded.unflatten(-1, (-1, self.hop)).movedim((-2, -1), (0, 4))  # (parts, B, C, n, hop, *S)
        behind = (0, 0) * (parts.ndim - 4)
        total: Tensor = F.pad(parts[0], (*behind, 0, self._older))
        for i in range(1, self._older + 1):
            total = total + F.pad(parts[i], (*behind, i, self._older - i))
        return total.flatten(2, 3)

    # ---- kernel -----------------------------------------------------------------------------------------------------

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        if len(frame.shape) < 3 or frame.shape[-1] != self.size:
            raise ShapeMismatch(f"{named(init.path, self)}: takes patches (B, C, *S, {self.size}), got {tuple(frame.shape)}")
        out = frame.resized(*frame.shape[:-1])
        ring = {"patches": ring_zeros(frame, self._older)} if self._older else None
        return StateNode(init, self.kind, out, ring, kept_spec=frame)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        _, sent, ended = self.count(x, node, n_if_ended, updates)
        return self._outputs(x, node, sent, updates), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """One frame from patch to patch, so that one output leaves with each."""
        sent = node.n_out + 1
        updates.tick(node, node.n_in + 1, sent)
        y = self._outputs(chunk_of_one(x), node, sent, updates)
        return None if y is None else y.squeeze(2)

    def _outputs(self, x: Tensor | None, node: StateNode, sent: int, updates: StateUpdates) -> Tensor | None:
        """Outputs ``node.n_out … sent - 1``, of the patches kept and of those that arrive."""
        start, seen, arrived = node.n_out, node.n_in, 0 if x is None else x.shape[2]
        if x is not None and self._older:
            updates.ring(node, 0, seen, x)
        if sent <= start:
            return None
        first, last = self._patches(start, sent, seen + arrived - 1)
        patches = one_piece(wire_frames(node, 0, x, seen, max(0, first), last + 1))
        return self._added(patches).narrow(2, start - max(0, first) * self.hop, sent - start)

    def _patches(self, start: int, stop: int, newest: int) -> tuple[int, int]:
        """The first and the last patch that frames ``start … stop - 1`` lie on, of those that have come."""
        last = min(newest, (stop - 1) // self.hop)
        return min(last, -((self.size - 1 - start) // self.hop)), last

    def program(self, ctx: KernelContext) -> Run:
        """All patches that the frames of a call lie on; patches that are none add nothing."""
        start, count = ctx.out_schedule.first, ctx.out_schedule.frames
        first, last = self._patches(start, start + count, ctx.in_schedule.first + ctx.in_schedule.frames - 1)
        past = ctx.history("patches", ctx.node.kept_spec, first - ctx.in_schedule.first)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            given = ctx.gated(rows, x, 0.0) if self._older else x
            patches = past.extend(rows, given)[:, :, : last - first + 1]
            return self._added(patches).narrow(2, start - first * self.hop, count)

        return run

    def extra_repr(self) -> str:
        return f"size={self.size}, hop={self.hop}"
