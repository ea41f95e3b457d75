"""Layers that only converted networks need: operations of torch over time that are not modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...core.module import CoModule
from ...core.program.context import CallRows, KernelContext, Run, frames_at, over_frames
from ...core.state import StateNode, StateUpdates, StepSpec
from ...core.timing import Window
from ...errors import NotStreamable
from ...layers.cumulative import _Cumulative
from ...layers.native import product
from ...layers.window import SlidingWindow
from ...layers.window_program import Windows, windows_of
from .instructions import resolve


class Subsample(SlidingWindow):
    """Every ``stride``-th frame: ``x[:, :, ::stride]``."""

    has_products = False

    def __init__(self, stride: int):
        super().__init__()
        self.set_window(1, stride, 0, 0, 1, "zeros")

    def forward(self, input: Tensor) -> Tensor:
        """The frames that remain."""
        return self.windows_of(input)

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        return frame

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        return frames[:, :, :: self._window.stride].clone()

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        return x


class Windowed(SlidingWindow):
    """A function of sliding windows, computed from scratch for each.

    Args:
        size: frames in a window, ``L``.
        stride: inputs per output.
        trailing: windows begin before the first frame, and hold the frames that exist; there is no delay.
    """

    has_products = False

    def __init__(self, size: int, stride: int = 1, trailing: bool = False):
        super().__init__()
        self.size, self.trailing = size, trailing
        self.set_window(size, stride, size - 1 if trailing else 0, 0, 1, "zeros")

    def forward(self, input: Tensor) -> Tensor:
        """The function of all windows of the clip."""
        return self.windows_of(input)

    def of_windows(self, windows: Tensor, present: Tensor | None) -> Tensor:
        """The function: ``(B, C, n, *S, L) → (B, C', n, *S')``. ``present``: the number of frames in each window, where not ``L``."""
        raise NotStreamable(f"{type(self).__name__} defines no `of_windows`")

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        with torch.no_grad():
            y = self.of_windows(frame.zeros(1).unsqueeze(-1).expand(*(-1,) * (len(frame.shape) + 1), self.size), None)
        return StepSpec.of(y.select(2, 0))

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        windows = frames.unfold(2, self.size, self._window.stride)
        present = None
        if self.trailing and start < 0:
            firsts = start + self._window.stride * torch.arange(windows.shape[2], device=frames.device)
            present = self.size + firsts.clamp(max=0)
        return self.of_windows(windows, present)

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(p.transpose(1, 2) for p in pieces)

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        window = torch.cat((*parts, x.unsqueeze(2)), 2)
        return self.of_windows(window.movedim(2, -1).unsqueeze(2), None).squeeze(2)

    def _step_is_plain(self) -> bool:
        return not self.trailing

    def program(self, ctx: KernelContext) -> Run:
        """Functions of whole windows, and of windows that begin before the clip."""
        windows = windows_of(ctx, self)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            frames = windows.frames(rows, self.enter(x)).unfold(2, self.size, self._window.stride)
            present = self.size + windows.outputs(rows).clamp(max=0) if self.trailing else None
            y: Tensor = self.of_windows(frames, present)
            return y

        return run


class Reduction(Windowed):
    """A reduction over the frames of a window, by the name of torch's operation.

    Args:
        size: frames in a window.
        target: the operation, which takes ``dim``.
        options: its other arguments.
        trailing: as in :class:`Windowed`.
        pick: which of its results is used, if it gives several.
        others: dimensions of a chunk that it reduces too; they stay with a size of 1.
    """

    def __init__(
        self, size: int, target: str, options: dict[str, Any] | None = None, trailing: bool = False, pick: int | None = None,
        others: Sequence[int] = (),
    ):  # fmt: skip
        super().__init__(size, trailing=trailing)
        self.target, self.options, self.pick, self.others = target, options or {}, pick, tuple(others)
        schema = {a.name: a for a in resolve(target)._schema.arguments}  # type: ignore[attr-defined]
        self._many = "List" in str(schema["dim"].real_type) if "dim" in schema else False

    @property
    def kind(self) -> str:
        return f"Reduction {self.target} {self.options} {self.others} {self.timing}"

    def of_windows(self, windows: Tensor, present: Tensor | None) -> Tensor:
        if present is not None:
            return self._partial(windows, present)
        dims = [*self.others, -1]
        y: Any = resolve(self.target)(windows, dim=dims if self._many else -1, **self.options)
        y = y if self.pick is None else y[self.pick]
        for dim in sorted(self.others):
            y = y.unsqueeze(dim)
        return cast(Tensor, y)

    def _partial(self, windows: Tensor, present: Tensor) -> Tensor:
        """Means and maxima of the frames that exist."""
        there = torch.arange(self.size, device=windows.device) >= (self.size - present).unsqueeze(-1)
        rows = (present.shape[0], 1) if present.ndim == 2 else ()  # each row has its own
        there = there.view(*rows, -1, *(1,) * (windows.ndim - 4), self.size)
        if "amax" in self.target:
            return windows.masked_fill(~there, -torch.inf).amax(-1)
        count = present.view(*rows, -1, *(1,) * (windows.ndim - 4)).to(windows.dtype)
        return windows.masked_fill(~there, 0.0).sum(-1) / count


class FirstFrame(_Cumulative):
    """The first frame, for each frame."""

    sums = False

    def reduce(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return (before.unsqueeze(2) if n_in else x[:, :, :1]).expand_as(x)

    def reduce_step(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        if isinstance(n_in, Tensor):  # one for each row
            return torch.where(n_in == 0, x, before)
        return before if n_in else x.clone()


class CumulativeProduct(_Cumulative):
    """The product of all frames up to now."""

    nothing = 1.0

    def refuses(self, dtype: torch.dtype) -> bool:
        return not dtype.is_floating_point

    def reduce(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return torch.cat((before.unsqueeze(2), x), 2).cumprod(2)[:, :, 1:]

    def reduce_step(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return before * x


class LogCumulativeSumExp(CumulativeProduct):
    """The logarithm of the sum of the exponentials of all frames up to now."""

    nothing = -math.inf

    def reduce(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return torch.cat((before.unsqueeze(2), x), 2).logcumsumexp(2)[:, :, 1:]

    def reduce_step(self, x: Tensor, n_in: int, before: Tensor) -> Tensor:
        return torch.logaddexp(before, x)


class WindowLinear(Windowed):
    """A linear map of all frames of a window: ``flatten`` and ``linear`` on clips of one length.

    Args:
        size: frames in a window.
        flat: whether channels and space are mapped too; otherwise every channel by itself.
        time_first: whether the frames come before the channels in the order of the map: ``(L, C)`` instead of ``(C, L, *S)``.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, size: int, flat: bool, time_first: bool = False):
        super().__init__(size)
        self.flat, self.time_first = flat, time_first
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)

    def of_windows(self, windows: Tensor, present: Tensor | None) -> Tensor:
        if not self.flat:  # (B, C, n, L) → (B, C, n, K)
            return product.linear(windows, self.weight, self.bias)
        by_time = windows.movedim(2, 1).movedim(-1, 2 if self.time_first else 3)  # (B, n, C, L, *S)
        return product.linear(by_time.flatten(2), self.weight, self.bias).transpose(1, 2)

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return self.weight.numel() * (1 if self.flat else frame.shape[1])


class UnfoldTime(Windowed):
    """``tensor.unfold`` over time: the frames of a window in the last dimension."""

    def of_windows(self, windows: Tensor, present: Tensor | None) -> Tensor:
        return windows.clone()


class ConstantPadTime(SlidingWindow):
    """Frames of constants before the first and after the last frame: ``torch.cat((first, x, last), time)``.

    Args:
        first: the number of frames before the first.
        last: the number of frames after the last.
    """

    has_products = False
    before: Tensor | None  # (B or 1, C, first, *S)
    after: Tensor | None

    def __init__(self, first: int, last: int):
        super().__init__()
        self.first, self.last = first, last
        self.set_window(1, 1, first, last, 1, "zeros")
        self._memoryless = False
        self.register_parameter("before", None)
        self.register_parameter("after", None)

    def forward(self, input: Tensor) -> Tensor:
        """The clip between the constants."""
        pieces = [input if p is input else self._piece(p, input) for p in (self.before, input, self.after) if p is not None]
        return torch.cat(pieces, 2)

    def _piece(self, frames: Tensor, like: Tensor) -> Tensor:
        return frames.expand(like.shape[0], -1, -1, *like.shape[3:]).to(like.dtype)

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        return frame

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        first, stop = node.n_out, 0
        n, stop, ended = self.count(x, node, n_if_ended, updates)
        if stop == first:
            return None, ended
        like, pieces = node.out.zeros(0) if x is None else x, list[Tensor]()
        if first < self.first and self.before is not None:
            pieces.append(self._piece(self.before, like)[:, :, first : min(stop, self.first)])
        if x is not None:
            pieces.append(x)
        beyond = stop - self.first - n
        if beyond > 0 and self.after is not None:
            pieces.append(self._piece(self.after, like)[:, :, self.last - beyond :])
        return (torch.cat(pieces, 2) if len(pieces) > 1 else pieces[0]), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        if node.n_in == 0 and self.first:
            return cast("Tensor | None", CoModule.advance_step(self, x, node, updates))
        updates.ticks.append((node, node.n_in + 1, node.n_out + 1))
        return x

    def program(self, ctx: KernelContext) -> Run:
        """Constants before the first and after the last frame."""
        windows = Windows(ctx, Window(1, 1, self.first, self.last), ctx.node.in_spec, 0.0, self.last)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            y = windows.frames(rows, x)
            index, end = windows.outputs(rows), rows.ended(ctx.before).unsqueeze(1)
            for frames, place in ((self.before, index + self.first), (self.after, index - end)):
                if frames is not None:
                    own = self._piece(frames, y)
                    found = frames_at(own, place.clamp(0, own.shape[2] - 1))
                    y = torch.where(over_frames((place >= 0) & (place < own.shape[2]), y), found, y)
            return y

        return run
