"""What kernels of step programs use: the context of a module while a program is built, and the rows of a call while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import NotStreamable
from ..naming import named
from ..state import StateNode, StepSpec, Wire
from ..step_spec import by_frame, joined
from ..timing import Timing
from .frame_schedule import FAR, FAR_IN_32_BITS, FrameSchedule, frame_schedule
from .stream_ends import STREAM, End, end_of, frames_in
from .tracing import traced

INLINE_ROWS = 4  # for compilers that fuse
SUMMED = 1 << 16  # elements of a weight from which a library call is faster than a sum
SHORT = 4  # frames up to which moving all of them is faster than indexing one
Run = Callable[[Any, "CallRows"], Wire]  # a module in a program: from the input chunk of a call to its output chunk


@dataclass(frozen=True, eq=False)
class StateSpec:
    """A state tensor of a program.

    Attributes:
        name: its module's path and its own name.
        shape: of a row.
        fill: its value when a stream starts: a number; or a tensor, whose first row is that of a row, or of the first of several that
            a row of the program has.
        keeps_inactive: whether the kernel itself keeps the state of inactive rows.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    fill: float | Tensor
    index: int
    keeps_inactive: bool = False

    def cold(self, batch: int) -> Tensor:
        """The tensor for ``batch`` rows that start."""
        if isinstance(self.fill, Tensor):
            return self.fill[:1].expand(batch, *self.shape).clone()
        return torch.full((batch, *self.shape), self.fill, dtype=self.dtype, device=self.device)

    def of_several(self, rows: int) -> StateSpec:
        """The state of that many rows as one, which the program keeps for each of its own: each starts with its own value."""
        fill = self.fill[:rows].unsqueeze(0) if isinstance(self.fill, Tensor) else self.fill
        return replace(self, shape=(rows, *self.shape), fill=fill)


@dataclass(frozen=True)
class Target:
    """What runs a program, as far as its operations depend on it.

    Attributes:
        compiler_fuses: a compiler fuses operations: frames are kept in rings, and cells are written in elementary operations.
        inline_rows: products of at most so many rows are written as sums, which a compiler fuses.
        conv3d_as_2d: 3D convolutions are written as 2D convolutions.
        int32: the runtime computes integers in 32 bits.
        annotate: operations carry the name of their module, for errors of an export.
        real: it has no complex numbers, so that transforms are written as products of real ones.
    """

    compiler_fuses: bool = False
    inline_rows: int = 0
    conv3d_as_2d: bool = False
    int32: bool = False
    annotate: bool = False
    real: bool = False


ANY_TARGET = Target()


@dataclass
class ProgramPlan:
    """A program under construction.

    Attributes:
        chunk: input frames per call.
        start: the index of the first input frame of a row's first call.
        flush: whether streams may end.
        target: what runs the program.
        warmup_calls: calls that run before the first one when a program is made, which put padding before the first frame in its place.
        state_specs: the state tensors so far.
    """

    chunk: int
    start: int
    flush: bool = True
    target: Target = ANY_TARGET
    warmup_calls: int = 0
    state_specs: list[StateSpec] = field(default_factory=list)

    @property
    def far(self) -> int:
        """A number of frames that no stream reaches, in the runtime's integers."""
        return FAR_IN_32_BITS if self.target.int32 else FAR

    def schedule(self, timing: Timing) -> FrameSchedule:
        """The schedule of a wire with this timing from the network's input on."""
        return frame_schedule(timing, self.chunk, self.start)


class KernelContext:
    """The place of a module in a program.

    Attributes:
        in_schedule, out_schedule: the schedules of its input and output wires.
        has_early_frames: whether frames that precede the stream arrive.
    """

    def __init__(self, plan: ProgramPlan, module: Any, node: StateNode, timing: Timing | None = None):
        self.plan, self.target, self.module, self.node = plan, plan.target, module, node
        self.before = node.before
        self.after = self.before.then(module.timing if timing is None else timing)
        self.in_schedule, self.out_schedule = plan.schedule(self.before), plan.schedule(self.after)
        self.has_early_frames = self.in_schedule.first < self.in_schedule.frames * plan.warmup_calls

    @property
    def name(self) -> str:
        """The name of the module in errors."""
        return named(self.node.path, self.module)

    def refuse(self, reason: str) -> NotStreamable:
        """The error that says why the module can't be in a program."""
        return NotStreamable(f"co.compile: {self.name}: {reason}")

    def state_tensor(self, name: str, like: StepSpec, depth: int | None, fill: float | Tensor = 0.0) -> StateSpec:
        """A state tensor: ``depth`` frames ``(C, depth, *S)``, or with ``None`` a tensor ``like`` a step."""
        _, *rest = like.shape
        return self.state_of_shape(name, like, tuple(rest) if depth is None else (rest[0], depth, *rest[1:]), fill)

    def state_of_shape(
        self, name: str, like: StepSpec, shape: tuple[int, ...], fill: float | Tensor, keeps_inactive: bool = False
    ) -> StateSpec:
        """A state tensor with rows of this shape, of the dtype and on the device of ``like``."""
        path = f"{self.node.path}.{name}".lstrip(".")
        spec = StateSpec(path, shape, like.dtype, like.device, fill, len(self.plan.state_specs), keeps_inactive)
        self.plan.state_specs.append(spec)
        return spec

    def ring(self, name: str, like: StepSpec, depth: int, fill: float = 0.0) -> Ring:
        """The last ``depth`` frames; a call of one frame reads some of them and writes one. Images are stored channels last."""
        return self._ring(name, like, depth, self.in_schedule, fill)

    def _ring(self, name: str, like: StepSpec, depth: int, wire: FrameSchedule, fill: float = 0.0) -> Ring:
        _, channels, *space = like.shape
        last = len(space) > 1
        shape = (depth, *space, channels) if last else (depth, channels, *space)
        return Ring(self.state_of_shape(name, like, shape, fill, keeps_inactive=True), wire, depth, last)

    def delay_line(self, name: str, like: StepSpec, first: int, wire: FrameSchedule | None = None) -> DelayLine:
        """Frames that wait: from ``first`` on (relative to the first frame of a call)."""
        wire = self.in_schedule if wire is None else wire
        if self.target.compiler_fuses and wire.frames == 1 and -first >= SHORT:
            return DelayLine(None, self._ring(name, like, -first, wire))
        images = len(like.shape) > 3  # as convolutions want them
        return DelayLine(self.frames_in_order(name, like, first) if images else self.history(name, like, first), None)

    def history(self, name: str, like: StepSpec, first: int, fill: float = 0.0) -> History:
        """The frames of earlier calls from ``first`` on (relative to the first frame of a call)."""
        return History(self.state_tensor(name, like, -first, fill) if first < 0 else None, -first)

    def frames_in_order(self, name: str, like: StepSpec, first: int) -> History:
        """The same, where compilers fuse with the channels of a frame side by side: what reads frames whole reads them as they lie."""
        if not self.target.compiler_fuses or first >= 0:
            return self.history(name, like, first)
        _, channels, *space = like.shape
        return History(self.state_of_shape(name, like, (-first, *space, channels), 0.0), -first, last=True)

    # ---- gates ----------------------------------------------------------------------------------------------------------

    def inside(self, rows: CallRows, start: bool = True, end: bool = True) -> Tensor | None:
        """Which input frames belong to the stream, ``(B, n)``; ``None``: all, or it does not matter.

        Args:
            start: whether frames that precede the stream matter.
            end: whether frames after its end matter.
        """
        found = None
        if start and self.has_early_frames:
            found = rows.index(self.in_schedule) >= 0
        if end and self.plan.flush:
            before_end = rows.index(self.in_schedule) < rows.ended(self.before).unsqueeze(1)
            found = before_end if found is None else found & before_end
        return found

    def gated(self, rows: CallRows, x: Tensor, fill: float | Tensor, start: bool = True, end: bool = True) -> Tensor:
        """Frames ``(B, C, n, *S)``, with ``fill`` in place of frames outside the stream."""
        inside = self.inside(rows, start, end)
        return x if inside is None else torch.where(over_frames(inside, x), x, fill)


def over_frames(value: Tensor, x: Tensor) -> Tensor:
    """A value per row and frame ``(B, n)`` in a shape that broadcasts over ``(B, C, n, *S)``."""
    return value.view(value.shape[0], 1, value.shape[1], *(1,) * (x.ndim - 3))


def frames_at(frames: Tensor, place: Tensor) -> Tensor:
    """The frames of ``(B, C, n, *S)`` at places ``(B, m)`` of each row. ``take_along_dim`` would fix the number of rows in exports."""
    return frames.gather(2, over_frames(place, frames).expand(-1, frames.shape[1], -1, *frames.shape[3:]))


@dataclass(frozen=True)
class History:
    """Earlier frames that a module sees before the new ones."""

    spec: StateSpec | None
    depth: int  # their number; negative: the module skips so many of the new frames
    last: bool = False  # whether frames are stored channels last, ``(B, depth, *S, C)``

    def extend(self, rows: CallRows, x: Tensor, new: Tensor | None = None) -> Tensor:
        """The earlier and the new frames, ``(B, C, depth + n, *S)``. Stores the last of them for the next call.

        Args:
            new: the new frames as they are stored, if that differs from ``x``.
        """
        if self.spec is None:
            return x[:, :, -self.depth :] if self.depth else x
        kept, dim = rows.state[self.spec.index], 1 if self.last else 2
        x = x.movedim(1, -1) if self.last else x
        whole = later = torch.cat((kept, x), dim)
        if new is not None:
            later = torch.cat((kept, new.movedim(1, -1) if self.last else new), dim)
        rows.keep(self.spec, later.narrow(dim, later.shape[dim] - self.depth, self.depth))
        return whole.movedim(-1, 1) if self.last else whole


@dataclass(frozen=True)
class Ring:
    """The last frames of a wire with one frame per call, ``(B, L, C, *S)``: frame ``i`` of each row in slot ``i % L``.

    A call moves one frame, whatever the length of the ring.
    """

    spec: StateSpec
    wire: FrameSchedule
    depth: int
    last: bool = False  # whether frames are stored channels last

    def before(self, rows: CallRows, offset: int) -> Tensor:
        """The frame ``offset`` frames before the new one, ``(B, C, *S)``."""
        kept = rows.state[self.spec.index]
        slot = (rows.index(self.wire)[:, 0] - offset).remainder(self.depth)
        found = kept[torch.arange(kept.shape[0], device=kept.device), slot]
        return found.movedim(-1, 1) if self.last else found

    def push(self, rows: CallRows, x: Tensor) -> Tensor:
        """Overwrite the oldest frame by the new one, ``(B, C, *S)``. Returns the whole ring."""
        kept = rows.state[self.spec.index]
        x = x.movedim(1, -1) if self.last else x
        own, slot = torch.arange(kept.shape[0], device=kept.device), rows.index(self.wire)[:, 0].remainder(self.depth)
        if rows.active is not None:
            x = torch.where(rows.active.view(-1, *(1,) * (x.ndim - 1)), x, kept[own, slot])
        kept = kept.index_put((own, slot), x)
        rows.keep(self.spec, kept)
        return kept


@dataclass(frozen=True)
class DelayLine:
    """Frames that wait a fixed time, in the faster of two forms."""

    past: History | None
    ring: Ring | None

    def delayed(self, rows: CallRows, x: Tensor, count: int) -> Tensor:
        """The ``count`` frames whose time is up, ``(B, C, count, *S)``."""
        if self.ring is None:
            return cast(History, self.past).extend(rows, x)[:, :, :count]
        y = self.ring.before(rows, self.ring.depth)
        self.ring.push(rows, x.squeeze(2))
        return y.unsqueeze(2)


class CallRows:
    """One call of a program.

    Args:
        calls: earlier calls of each row, ``(B,)``; negative during warmup calls.
        end: the number of frames of each row's stream, ``(B,)``; far away while it goes on.
        state: the state tensors.
        active: the rows that take part; ``None``: all.
        opened: the rows that go on whatever their ``end`` is, and the count that stands for far away; ``None``: ``end`` is complete.
    """

    def __init__(
        self,
        calls: Tensor,
        end: Tensor,
        state: list[Tensor],
        active: Tensor | None = None,
        opened: tuple[Tensor, int] | None = None,
    ):
        self.calls, self.state, self.active, self._opened = calls, state, active, opened
        self.new_state: list[Tensor] = list(state)
        self._end = end.clamp(max=FAR)
        self._index: dict[FrameSchedule, Tensor] = {}
        self._counts: dict[End, Tensor] = {STREAM: self._end}
        self._ended: dict[End, Tensor] = {}

    def keep(self, spec: StateSpec, value: Tensor) -> None:
        """Set the value of a state tensor for the next call."""
        self.new_state[spec.index] = value

    def repeated(self, times: int, own: Iterable[int]) -> CallRows:
        """The same call with ``times`` rows for each row, for which the state tensors ``own`` have a dimension of their own."""
        state = list(self.state)
        for i in set(own):
            state[i] = state[i].flatten(0, 1)
        calls, end = self.calls.repeat_interleave(times), self._end.repeat_interleave(times)
        active = None if self.active is None else self.active.repeat_interleave(times)
        opened = None if self._opened is None else (self._opened[0].repeat_interleave(times), self._opened[1])
        return CallRows(calls, end, state, active, opened)

    def index(self, wire: FrameSchedule) -> Tensor:
        """The indices of the frames of this call on a wire, ``(B, n)``."""
        found = self._index.get(wire)
        if found is None:
            found = (self.calls * wire.frames if wire.frames > 1 else self.calls).unsqueeze(1)
            if wire.frames > 1:
                found = found + torch.arange(wire.first, wire.first + wire.frames, device=found.device)
            elif wire.first:
                found = found + wire.first
            self._index[wire] = found
        return found

    def ended(self, timing: Timing) -> Tensor:
        """The number of frames of a wire when the stream ends, ``(B,)``."""
        end, _ = end_of(timing)
        found = self._ended.get(end)
        if found is None:
            found = frames_in(end, self._counts)
            found = self._ended[end] = found if self._opened is None else torch.where(*self._opened, found)
        return found


# ---- recurrences ----------------------------------------------------------------------------------------------------

Step = Callable[[Any, list[Tensor], Tensor], tuple[Wire, list[Tensor]]]  # frame, carried, its index (B,) → output, carried


def carried(ctx: KernelContext, specs: list[StateSpec], x: Any, rows: CallRows, step: Step) -> Any:
    """Run frame by frame. Frames that precede the stream leave the state unchanged."""
    inside, index = ctx.inside(rows, end=False), rows.index(ctx.in_schedule)
    state, outs = [rows.state[spec.index] for spec in specs], []
    for i, frame in enumerate(by_frame(x)):
        y, new = step(frame, state, index[:, i])
        if inside is not None:
            own = inside[:, i]
            new = [torch.where(own.view(-1, *(1,) * (n.ndim - 1)), n, s) for n, s in zip(new, state, strict=True)]
        outs.append(y)
        state = new
    for spec, value in zip(specs, state, strict=True):
        rows.keep(spec, value)
    return joined(outs)


def of_rows(value: Tensor, like: Tensor) -> Tensor:
    """A value per row ``(B,)`` in a shape that broadcasts over ``like``."""
    return value.view(-1, *(1,) * (like.ndim - 1))


def built(plan: ProgramPlan, module: Any, node: StateNode) -> Run:
    """The step of a module in a program.

    Raises:
        NotStreamable: no program computes the module, or it has hooks.
    """
    ctx = KernelContext(plan, module, node)
    if module._forward_hooks or module._forward_pre_hooks:
        raise ctx.refuse("has forward hooks, which a program does not call. Remove them before")
    return traced(module.program(ctx), ctx.name, plan.target.annotate)
