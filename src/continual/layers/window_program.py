"""The windows of a sliding-window layer in a step program."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..core.program.context import CallRows, KernelContext, frames_at, over_frames
from ..core.timing import Window

FILLS = {"zeros": 0.0, "neg_inf": -math.inf}
INSIDE = 1 << 40  # the place of a window that lies within the clip


class Windows:
    """The windows of a layer in each call: which frames they need, kept and gated.

    Args:
        ctx: where the layer stands.
        window: its window.
        like: a frame as it is kept.
        fill: what padded frames hold: a number, or ``"replicate"`` or ``"reflect"``.
        counted: padded frames at the end; those after them hold ``nothing``.
        first: the first frame that call 0's windows see; by default where the window of its first output starts.
    """

    def __init__(self, ctx: KernelContext, window: Window, like: Any, fill: float | str, counted: int, nothing: float = 0.0):
        self.ctx, self.window, self.fill, self.counted, self.nothing = ctx, window, fill, counted, nothing
        in_schedule, out_schedule = ctx.in_schedule, ctx.out_schedule
        self.mirrors = isinstance(fill, str)
        self.beyond = window.end > counted or window.short  # whether windows reach beyond the padding
        self.first = window.stride * out_schedule.first - window.start  # of call 0, an index on the input wire
        self.size = window.stride * (out_schedule.frames - 1) + window.receptive_field
        reach = window.end - window.receptive_field + 1 + (window.end if fill == "reflect" else 0)
        beyond = max(0, reach) if self.mirrors else 0  # frames before the window that are mirrored behind the end
        self.older = self.first - beyond
        if self.first + self.size > in_schedule.first + in_schedule.frames:
            raise ctx.refuse(
                "gives outputs before their inputs have come: padding beyond its window. Pad with a layer of its own before"
            )
        if self.mirrors and window.start:
            self._check_mirror()
        self.past = ctx.history("window", like, self.older - in_schedule.first, 0.0 if self.mirrors else float(fill))
        self.skipped = beyond

    def _check_mirror(self) -> None:
        """Refuse padding by frames that come later than the outputs that see them."""
        in_schedule, out_schedule, window = self.ctx.in_schedule, self.ctx.out_schedule, self.window
        moved = window.stride * out_schedule.frames  # frames from call to call
        for call in range(-self.ctx.plan.warmup_calls, max(0, -self.first) // moved + 1):
            low = max(self.first + moved * call, -window.start)
            needed = 0 if self.fill == "replicate" else -low
            emits = out_schedule.first + out_schedule.frames * (call + 1) > 0
            if low < 0 and emits and needed > in_schedule.first + in_schedule.frames * (call + 1) - 1:
                how = "repeating" if self.fill == "replicate" else "mirroring"
                raise self.ctx.refuse(
                    f"pads the start by {how} frames that come later than outputs that see them, so its first outputs come all at once. "
                    "Pad by zeros or a constant, or by the padding_mode of the layer behind"
                )

    def frames(self, rows: CallRows, x: Tensor) -> Tensor:
        """All frames of the windows, ``(B, C, size, *S)``."""
        if self.mirrors:
            return self._mirrored(rows, self.past.extend(rows, x))[:, :, : self.size]
        return self.past.extend(rows, self._gated(rows, x))[:, :, : self.size]

    def _gated(self, rows: CallRows, x: Tensor) -> Tensor:
        ctx, window, fill = self.ctx, self.window, self.fill
        differs = self.beyond and self.nothing != fill
        behind = (window.end > 0 or self.beyond) and not differs
        x = ctx.gated(rows, x, fill, start=window.start > 0, end=behind)  # type: ignore[arg-type]
        if differs and ctx.plan.flush:
            index, end = rows.index(ctx.in_schedule), rows.ended(ctx.before).unsqueeze(1)
            for limit, value in ((end, fill), (end + self.counted, self.nothing)):
                x = torch.where(over_frames(index < limit, x), x, value)  # type: ignore[arg-type]
        return x

    def _mirrored(self, rows: CallRows, frames: Tensor) -> Tensor:
        """Frames with padding that is made of those at the ends, by a gather for each row. Behind it is nothing (`ceil_mode`)."""
        ctx, low = self.ctx, self.older - self.ctx.in_schedule.first
        first_index = rows.index(ctx.in_schedule)[:, :1] + low  # the index of the first frame at hand
        index = first_index + self.skipped + torch.arange(self.size, device=first_index.device)
        last = rows.ended(ctx.before).unsqueeze(1) - 1
        if self.fill == "replicate":
            source = index.clamp(min=0).minimum(last)
        else:
            source = index.abs()
            source = torch.where(source > last, 2 * last - source, source)
        place = (source - first_index).clamp(0, frames.shape[2] - 1)
        found = frames_at(frames, place)
        if self.beyond and ctx.plan.flush:
            found = torch.where(over_frames(index <= last + self.counted, found), found, self.nothing)
        return found

    def outputs(self, rows: CallRows) -> Tensor:
        """The index of the first frame of each window, ``(B, outputs)``."""
        return rows.index(self.ctx.out_schedule) * self.window.stride - self.window.start


def windows_of(ctx: KernelContext, layer: Any) -> Windows:
    """The windows of a sliding-window layer."""
    fill = layer.fill_value if layer._fill in FILLS else layer._fill
    return Windows(ctx, layer._window, ctx.node.kept_spec, fill, layer._padded_end, layer.nothing)
