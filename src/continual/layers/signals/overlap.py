"""Patches of frames that are laid one behind the other, or over each other: the inverse of windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
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
from ...core.tracing_guard import is_tracing
from ...errors import ShapeMismatch


class OverlapAdd(CoModule):
    """Patches in the last dimension, added where they overlap: ``(B, C, T, *S, size)`` to ``(B, C, (T - 1)·hop + size - 2·padding, *S)``.

    Patch ``i`` lies at the frames ``hop·i … hop·i + size - 1``, as in ``F.fold`` over time. With as many frames from patch to patch as a
    patch has, this is a reshape.

    Args:
        size: frames of a patch.
        hop: frames from patch to patch, at most ``size``.
        padding: frames that are cut off at both ends.

    Raises:
        ValueError: a hop that is not in ``1 … size``, or a negative padding.

    Example:
        >>> added = co.OverlapAdd(3, hop=2)
        >>> patches = torch.ones(1, 1, 3, 3)
        >>> added(patches)
        tensor([[[1., 1., 2., 1., 2., 1., 1.]]])
        >>> added.forward_step(patches[:, :, 0]), added.forward_step(patches[:, :, 1])
        (tensor([[[1., 1.]]]), tensor([[[2., 1.]]]))
    """

    has_products = False

    def __init__(self, size: int, hop: int, padding: int = 0):
        super().__init__()
        self._set_patches(size, hop, padding)

    def _set_patches(self, size: int, hop: int, padding: int) -> None:
        """Set the geometry."""
        name = type(self).__name__
        if not 1 <= hop <= size:
            raise ValueError(f"{name}: from patch to patch there are 1 … {size} frames (the size), got {hop}")
        if padding < 0:
            raise ValueError(f"{name}: padding cuts frames off at both ends, 0 at least, got {padding}")
        self.size, self.hop, self._cut = size, hop, padding
        self._older = -(-size // hop) - 1  # earlier patches that reach into the frames of the newest one
        late = max(0, hop + padding - size)  # where the cut at the end is longer than what the last patch has alone
        self._kept = max((size - 1 + late) // hop, -(-late // hop))
        if size > hop + padding:
            self._kept = max(1, self._kept)  # the end of the stream brings frames of the last patch
        self._timing = Upsampling(hop, size, padding)

    @property
    def timing(self) -> Timing:
        return self._timing

    def patches_of(self, x: Tensor) -> Tensor:
        """What arrives, as patches."""
        return x

    def patch_of(self, frame: StepSpec, name: str) -> StepSpec:
        """Refuse a frame that the layer can't take; return it as a patch."""
        if len(frame.shape) < 3 or frame.shape[-1] != self.size:
            raise ShapeMismatch(f"{name}: takes patches (B, C, *S, {self.size}), got {tuple(frame.shape)}")
        return frame

    def forward(self, input: Tensor) -> Tensor:
        """The frames of all patches."""
        patches, count = input.shape[2], self._timing.ended(input.shape[2])
        if patches and not count:
            raise ShapeMismatch(
                f"{type(self).__name__}: a clip of {patches} steps is too short: {self._cut} frames are cut off at both ends of "
                f"{(patches - 1) * self.hop + self.size}"
            )
        return self.joined(self.patches_of(input), 0, self._cut, self._cut + count)

    def joined(self, patches: Tensor, first: int, start: int, stop: int) -> Tensor:
        """The frames ``start … stop - 1``, before the cut, of patches ``first, first + 1, …``, among them all that lie there."""
        low, high = start // self.hop, (stop - 1) // self.hop  # hops
        inside = first <= low - self._older and high < first + patches.shape[2]
        if self._older and inside and not torch.is_grad_enabled() and not is_tracing():
            own = patches.narrow(2, low - self._older - first, high - low + 1 + self._older)
            return self._summed(own).narrow(2, start - low * self.hop, stop - start)
        return self.added(patches).narrow(2, start - first * self.hop, stop - start)

    def added(self, patches: Tensor) -> Tensor:
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

    def _summed(self, patches: Tensor) -> Tensor:
        """The hops that all of their patches are there for: those of the last patches, but for the first ``older`` of them.

        Hop ``j`` is a sum over part ``p`` of patch ``j - p``: these lie one patch less one part apart.
        """
        parts, hop = self._older + 1, self.hop
        x = patches if self.size == parts * hop else F.pad(patches, (0, parts * hop - self.size))
        x = x.contiguous()
        (batch, channels, count, *space), (*outer, apart) = x.shape[:-1], x.stride()[:3]
        inner = x.stride()[3:-1]
        shape, strides = (batch, channels, count - self._older, parts, *space, hop), (*outer, apart, apart - hop, *inner, 1)
        total = x.as_strided(shape, strides, x.storage_offset() + self._older * hop).sum(3)
        return total.movedim(-1, 3).flatten(2, 3)

    # ---- kernel -----------------------------------------------------------------------------------------------------

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        patch = self.patch_of(frame, named(init.path, self))
        ring = {"patches": ring_zeros(patch, self._kept)} if self._kept else None
        return StateNode(init, self.kind, patch.resized(*patch.shape[:-1]), ring, kept_spec=patch)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        _, sent, ended = self.count(x, node, n_if_ended, updates)
        return self._outputs(x, node, sent, updates), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """One frame from patch to patch, so that one output at most leaves with each."""
        sent = node.n_out + (node.n_in >= node.delay)
        updates.tick(node, node.n_in + 1, sent)
        y = self._outputs(chunk_of_one(x), node, sent, updates)
        return None if y is None else y.squeeze(2)

    def _outputs(self, x: Tensor | None, node: StateNode, sent: int, updates: StateUpdates) -> Tensor | None:
        """Outputs ``node.n_out … sent - 1``, of the patches kept and of those that arrive."""
        seen, arrived = node.n_in, 0 if x is None else x.shape[2]
        new = None if x is None else self.patches_of(x)
        if new is not None and self._kept:
            updates.ring(node, 0, seen, new)
        if sent <= node.n_out:
            return None
        start, stop = node.n_out + self._cut, sent + self._cut
        first, last = self._patches(start, stop, seen + arrived - 1)
        first = max(0, first)
        patches = one_piece(wire_frames(node, 0, new, seen, first, last + 1))
        return self.joined(patches, first, start, stop)

    def _patches(self, start: int, stop: int, newest: int) -> tuple[int, int]:
        """The first and the last patch that frames ``start … stop - 1`` lie on, of those that have come."""
        last = min(newest, (stop - 1) // self.hop)
        return min(last, -((self.size - 1 - start) // self.hop)), last

    def program(self, ctx: KernelContext) -> Run:
        """All patches that the frames of a call lie on; patches that are none add nothing."""
        start = ctx.out_schedule.first + self._cut
        stop = start + ctx.out_schedule.frames
        first, last = self._patches(start, stop, ctx.in_schedule.first + ctx.in_schedule.frames - 1)
        past = ctx.history("patches", ctx.node.kept_spec, first - ctx.in_schedule.first)

        patches_of = self.patches_in_program(ctx)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            frames = patches_of(x)
            frames = ctx.gated(rows, frames, 0.0) if self._kept else frames
            patches = past.extend(rows, frames)[:, :, : last - first + 1]
            return self.joined_in_rows(patches, first, start, stop, ctx, rows)

        return run

    def patches_in_program(self, ctx: KernelContext) -> Callable[[Tensor], Tensor]:
        """As :meth:`patches_of`, in operations of the program's runtime."""
        return self.patches_of

    def joined_in_rows(self, patches: Tensor, first: int, start: int, stop: int, ctx: KernelContext, rows: CallRows) -> Tensor:
        """As :meth:`joined`, in a call of a program."""
        return self.joined(patches, first, start, stop)

    def extra_repr(self) -> str:
        return f"size={self.size}, hop={self.hop}" + f", padding={self._cut}" * bool(self._cut)
