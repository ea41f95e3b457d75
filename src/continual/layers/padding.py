"""Padding layers over time and space. The last pair of `padding` is time's: torch.nn lists the last dimension first.

Padding at the start brings frames that were never an input: the first input (with reflection the input that is mirrored last)
brings them all at once. Where a window behind absorbs them, as in a causal convolution, each step has one output at most,
and the delay is that of the pair. Negative padding cuts frames off, as in ``torch.nn``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.naming import named
from ..core.program.context import KernelContext, Run
from ..core.registry import TorchLayer, register_class
from ..core.state import StateNode, StateUpdates, StepSpec
from ..core.timing import Crop, Timing, Window
from ..errors import NotStreamable, ShapeMismatch
from ..layers.window_program import INSIDE, Windows
from .window import SlidingWindow


class _Pad(TorchLayer, SlidingWindow):
    """What all padding layers share: over time they are a window of one frame, with padding."""

    has_products = False
    dims: int
    mode: str  # as torch.nn.functional.pad names it
    padding: Any
    value: float = 0.0

    def __init__(self, padding: int | tuple[int, ...], *value: float):
        init: Any = super().__init__  # of the torch.nn class
        init(padding, *value)
        self.configure()

    def configure(self) -> None:
        """Derive the temporal geometry from the attributes of the ``torch.nn`` layer."""
        flat = tuple(self.padding) if isinstance(self.padding, (tuple, list)) else (self.padding,) * (2 * self.dims)
        if self.mode == "constant" and len(flat) % 2 == 0:  # torch.nn then leaves the first dimensions as they are
            flat += (0,) * (2 * self.dims - len(flat))
        if len(flat) != 2 * self.dims:
            raise ValueError(
                f"{type(self).__name__} takes one number or {2 * self.dims}, a pair per dimension, the last dimension first and "
                f"time last; got {self.padding}"
            )
        self._pads, self._space = flat, flat[:-2]
        start, end = flat[-2:]
        if self.mode == "circular" and (start or end):
            raise NotStreamable(
                f"{type(self).__name__}({self.padding}) pads time with frames from the other end of the clip, which a stream has not "
                "seen. Remedies: (…, 0, 0), whose last pair is time's; or nn.ReplicationPad or nn.ConstantPad (other functions)"
            )
        self._set_time(start, end)

    def _set_time(self, start: int, end: int) -> None:
        wait, least, kept = 0, max(1, -start, -end), max(0, -end)
        if self.mode == "replicate":
            wait, least, kept = int(start > 0), 1, max(kept, int(end > 0))
        if self.mode == "reflect":
            wait, least = (start + 1 if start > 0 else 0), max(start, end, 0) + 1
            kept = max(kept, start, end + 1 if end > 0 else 0)
        self._window = Window(1, 1, start, max(0, end), wait, least)
        cut = Crop(max(0, -start), max(0, -end))
        self._timing = self._window if min(start, end) >= 0 or end > 0 else cut if start <= 0 else self._window.then(cut)
        self._memoryless = start == end == 0
        self._fill = self.mode if self.mode in ("replicate", "reflect") else "zeros"
        self._taps = self._dilation = 1
        self._padded_end, self._kept = max(0, end), kept

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def fill_value(self) -> float:
        return self.value

    def forward(self, input: Tensor) -> Tensor:
        """The clip computation: that of the ``torch.nn`` layer."""
        if input.ndim in (self.dims + 1, self.dims + 2) and self._timing.ended(steps := input.shape[-self.dims]) == 0:
            raise ShapeMismatch(
                f"{type(self).__name__}: a clip of {steps} steps is too short for padding {self._pads[-2:]} over time ({self.mode})"
            )
        return self._pad(input, self.padding)

    def _pad(self, x: Tensor, pads: tuple[int, ...]) -> Tensor:
        return F.pad(x, pads, self.mode, *([self.value] if self.mode == "constant" else []))

    # ---- kernel -----------------------------------------------------------------------------------------------------

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        name, dims = named(path, self), len(frame.shape) - 1
        if dims > self.dims and self.mode == "constant":
            pads = (*self._pads, *(0,) * 2 * (dims - self.dims))
            value = f", {self.value}" if isinstance(self, _ConstantPad) else ""
            raise ShapeMismatch(
                f"{name}: on clips of {dims + 2} dimensions padding {self.padding} pads space alone. "
                f"Write that as {type(self).__name__[:-2]}{dims}d({pads}{value})"
            )
        if dims != self.dims:
            wanted = ", ".join(["B", "C", *"HW"[3 - self.dims :]])
            raise ShapeMismatch(f"{name}: expects steps ({wanted}), got {tuple(frame.shape)}")
        try:
            return StepSpec.of(self.over_time_step((), frame.zeros()))
        except RuntimeError as error:
            raise ShapeMismatch(f"{name}: can't pad steps {tuple(frame.shape)}: {error}") from error

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        if any(self._space):
            return self._pad(frames, (*self._space, 0, 0))
        return frames.clone() if frames._is_view() else frames  # a view may be of the ring, which goes on

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        return self._pad(x, self._space) if any(self._space) else x

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        if self._memoryless:
            return self.over_time_step((), x)
        n_in, wanted, emits = node.n_in, node.n_out - self._window.start, node.n_in >= node.delay
        updates.ticks.append((node, n_in + 1, node.n_out + emits))
        if node.tensors:
            ring = node.tensors[0]
            updates.slots.append((ring[:, n_in % self._kept], x))
            if emits and wanted < 0:  # padding that a cut at the end has held back
                x = self._gather(x.unsqueeze(2), node, wanted, wanted + 1, n_in + 1).squeeze(2)
            elif emits and wanted < n_in:
                x = ring[:, wanted % self._kept].clone()
        return self.over_time_step((), x) if emits else None

    def program(self, ctx: KernelContext) -> Run:
        """Padding over time: outputs are inputs, shifted; and over space."""
        if self._memoryless:
            return lambda x, rows: self.over_time(x, 0, None)
        start, end = self._pads[-2:]
        fill = self.value if self.mode == "constant" else self.mode
        windows = Windows(ctx, Window(1, 1, start, max(0, end)), ctx.node.in_spec, fill, max(0, end))
        return lambda x, rows: self.over_time(windows.frames(rows, x), INSIDE, None)


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: int | tuple[int, ...], value: float):
        super().__init__(padding, value)


class _ZeroPad(_Pad):
    mode = "constant"


class _ReplicationPad(_Pad):
    mode = "replicate"


class _ReflectionPad(_Pad):
    mode = "reflect"


class _CircularPad(_Pad):
    mode = "circular"


class ConstantPad1d(_ConstantPad, nn.ConstantPad1d):
    """Pad time with a value: ``nn.ConstantPad1d`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    The frames before the first come with the first input, all at once (``timing.bursts``), unless a window behind them absorbs
    them; those after the last come when the stream ends.

    Args:
        padding: ``(start, end)``, or one number for both; negative: so many frames are cut off.
        value: what is padded.

    Example:
        >>> causal = co.Sequential(co.ConstantPad1d((2, 0), 0.0), co.Conv1d(4, 8, kernel_size=3))
        >>> causal.delay, causal.forward_step(torch.randn(1, 4)).shape
        (0, torch.Size([1, 8]))
        >>> co.ConstantPad1d((2, 0), 7.0).forward_step(torch.zeros(1, 1))
        tensor([[[7., 7., 0.]]])
    """

    dims = 1


class ConstantPad2d(_ConstantPad, nn.ConstantPad2d):
    """Pad time and space with a value: clips ``(B, C, T, S)``, steps ``(B, C, S)``; as :class:`ConstantPad1d`.

    Args:
        padding: ``(left, right, start, end)``, time last; or one number.
        value: what is padded.
    """

    dims = 2


class ConstantPad3d(_ConstantPad, nn.ConstantPad3d):
    """Pad time and space with a value: clips ``(B, C, T, H, W)``, steps ``(B, C, H, W)``; as :class:`ConstantPad1d`.

    Args:
        padding: ``(left, right, top, bottom, start, end)``, time last; or one number.
        value: what is padded.
    """

    dims = 3


class ZeroPad1d(_ZeroPad, nn.ZeroPad1d):
    """Pad time with zeros: :class:`ConstantPad1d` with the value 0.

    Example:
        >>> co.ZeroPad1d((1, 2)).forward_steps(torch.ones(1, 1, 2), pad_end=True)
        tensor([[[0., 1., 1., 0., 0.]]])
    """

    dims = 1


class ZeroPad2d(_ZeroPad, nn.ZeroPad2d):
    """Pad time and space with zeros: :class:`ConstantPad2d` with the value 0."""

    dims = 2


class ZeroPad3d(_ZeroPad, nn.ZeroPad3d):
    """Pad time and space with zeros: :class:`ConstantPad3d` with the value 0."""

    dims = 3


class ReplicationPad1d(_ReplicationPad, nn.ReplicationPad1d):
    """Repeat the first and the last frame: ``nn.ReplicationPad1d`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    Args:
        padding: ``(start, end)``, or one number for both; negative: so many frames are cut off.

    Example:
        >>> co.ReplicationPad1d((1, 2)).forward_steps(torch.tensor([[[3.0, 4.0]]]), pad_end=True)
        tensor([[[3., 3., 4., 4., 4.]]])
    """

    dims = 1


class ReplicationPad2d(_ReplicationPad, nn.ReplicationPad2d):
    """:class:`ReplicationPad1d` for clips ``(B, C, T, S)``; ``padding`` is ``(left, right, start, end)``, time last."""

    dims = 2


class ReplicationPad3d(_ReplicationPad, nn.ReplicationPad3d):
    """:class:`ReplicationPad1d` for clips ``(B, C, T, H, W)``; ``padding`` is ``(left, right, top, bottom, start, end)``."""

    dims = 3


class ReflectionPad1d(_ReflectionPad, nn.ReflectionPad1d):
    """Mirror time at both ends: ``nn.ReflectionPad1d`` on clips ``(B, C, T)`` and on steps ``(B, C)``.

    With ``start`` frames of padding nothing can leave before input ``start + 1``, which then brings ``2*start + 1`` frames.

    Args:
        padding: ``(start, end)``, or one number for both; negative: so many frames are cut off.

    Raises:
        ShapeMismatch: a clip that is no longer than the padding. (At the end of such a stream there are no outputs.)

    Example:
        >>> pad = co.ReflectionPad1d((1, 1))
        >>> pad.forward_step(torch.tensor([[3.0]])), pad.forward_step(torch.tensor([[4.0]]))
        (None, tensor([[[4., 3., 4.]]]))
    """

    dims = 1


class ReflectionPad2d(_ReflectionPad, nn.ReflectionPad2d):
    """:class:`ReflectionPad1d` for clips ``(B, C, T, S)``; ``padding`` is ``(left, right, start, end)``, time last."""

    dims = 2


class ReflectionPad3d(_ReflectionPad, nn.ReflectionPad3d):
    """:class:`ReflectionPad1d` for clips ``(B, C, T, H, W)``; ``padding`` is ``(left, right, top, bottom, start, end)``."""

    dims = 3


class CircularPad1d(_CircularPad, nn.CircularPad1d):
    """A clip ``(B, C, T)`` has no space, and circular padding of time is refused: ``padding`` must be 0.

    Raises:
        NotStreamable: any padding.
    """

    dims = 1


class CircularPad2d(_CircularPad, nn.CircularPad2d):
    """Pad space, of clips ``(B, C, T, S)``, with what stands at its other end; ``padding`` is ``(left, right, 0, 0)``.

    Raises:
        NotStreamable: padding of time, the last pair.
    """

    dims = 2


class CircularPad3d(_CircularPad, nn.CircularPad3d):
    """Pad space, of clips ``(B, C, T, H, W)``, with what stands at its other end; ``padding`` is ``(left, right, top, bottom, 0, 0)``.

    Raises:
        NotStreamable: padding of time, the last pair.
    """

    dims = 3


_PADS: tuple[type[_Pad], ...] = (
    ConstantPad1d, ConstantPad2d, ConstantPad3d, ZeroPad1d, ZeroPad2d, ZeroPad3d, ReplicationPad1d, ReplicationPad2d, ReplicationPad3d,
    ReflectionPad1d, ReflectionPad2d, ReflectionPad3d, CircularPad1d, CircularPad2d, CircularPad3d,
)  # fmt: skip
for _co in _PADS:
    register_class(getattr(nn, _co.__name__), _co)
