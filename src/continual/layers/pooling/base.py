"""What pooling layers share: frames are pooled over space as they come, and windows of them over time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...core.module import CoModule, PaddingMode
from ...core.naming import named
from ...core.program.context import KernelContext, Run
from ...core.registry import TorchLayer
from ...core.ring_buffer import ring_zeros
from ...core.state import StateNode, StateUpdates, StepSpec
from ...errors import NotStreamable, ShapeMismatch
from ..memory_format import MANY, channels_last, unwatched
from ..window import FILLS, SlidingWindow, fill_name, padding, per_dim
from ..window_program import INSIDE, Windows
from .program import LONG, Divide, pool
from .van_herk import windows, windows_in_block

FEW_TAPS, SMALL = 2, 1 << 12  # up to so many taps, or from so many numbers on, one tap after another costs less than all at once


class _Pool(TorchLayer, SlidingWindow):
    """Base class of average and maximum pooling."""

    has_products = False
    counts_inputs = True
    dims: int
    _native_fill: str
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: bool

    def configure(self, temporal_fill: PaddingMode | str | None = None) -> None:
        """Derive the temporal geometry from the attributes of the ``torch.nn`` pooling layer."""
        if getattr(self, "return_indices", False):
            raise NotStreamable(f"{type(self).__name__}(return_indices=True): positions in the clip have no meaning in a stream")
        self.kernel_size = per_dim(self.kernel_size, self.dims, "kernel_size")
        self.stride = self.kernel_size if self.stride is None else per_dim(self.stride, self.dims, "stride")
        self.padding = per_dim(self.padding, self.dims, "padding")
        self.dilation = per_dim(getattr(self, "dilation", 1), self.dims, "dilation")
        self.temporal_fill = fill_name(temporal_fill)
        for k, p, d in zip(self.kernel_size, self.padding, self.dilation, strict=True):
            if p > ((k - 1) * d + 1) // 2:
                raise ValueError(
                    f"{type(self).__name__}: padding {self.padding} is more than half of the kernel {self.kernel_size}"
                )
        k, s, p, d = self.kernel_size[0], self.stride[0], self.padding[0], self.dilation[0]
        extent = d * (k - 1) + 1
        extra = min(p + s - 1, extent - 1) - p if self.ceil_mode else 0
        fill = self.temporal_fill or self._native_fill
        self.set_window(k, s, p, p, d, fill if p else self._native_fill, max(0, extra))
        self._native = not p or fill == self._native_fill
        self._over_space = any(
            k > 1 or s > 1 or p for k, s, p in zip(self.kernel_size[1:], self.stride[1:], self.padding[1:], strict=True)
        )
        self._last = self._over_space and self.dims == 3

    # ---- long windows: by blocks ------------------------------------------------------------------------------------

    @property
    def _by_blocks(self) -> bool:
        return self._taps > LONG and self._dilation == 1 and self._fill in FILLS

    def cold(self, kept_spec: StepSpec) -> dict[str, Tensor]:
        if not self._by_blocks:
            return super().cold(kept_spec)
        ring = ring_zeros(kept_spec, self._taps, self.fill_value, last=self._last)
        return {"blocks": ring, "prefix": ring_zeros(kept_spec, 1, self.nothing, last=self._last)[:, 0]}

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if not self._by_blocks:
            return super().advance(x, node, n_if_ended, updates)
        w, n_in = self._window, node.n_in
        n, n_out, ended = self.count(x, node, n_if_ended, updates)
        chunk = [] if x is None else [self.enter(x)]
        if updates.final:
            beyond = max(0, w.stride * (n_out - 1) - w.start + w.receptive_field - n)
            chunk += [padding(node.kept_spec, min(beyond, self._padded_end), self.fill_value)]
            chunk += [padding(node.kept_spec, beyond - self._padded_end, self.nothing)]
        frames = torch.cat(chunk, 2) if len(chunk) > 1 else chunk[0] if chunk else None
        if frames is None or frames.shape[2] == 0:
            return None, ended
        if updates.in_place and n_in % self._taps + frames.shape[2] <= self._taps:
            y = self._in_block(frames, node, updates)
        else:
            y, ring, prefix = windows(node.tensors[0], frames, n_in, self._taps, self.nothing, self.combine, self.cumulate)
            updates.put(node, 0, ring)
            updates.put(node, 1, prefix)
        if n_out <= node.n_out:
            return None, ended
        first = w.stride * node.n_out - w.start
        last = first + w.receptive_field - 1 - n_in
        y = y[:, :, last : last + w.stride * (n_out - node.n_out - 1) + 1 : w.stride]
        return self.finish(y, first, n_if_ended if updates.final else None), ended

    def _in_block(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        """The windows of a chunk that ends in the block in which it begins."""
        ring, prefix = node.tensors
        at = node.n_in % self._taps
        stop = at + x.shape[2]
        y, prefixes = windows_in_block(ring, prefix, x, at, self.combine, self.cumulate)
        updates.slots.append((prefix, prefixes[:, :, -1]))
        if stop < self._taps:
            updates.slots.append((ring[:, at:stop], x.transpose(1, 2)))
        else:
            block = torch.cat((ring[:, :at], x.transpose(1, 2)), 1) if at else x.transpose(1, 2)
            updates.slots.append((ring, self.cumulate(block, 1, True)))
        return y

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        if not self._by_blocks:
            return super().advance_step(x, node, updates)
        if node.n_in < self._taps and not self._step_is_plain():
            return cast("Tensor | None", CoModule.advance_step(self, x, node, updates))
        n_in, size = node.n_in, self._taps
        ring, old_prefix = node.tensors
        entered, at = self.enter_step(x), n_in % size
        prefix = entered if at == 0 else self.combine(old_prefix, entered)
        late = n_in - node.delay
        emits = late >= 0 and (node.stride == 1 or late % node.stride == 0)
        updates.ticks.append((node, n_in + 1, node.n_out + emits))
        updates.slots.append((old_prefix, prefix))
        if at < size - 1:
            updates.slots.append((ring[:, at], entered))
            return self._finish_step(self.combine(ring[:, at + 1], prefix)) if emits else None
        block = torch.cat((ring[:, :at], entered.unsqueeze(1)), 1)
        updates.slots.append((ring, self.cumulate(block, 1, True)))
        return self._finish_step(prefix) if emits else None

    # ---- over space -------------------------------------------------------------------------------------------------

    def over_space(self, x: Tensor) -> Tensor:
        """Pool the frames ``(N, C, *S)`` over space."""
        raise NotStreamable(f"{type(self).__name__} defines no `over_space`")

    def enter(self, x: Tensor) -> Tensor:
        if not self._over_space:
            return x
        if self._last and x.shape[2] > 1 and unwatched(x) and x[:, :, 0].numel() >= MANY:  # what is in a cache is pooled faster
            frames = [self.enter_step(frame).movedim(1, -1) for frame in x.unbind(2)]
            return torch.stack(frames, 1).movedim(-1, 1)
        together = x.movedim(2, 1).flatten(0, 1)
        return self.enter_step(together).unflatten(0, (x.shape[0], x.shape[2])).movedim(1, 2)

    def enter_step(self, x: Tensor) -> Tensor:
        if not self._over_space:
            return x
        if x.ndim == 4:  # several times faster than on planes
            x = channels_last(x)
        return self.over_space(x)

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        if len(frame.shape) != self.dims + 1:
            dims = ", ".join(["B", "C", *"HW"[3 - self.dims :]])
            raise ShapeMismatch(f"{named(path, self)}: expects steps ({dims}), got {tuple(frame.shape)}")
        try:
            return self.kept(frame)
        except RuntimeError as error:
            raise ShapeMismatch(f"{named(path, self)}: can't pool steps {tuple(frame.shape)}: {error}") from error

    def kept(self, frame: StepSpec) -> StepSpec:
        return StepSpec.of(self.enter_step(frame.zeros())) if self._over_space else frame

    # ---- over time --------------------------------------------------------------------------------------------------

    def combine(self, older: Tensor, newer: Tensor) -> Tensor:
        """The result of two neighbouring stretches of frames."""
        raise NotStreamable(f"{type(self).__name__} defines no `combine`")

    def cumulate(self, x: Tensor, dim: int, reverse: bool) -> Tensor:
        """The results of all beginnings along a dimension, or of all endings."""
        raise NotStreamable(f"{type(self).__name__} defines no `cumulate`")

    def finish(self, y: Tensor, start: int, ended: int | None) -> Tensor:
        """Complete windows, of which the first starts at frame ``start``."""
        return y

    def _finish_step(self, y: Tensor) -> Tensor:
        """The same for a window that lies inside the clip."""
        return y

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        if self._taps > FEW_TAPS and frames.numel() <= SMALL and not torch.is_grad_enabled():
            return self.finish(self.at_once(frames), start, ended)
        first, *others = self.taps(frames)
        total = functools.reduce(self.combine, others, first)
        return self.finish(total if others else total.clone(), start, ended)

    def at_once(self, frames: Tensor) -> Tensor:
        """The reduction of the frames of each window ``(B, C, n, *S)``, in one call."""
        windows = frames.unfold(2, self._window.receptive_field, self._window.stride)[..., :: self._dilation]
        return windows.amax(-1) if self.nothing < 0 else windows.sum(-1)

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        total = functools.reduce(self.combine, (*parts[1:], x), parts[0]) if parts else x
        return self._finish_step(total)

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(p[:, i] for p in pieces for i in range(p.shape[1]))

    # ---- in step programs -------------------------------------------------------------------------------------------

    def program(self, ctx: KernelContext) -> Run:
        return pool(ctx)

    def program_divisor(self, ctx: KernelContext, windows: Windows | None) -> Divide:
        """Complete the results of the windows of a call."""
        return lambda y, rows: self.finish(y, INSIDE, None)
