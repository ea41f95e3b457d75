"""Sliding windows over time: what convolution and pooling share.

The state is the last ``R - 1`` frames, in a ring ``(B, R-1, C, *S)``: frame ``i`` in slot ``i % (R-1)``. A step reads the ring,
computes one window and overwrites the oldest frame; a chunk joins the ring and the chunk and runs the ordinary operation once.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor

from ..core.kernel import counted_macs
from ..core.module import CoModule, PaddingMode
from ..core.naming import named
from ..core.program.context import KernelContext, Run
from ..core.ring_buffer import one_piece, ring_zeros, wire_frames
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..core.timing import Timing, Window
from ..errors import NotStreamable, ShapeMismatch
from ..layers.ring_views import RingViews
from ..layers.window_program import FILLS, INSIDE, windows_of


def per_dim(value: Any, dims: int, name: str) -> tuple[int, ...]:
    """One value per dimension, as ``torch.nn`` takes them: a number, or one number each."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 1 and dims != 1:
            value = tuple(value) * dims
        if len(value) != dims:
            raise ValueError(f"{name} takes one number or {dims} (time first), got {tuple(value)}")
        return tuple(int(v) for v in value)
    return (int(value),) * dims


def fill_name(fill: Any) -> str | None:
    """The name of a temporal fill given as a string or a :class:`PaddingMode`."""
    if fill is None:
        return None
    name = fill.value if isinstance(fill, PaddingMode) else str(fill)
    if name not in ("zeros", "neg_inf", "replicate", "reflect"):
        raise ValueError(f"temporal_fill is 'zeros', 'neg_inf', 'replicate' or 'reflect', not {fill!r}")
    return name


class SlidingWindow(CoModule):
    """Base class of layers whose output is a function of a window of frames.

    A subclass gives the geometry (:meth:`set_window`, in its constructor) and one kernel; time is dim 2, batch dim 0:

    - :meth:`over_time` computes all windows of consecutive frames, without temporal padding.

    All else follows. A subclass may be faster by more of them:

    - :meth:`enter` maps frames to what is kept of them (pooling over space, for instance);
    - :meth:`over_time_step` computes the one window that a new frame completes;
    - :meth:`over_pieces` computes windows of frames that lie in several places, without joining them;
    - :meth:`check` refuses frames, and says without a computation which frames leave.

    Example:
        >>> class Median(co.SlidingWindow):
        ...     def __init__(self, size):
        ...         super().__init__()
        ...         self.set_window(size)
        ...
        ...     def over_time(self, frames, start, ended):
        ...         return frames.unfold(2, self.receptive_field, 1).median(-1).values
        >>> net = co.Sequential(Median(3), nn.ReLU())
        >>> [net.forward_step(torch.tensor([[x]])) for x in (1.0, 9.0, 2.0, 3.0)]
        [None, None, tensor([[2.]]), tensor([[3.]])]
    """

    _fill = "zeros"
    nothing = 0.0  # what a position holds that is not even padding
    _last = False  # keep frames channels-last
    _short = False  # whether a clip shorter than the window has one output, of what there is

    def set_window(
        self,
        kernel: int,
        stride: int = 1,
        start: int = 0,
        end: int = 0,
        dilation: int = 1,
        fill: str = "zeros",
        extra_end: int = 0,
    ) -> None:
        """Set the temporal geometry.

        Args:
            kernel: taps.
            stride: inputs per output.
            start: padded frames at the start.
            end: padded frames at the end.
            dilation: frames from tap to tap.
            fill: what padded frames hold.
            extra_end: further frames at the end that hold nothing at all (``ceil_mode``).
        """
        if min(kernel, stride, dilation) < 1 or min(start, end) < 0:
            raise ValueError(
                f"{type(self).__name__}: kernel_size, stride and dilation are at least 1 and padding at least 0 over time, "
                f"got {kernel}, {stride}, {dilation} and {(start, end)}"
            )
        extent = dilation * (kernel - 1) + 1
        wait, least, kept = 0, 1, extent - 1
        if fill == "replicate" and (start or end):
            wait, kept = (1 if start else 0), max(kept, 1)
        if fill == "reflect" and (start or end):
            wait, least, kept = (start + 1 if start else 0), max(start, end) + 1, max(kept, start, end + 1)
        self._window = Window(extent, stride, start, end + extra_end, wait, least, self._short)
        self._memoryless = self._window == Window(short=self._short)
        self._fill, self._taps, self._dilation, self._padded_end, self._kept = fill, kernel, dilation, end, kept

    @property
    def timing(self) -> Timing:
        return self._window

    @property
    def fill(self) -> str:
        """What padded frames hold: ``"zeros"``, ``"neg_inf"``, ``"replicate"`` or ``"reflect"``."""
        return self._fill

    @property
    def fill_value(self) -> float:
        """What a padded frame holds, where that is a number."""
        return FILLS.get(self._fill, 0.0)

    def dummy_value(self) -> float:
        return self.fill_value

    # ---- what a layer defines ---------------------------------------------------------------------------------------

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        """Refuse a frame that the layer can't take; return the frame that leaves. By default it is found by a window of zeros."""
        name = named(path, self)
        with torch.no_grad():
            try:
                y = self.over_time(self.kept(frame).zeros(self._window.receptive_field), 0, None)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ShapeMismatch(f"{name}: can't take steps {frame}: {error}") from error
        if y.ndim < 3 or y.shape[0] != frame.shape[0] or y.shape[2] != 1:
            raise ShapeMismatch(
                f"{name}: over_time gives one frame ({frame.shape[0]}, C, 1, …) for one window, got {tuple(y.shape)}"
            )
        return StepSpec.of_chunk(y)

    def kept(self, frame: StepSpec) -> StepSpec:
        """What :meth:`enter` makes of a frame."""
        if type(self).enter is SlidingWindow.enter:
            return frame
        with torch.no_grad():
            return StepSpec.of_chunk(self.enter(frame.zeros(1)))

    def enter(self, x: Tensor) -> Tensor:
        """Frames ``(B, C, n, *S)`` to what is kept of them, ``(B, C', n, *S')``."""
        return x

    def enter_step(self, x: Tensor) -> Tensor:
        """The same for one step."""
        return x if type(self).enter is SlidingWindow.enter else self.enter(x.unsqueeze(2)).squeeze(2)

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        """All windows of the kept frames, at the temporal stride.

        Args:
            frames: ``(B, C', n, *S')``, the first with index ``start`` (negative in start padding).
            ended: the length of the clip where it is known that it ends.
        """
        raise NotStreamable(f"{type(self).__name__} defines no `over_time`")

    def over_pieces(self, pieces: list[Tensor], start: int, ended: int | None) -> Tensor:
        """The same of frames that lie in several places, in order. They are joined, unless a layer reads them where they lie."""
        return self.over_time(one_piece(pieces), start, ended)

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        """The window that the kept frame ``x`` completes, given its older taps as :meth:`arrange` made them."""
        frames = torch.cat((*(p.transpose(1, 2) for p in parts), x.unsqueeze(2)), 2)
        if self._dilation > 1:  # between the taps lie frames that no window sees
            apart = frames.new_zeros(*frames.shape[:2], self._window.receptive_field, *frames.shape[3:])
            apart[:, :, :: self._dilation] = frames
            frames = apart
        return self.over_time(frames, 0, None).squeeze(2)

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        """Views ``(B, n, C', *S')`` of the older taps, in order, to the views that :meth:`over_time_step` wants."""
        return tuple(pieces)

    def taps(self, frames: Tensor) -> list[Tensor]:
        """The frames at each tap of all windows: ``kernel`` tensors ``(B, C, windows, *S)``."""
        w = self._window
        windows = (frames.shape[2] - w.receptive_field) // w.stride + 1
        span = w.stride * (windows - 1) + 1
        return [frames[:, :, i * self._dilation : i * self._dilation + span : w.stride] for i in range(self._taps)]

    def _step_is_plain(self) -> bool:
        """Whether a window that reaches into constant start padding is computed like any other."""
        return True

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int | Fraction:
        if not self.has_products:
            return 0
        window = node.kept_spec.zeros(self._window.receptive_field)
        return counted_macs(lambda: self.over_time(window, 0, None)) // frame.shape[0]

    # ---- the kernel -------------------------------------------------------------------------------------------------

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        out, kept_spec = self.check(frame, init.path), self.kept(frame)
        return StateNode(init, self.kind, out, self.cold(kept_spec), kept_spec=kept_spec)

    def cold(self, kept_spec: StepSpec) -> dict[str, Tensor]:
        """The cold state tensors, for kept frames like ``kept_spec``."""
        return {"window": ring_zeros(kept_spec, self._kept, self.fill_value, self._last)} if self._kept else {}

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        if self._memoryless:
            return (None if x is None else self.over_pieces([self.enter(x)], 0, None)), n_if_ended
        if updates.in_place and x is not None and not updates.final:
            inside = _inside(self, x, node, n_if_ended, updates)
            if inside is not None:
                return inside
        n_in = node.n_in
        n, n_out, ended = self.count(x, node, n_if_ended, updates)
        entered = None if x is None else self.enter(x)
        if entered is not None and self._kept:
            updates.ring(node, 0, n_in, entered)
        if n_out <= node.n_out:
            return None, ended
        w = self._window
        first = w.stride * node.n_out - w.start
        stop = w.stride * (n_out - 1) - w.start + w.receptive_field
        frames = self._pieces(entered, node, first, stop, n_if_ended if updates.final else n)
        return self.over_pieces(frames, first, n_if_ended if updates.final else None), ended

    def _gather(self, entered: Tensor | None, node: StateNode, first: int, stop: int, n: int) -> Tensor:
        """The frames of :meth:`_pieces`, joined."""
        return one_piece(self._pieces(entered, node, first, stop, n))

    def _pieces(self, entered: Tensor | None, node: StateNode, first: int, stop: int, n: int) -> list[Tensor]:
        """Frames ``first … stop - 1``, in order; those before 0 and from ``n`` on are padding."""
        if first >= 0 and stop <= n:
            return wire_frames(node, 0, entered, node.n_in, first, stop)
        if self._fill in FILLS:
            middle = wire_frames(node, 0, entered, node.n_in, max(first, 0), min(stop, n))
            left = padding(node.kept_spec, min(0, stop) - first, self.fill_value)
            right = padding(node.kept_spec, min(stop, n + self._padded_end) - max(n, first), self.fill_value)
        else:
            needed = 1 if self._fill == "replicate" else self._padded_end + 1
            real = torch.cat(wire_frames(node, 0, entered, node.n_in, max(0, min(first, n - needed)), n), 2)
            left, right = self._mirrored(real, max(0, -first), max(0, min(stop - n, self._padded_end)))
            left, right = left[:, :, : min(0, stop) - first], right[:, :, max(0, first - n) :]
            known = n - real.shape[2]
            middle = [real[:, :, max(first, 0) - known : max(stop, 0) - known]] if first < n else []
        beyond = padding(node.kept_spec, stop - max(first, n + self._padded_end), self.nothing)
        return [p for p in (left, *middle, right, beyond) if p.shape[2]]

    def _mirrored(self, real: Tensor, left: int, right: int) -> tuple[Tensor, Tensor]:
        """Padding made of the frames at both ends."""
        size = real.shape[2]
        if self._fill == "replicate":
            ones = (-1,) * (real.ndim - 3)
            return real[:, :, :1].expand(-1, -1, left, *ones), real[:, :, -1:].expand(-1, -1, right, *ones)
        return real[:, :, 1 : left + 1].flip(2), real[:, :, size - 1 - right : size - 1].flip(2)

    def forward(self, input: Tensor) -> Tensor:
        """All windows of a clip ``(B, C, T, *S)``."""
        return self.windows_of(input)

    def windows_of(self, x: Tensor) -> Tensor:
        """The clip computation by the kernel itself, for options that ``torch.nn`` does not have."""
        kept_spec = self.kept(StepSpec.of_chunk(x))
        node = StateNode(InitContext(), "", None, self.cold(kept_spec), kept_spec=kept_spec)
        y, _ = self.advance(x, node, x.shape[2], StateUpdates(final=True))
        if y is None:
            raise ShapeMismatch(
                f"{type(self).__name__}: a clip of {x.shape[2]} steps is too short for a window of {self.receptive_field} "
                f"with padding {(self._window.start, self._window.end)} over time ({self._fill})"
            )
        return y

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        if self._memoryless:
            return self.over_time_step((), self.enter_step(x))
        n_in = node.n_in
        if n_in < self._kept and not (self._fill in FILLS and self._step_is_plain()):
            return cast("Tensor | None", super().advance_step(x, node, updates))
        late = n_in - node.delay
        emits = late >= 0 and (node.stride == 1 or late % node.stride == 0)
        entered = self.enter_step(x)
        updates.ticks.append((node, n_in + 1, node.n_out + emits))
        if self._kept == 0:
            return self.over_time_step((), entered) if emits else None
        memo = _views_of(node, self)
        position = n_in % self._kept
        updates.slots.append((memo.slot(position), entered))
        return self.over_time_step(memo.parts(position), entered) if emits else None

    def program(self, ctx: KernelContext) -> Run:
        """Any function of a window of frames."""
        if self._memoryless:
            return lambda x, rows: self.over_time(self.enter(x), INSIDE, None)
        windows = windows_of(ctx, self)
        return lambda x, rows: self.over_time(windows.frames(rows, self.enter(x)), INSIDE, None)


def _views_of(node: StateNode, layer: SlidingWindow) -> RingViews:
    memo: RingViews | None = node.memo
    if memo is None:
        memo = node.memo = RingViews(node.tensors[0], layer._taps, layer._dilation, layer.arrange)
    return memo


def _inside(
    layer: SlidingWindow, x: Tensor, node: StateNode, n_if_ended: int, updates: StateUpdates
) -> tuple[Tensor, int] | None:
    """The outputs of a chunk that completes windows of frames alone, without padding; ``None`` for all other chunks."""
    w, n_in, kept, sent = layer._window, node.n_in, layer._kept, node.n_out
    if layer.timing is not w:  # padding that cuts, and ends of another length
        return None
    n, first = n_in + x.shape[2], w.stride * sent - w.start
    count = (n - first - w.receptive_field) // w.stride + 1
    ended = (n_if_ended + w.start + w.end - w.receptive_field) // w.stride + 1
    if first < 0 or count <= 0 or n < w.wait or n_if_ended < w.least or ended < sent + count or n_in - first > kept:
        return None
    stop = first + w.stride * (count - 1) + w.receptive_field
    entered, older, pieces = layer.enter(x), max(0, n_in - first), list[Tensor]()
    if kept:
        new = entered if n - n_in <= kept else entered.narrow(2, n - n_in - kept, kept)
        slots, pieces, fit = _views_of(node, layer).chunk(n - new.shape[2], new.shape[2], n_in, older)
        by_time = new.transpose(1, 2)
        if len(slots) == 1:
            updates.slots.append((slots[0], by_time))
        else:
            updates.slots += [(slots[0], by_time[:, :fit]), (slots[1], by_time[:, fit:])]
    updates.ticks.append((node, n, sent + count))
    if first > n_in or stop < n:
        entered = entered[:, :, max(0, first - n_in) : stop - n_in]
    return layer.over_pieces([*pieces, entered], first, None), ended


def padding(frame: StepSpec, count: int, value: float) -> Tensor:
    """``count`` frames ``(B, C, count, *S)`` of one value; none if negative."""
    batch, channels, *space = frame.shape
    return torch.full((batch, channels, max(0, count), *space), value, dtype=frame.dtype, device=frame.device)
