"""`SlidingWindowCmn`: subtract the mean of the frames around, and divide by their deviation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.inputs import time_second
from ...core.module import CoModule
from ...core.naming import named
from ...core.precision import widest
from ...core.program.context import CallRows, KernelContext, Run
from ...core.registry import register_by_name
from ...core.state import StepSpec
from ...errors import NotStreamable, ShapeMismatch
from ..norms.statistics import over_last
from ..window import SlidingWindow
from ..window_program import windows_of


class SlidingWindowCmn(SlidingWindow):
    """Mean (and variance) normalisation over a sliding window, as ``torchaudio.transforms.SlidingWindowCmn``: ``(B, C, T, *S)``.

    Each channel and place apart. With ``center=False`` a frame is normalised over itself and the ``cmn_window`` frames before it, and the
    first ones over ``min_cmn_window`` frames. They come all at once, with the last of these. With ``center=True`` the window lies around
    the frame, and is moved inside where it would reach beyond an end. Sums are float64.

    Args:
        cmn_window, min_cmn_window, center, norm_vars: as in torchaudio, whose defaults they have. ``min_cmn_window=1`` gives every frame at
            once, also in step programs. Where a window holds one value, ``norm_vars`` gives 0.

    Raises:
        ValueError: windows below 1, or a ``min_cmn_window`` above ``cmn_window``.
        ShapeMismatch: numbers that are not floating point.

    Example:
        >>> norm = co.SlidingWindowCmn(2, min_cmn_window=1)
        >>> norm(torch.tensor([[[1.0, 3.0, 2.0, 7.0]]])), norm.delay
        (tensor([[[0., 1., 0., 3.]]]), 0)
        >>> co.SlidingWindowCmn(600, center=True).delay
        599
    """

    has_products = False

    def __init__(self, cmn_window: int = 600, min_cmn_window: int = 100, center: bool = False, norm_vars: bool = False):
        super().__init__()
        if cmn_window < 1 or not min_cmn_window >= 1:
            raise ValueError(f"SlidingWindowCmn: windows have at least one frame, got {cmn_window} and {min_cmn_window}")
        if not center and min_cmn_window > cmn_window + 1:
            raise ValueError(f"SlidingWindowCmn: min_cmn_window is at most cmn_window + 1, got {min_cmn_window} and {cmn_window}")
        self.cmn_window, self.min_cmn_window, self.center, self.norm_vars = (
            cmn_window,
            min_cmn_window,
            bool(center),
            bool(norm_vars),
        )
        size = cmn_window if center else cmn_window + 1
        ahead = size - 1 - size // 2 if center else 0  # frames of a window after its own
        self.set_window(size + ahead, 1, size - 1, ahead)  # windows at the end reach further back, if they lie around
        self._size, self._ahead, self._low = size, ahead, (size if center else min_cmn_window) - 1
        self._window = replace(self._window, wait=self._low + 1 if self._low else 0)

    def forward(self, input: Tensor) -> Tensor:
        """The frames of a clip, each less the mean of its window."""
        dim = self.time_dim
        return self.windows_of(input) if dim == 2 else self.windows_of(time_second(input, dim)).movedim(2, dim)

    def _step_is_plain(self) -> bool:
        return False

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        if not frame.dtype.is_floating_point:
            raise ShapeMismatch(f"{named(path, self)}: takes numbers in floating point, got steps of {frame.dtype}")
        return frame

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        count = frames.shape[2] - self._taps + 1
        own = self._window.start + start - max(0, start)  # the place of the first output's own frame
        stop = frames.shape[2] + min(0, start) if ended is None else ended - max(0, start)
        real = frames[:, :, max(0, -start) : max(0, -start) + stop]
        wide = real.to(widest(real.device)).movedim(2, -1)
        mean, variance = over_last(wide, torch.zeros_like(wide), self._size)
        place = torch.arange(own, own + count, device=frames.device)
        last = (place + self._ahead).clamp(self._low - max(0, start), stop - 1)
        place, last = place.clamp(max=stop - 1), last.clamp(max=stop - 1)
        y = wide.index_select(-1, place) - mean.index_select(-1, last)
        if self.norm_vars:
            y = _scaled(y, variance.index_select(-1, last))
        return y.movedim(-1, 2).to(frames.dtype)

    def program(self, ctx: KernelContext) -> Run:
        if self._low:
            raise ctx.refuse(
                f"normalises its first frames over {self._low + 1} frames, so they come all at once. Each call of a program has the "
                "same number of outputs: min_cmn_window=1 and center=False (another function of the first frames)"
            )
        windows, outputs = windows_of(ctx, self), ctx.out_schedule.frames

        def run(x: Tensor, rows: CallRows) -> Tensor:
            frames = windows.frames(rows, x)
            wide, size = frames.to(widest(frames.device)).movedim(2, -1), self._taps
            wide = torch.stack([wide[..., i : i + size] for i in range(outputs)], -2)  # (B, C, *S, n, W)
            index = windows.outputs(rows).unsqueeze(2) + torch.arange(self._taps, device=x.device)
            inside = (index >= 0).view(index.shape[0], *(1,) * (wide.ndim - 3), *index.shape[1:])
            number = inside.sum(-1)
            mean = torch.where(inside, wide, 0.0).sum(-1) / number.clamp(min=1)
            y = wide[..., -1] - mean
            if self.norm_vars:
                apart = torch.where(inside, wide - mean.unsqueeze(-1), 0.0)
                y = _scaled(y, apart.square().sum(-1) / number.clamp(min=1))
            return y.movedim(-1, 2).to(frames.dtype)

        return run

    def extra_repr(self) -> str:
        parts = [f"{self.cmn_window}"] + [f"min_cmn_window={self.min_cmn_window}"] * (not self.center)
        return ", ".join(parts + ["center=True"] * self.center + ["norm_vars=True"] * self.norm_vars)


def _scaled(y: Tensor, variance: Tensor) -> Tensor:
    """Values by their deviation; 0 where they do not vary."""
    varies = variance > 0
    return torch.where(varies | variance.isnan(), y * torch.where(varies, variance, 1.0).rsqrt(), 0.0)


def _fits(module: Any) -> bool:
    """Whether a module's first frames are normalised over no more frames than the others."""
    return bool(module.center) or module.min_cmn_window <= module.cmn_window + 1


def _build(module: Any, memo: dict[int, Any], path: str) -> CoModule:
    if not _fits(module):
        raise NotStreamable(
            f"{named(path, module)}: normalises the first {module.min_cmn_window} frames over more frames than its window of "
            f"{module.cmn_window} holds. Remedy: min_cmn_window={module.cmn_window} at most (another function of the first frames)"
        )
    made = SlidingWindowCmn(module.cmn_window, module.min_cmn_window, module.center, module.norm_vars)
    made._set_time_dim(-2)  # (…, T, F)
    return made.train(module.training)


# A loop over frames, which adds one to the sums of a window and takes one away: the layer gives the same.
register_by_name("torchaudio.transforms._transforms.SlidingWindowCmn", _build, _fits)
