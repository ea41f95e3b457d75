"""Exact windows as one instruction of a converted module: it runs the module on the last frames, at regular intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....core.state import InitContext, StateNode, StepSpec
from ....errors import ShapeMismatch
from ..axes import BATCH, TIME, Dims, View, shape_of, where
from ..exec_context import ExecContext
from ..instructions import Instruction
from .kept import BufferViews, History
from .plan import Schedule
from .report import WindowPlan
from .rolling import Carry
from .wire import HistoryLayout


@dataclass(eq=False)
class Windows(Instruction):
    """Windows of ``length`` frames, one for each ``every`` frames.

    Between calls it keeps the frames of an incomplete hop, and the values that windows take over from each other. These are in
    mirrored buffers: each new value is written twice, so that the last values are always contiguous.

    Attributes:
        plan: the complete plan of the schedule.
        schedule: how a window is computed after another one.
        alone: how a window is computed alone.
        streams: the layouts of the streams.
        leaving: the layouts of the outputs, with windows in the batch dimension.
        dtypes: of the outputs.
        rows: for how many rows the module's graph is; ``None``: any.
    """

    path: str
    label: str
    source: str
    length: int
    every: int
    plan: WindowPlan
    schedule: Schedule
    alone: Schedule
    streams: tuple[Dims, ...]
    leaving: tuple[Dims, ...]
    inputs: tuple[int, ...]
    outs: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    wire: int = 1
    state_node: int = 0
    has_dtypes = True
    rows: int | None = None
    note: str = ""

    @property
    def reads(self) -> tuple[int, ...]:
        """The slots of constants that it reads."""
        found: dict[int, None] = {}
        for task in self.schedule.tasks:
            found |= dict.fromkeys(task.reads)
        return tuple(found)

    # ---- clips ----------------------------------------------------------------------------------------------------------

    def clip(self, m: ExecContext) -> None:
        """The module on each window of a clip."""
        frames, whole = m.frames[0], [m.env[s] for s in self.inputs]
        if frames < self.length:
            raise ShapeMismatch(
                f"a clip of {frames} steps is shorter than the module's window of {self.length}: it has no score. Give {self.length} steps "
                "or more, or convert the module on a shorter clip"
            )
        found = []
        for first in range(0, frames - self.length + 1, self.every):
            window = [_narrow(x, d, first, self.length) for x, d in zip(whole, self.streams, strict=True)]
            found.append(self.computed(m, self.alone, window, [])[0])
        self._leave(m, found)

    def _leave(self, m: ExecContext, found: Sequence[Sequence[Tensor]]) -> None:
        """Scores of windows, behind each other in the rows."""
        m.frames[self.wire] = len(found)
        for i, (slot, dims) in enumerate(zip(self.outs, self.leaving, strict=True)):
            m.env[slot] = stacked([f[i] for f in found], dims) if found else None

    def computed(
        self, m: ExecContext, schedule: Schedule, frames: Sequence[Tensor], kept: Sequence[Tensor], warm: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """A window: its scores, and what is added to each history."""
        if self.rows is None or m.batch == self.rows:
            return schedule.run(m, frames, kept, warm)
        return self._in_groups(m, schedule, frames, kept, warm)

    def _in_groups(
        self, m: ExecContext, schedule: Schedule, frames: Sequence[Tensor], kept: Sequence[Tensor], warm: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run a graph of a fixed batch size on one group of rows after another. The last row fills an incomplete group."""
        rows, batch, found = self.rows or 1, m.batch, []
        try:
            for first in range(0, batch, rows):
                index = torch.arange(first, first + rows).clamp(max=batch - 1)
                m.batch = rows
                own = [x.index_select(_rows(d), index.to(x.device)) for x, d in zip(frames, self.streams, strict=True)]
                old = [
                    x.index_select(_rows(h.wire.dims), index.to(x.device)) for x, h in zip(kept, schedule.histories, strict=True)
                ]
                found.append(schedule.run(m, own, old, warm))
        finally:
            m.batch = batch
        scores = _joined([f[0] for f in found], self.leaving, batch)
        added = _joined([f[1] for f in found], [h.wire.dims for h in schedule.histories], batch)
        return scores, added

    # ---- streams --------------------------------------------------------------------------------------------------------

    @property
    def before(self) -> int:
        """How many frames are missing in the first hop, so that a hop ends with the frame that completes the first window."""
        return -self.length % self.every

    def hops(self, frames: int) -> int:
        """How many hops are complete after a number of frames."""
        return (frames + self.before) // self.every

    def full(self, hop: int) -> bool:
        """Whether a hop, by its number, completes a window."""
        return (hop + 1) * self.every - self.before >= self.length

    def open(self, m: ExecContext, init: InitContext) -> list[StateNode]:
        tensors: dict[str, Tensor] = {}
        for i, (slot, dims) in enumerate(zip(self.inputs, self.streams, strict=True)):
            x = m.env[slot]
            if x.shape != (wanted := shape_of(dims, m.batch, 1)):
                raise ShapeMismatch(
                    f"steps of the shape {tuple(x.shape)}, time being 1: the module's window was captured with {tuple(wanted)}"
                )
            if self.every > 1:
                tensors[f"frames{i or ''}"] = x.new_zeros(HistoryLayout(dims).shape(m.batch, self.every))
        for i, h in enumerate(self.schedule.histories):
            shape = h.layout.shape(m.batch, 2 * h.round)
            tensors[f"window{i}"] = torch.zeros(shape, dtype=h.dtype, device=m.device)
        m.frames[self.wire] = 1
        for slot, dims, dtype in zip(self.outs, self.leaving, self.dtypes, strict=True):
            m.env[slot] = torch.zeros(shape_of(dims, m.batch, 1), dtype=dtype, device=m.device)
        scores = [View(d).enter(m.env[s], m.batch, 1) for s, d in zip(self.outs, self.leaving, strict=True)]
        out = [StepSpec.of(y.select(2, 0)) for y in scores]
        node = StateNode(init, f"windows of {self.length} by {self.plan!r}", out[0] if len(out) == 1 else out, tensors)
        node.plan = repr(self.plan)
        return [node]

    def chunk(self, m: ExecContext) -> None:
        node, call, count = m.nodes[self.state_node], m.call, m.frames[0]
        seen = node.n_in + count
        chunk = None if m.env[self.inputs[0]] is None or not count else [m.env[s] for s in self.inputs]
        m.ends[self.wire] = max(0, (m.ends[0] - self.length) // self.every + 1)
        found = [] if chunk is None else self._hops(m, node, chunk, call.in_place)
        call.tick(node, seen, max(0, (seen - self.length) // self.every + 1))
        self._leave(m, found)

    def step(self, m: ExecContext) -> None:
        node = m.nodes[self.state_node]
        if m.env[self.inputs[0]] is None:
            found: list[list[Tensor]] = []
        else:
            found = self._hops(m, node, [m.env[s] for s in self.inputs], True)
        seen = node.n_in + 1
        m.call.ticks.append((node, seen, max(0, (seen - self.length) // self.every + 1)))
        self._leave(m, found)

    def _hops(self, m: ExecContext, node: StateNode, chunk: list[Tensor], in_place: bool) -> list[list[Tensor]]:
        """The scores of the windows that frames complete. The new state goes to the call."""
        waiting = (node.n_in + self.before) % self.every
        first = self.hops(node.n_in)
        count = self.hops(node.n_in + chunk[0].shape[_time(self.streams[0])]) - first
        whole = self._waited(m, node, chunk, waiting, count, in_place)
        if not count:
            return []
        buffers = node.tensors[len(self.streams) * (self.every > 1) :]
        if count == 1 and in_place:
            return self._one(m, node, whole, buffers, first)
        kinds = [Latest if isinstance(h, Carry) else Tape for h in self.schedule.histories]
        tapes = [t(h, h.old(b, first), count) for t, h, b in zip(kinds, self.schedule.histories, buffers, strict=True)]
        found = []
        for i in range(count):
            frames = self._last(whole, i)
            kept = [t.history.layout.take(t.now(i), m.batch) for t in tapes]
            full = self.full(first + i)
            scores, added = self.computed(m, self.schedule, frames, kept, warm=not full)
            for tape, x in zip(tapes, added, strict=True):
                tape.add(i, tape.history.layout.put(x, m.batch, tape.history.new))
            found += [scores] if full else []
        for i, tape in enumerate(tapes):
            m.call.put(node, i + len(self.streams) * (self.every > 1), tape.history.buffer(tape.now(count), first + count))
        return found

    def _one(
        self, m: ExecContext, node: StateNode, frames: list[Tensor], buffers: Sequence[Tensor], hop: int
    ) -> list[list[Tensor]]:
        """One window, whose new values are written into the buffers."""
        if node.memo is None:
            node.memo = BufferViews(self.schedule.histories, buffers, m.batch)
        views, full = node.memo, self.full(hop)
        kept, slots = views.at(hop)
        scores, added = self.computed(m, self.schedule, self._last(frames, 0), kept, warm=not full)
        scores = [views.apart(y) for y in scores]
        for h, places, x in zip(self.schedule.histories, slots, added, strict=True):
            own = views.apart(h.layout.put(x, m.batch, h.new))
            m.call.slots.extend([(place, own) for place in places])
        return [scores] if full else []

    def _last(self, whole: list[Tensor], hop: int) -> list[Tensor]:
        """The frames of a hop; of a hop longer than a window, the last frames."""
        new = min(self.every, self.length)
        return [_narrow(x, d, (hop + 1) * self.every - new, new) for x, d in zip(whole, self.streams, strict=True)]

    def _waited(
        self, m: ExecContext, node: StateNode, chunk: list[Tensor], waiting: int, hops: int, in_place: bool
    ) -> list[Tensor]:
        """The waiting frames followed by the new ones. The incomplete hop at their end waits."""
        if not waiting and chunk[0].shape[_time(self.streams[0])] == hops * self.every:
            return chunk  # complete hops alone: nothing waits, before or after them
        whole = []
        for i, (x, dims) in enumerate(zip(chunk, self.streams, strict=True)):
            layout, buffer, count = HistoryLayout(dims), node.tensors[i], x.shape[_time(dims)]
            at = layout.at
            own = layout.put(x, m.batch, count)
            if not hops and in_place:
                m.call.slots.append((buffer.narrow(at, waiting, count), own))
                continue
            own = torch.cat((buffer.narrow(at, 0, waiting), own), at) if waiting else own
            left = waiting + count - hops * self.every
            rest = own.narrow(at, hops * self.every, left)
            m.call.put(node, i, torch.cat((rest, torch.zeros_like(buffer.narrow(at, 0, self.every - left))), at))
            whole.append(layout.take(own, m.batch))
        return whole


class Tape:
    """What windows take over from each other while several are computed in a row."""

    def __init__(self, history: History, old: Tensor, hops: int):
        self.history, self.at = history, history.layout.at
        self.written = not torch.is_grad_enabled()
        if self.written:
            shape = [*old.shape[: self.at], history.size + hops * history.new, *old.shape[self.at + 1 :]]
            self.entries = old.new_empty(shape)
            self.entries.narrow(self.at, 0, history.size).copy_(old)
        else:
            self.entries = old

    def now(self, hop: int) -> Tensor:
        """The last entries, after a number of hops."""
        return self.entries.narrow(self.at, hop * self.history.new, self.history.size)

    def add(self, hop: int, x: Tensor) -> None:
        """What a hop adds."""
        if self.written:
            self.entries.narrow(self.at, self.history.size + hop * self.history.new, self.history.new).copy_(x)
        else:
            self.entries = torch.cat((self.entries, x), self.at)


class Latest(Tape):
    """What windows take over, for values that each window replaces as a whole."""

    def __init__(self, history: History, old: Tensor, hops: int):
        self.history, self.entries = history, old

    def now(self, hop: int) -> Tensor:
        return self.entries

    def add(self, hop: int, x: Tensor) -> None:
        self.entries = x


def _time(dims: Dims) -> int:
    return dims.index((TIME,))


def _rows(dims: Dims) -> int:
    found = where(dims, BATCH)
    return 0 if found is None else found


def _joined(found: Sequence[Sequence[Tensor]], layouts: Sequence[Dims], batch: int) -> list[Tensor]:
    """Values of some rows after the other as those of all."""
    if not found[0]:
        return []
    parts = zip(*found, strict=True)
    return [torch.cat(p, _rows(d)).narrow(_rows(d), 0, batch) for p, d in zip(parts, layouts, strict=True)]


def _narrow(x: Tensor, dims: Dims, first: int, count: int) -> Tensor:
    return x.narrow(_time(dims), first, count)


def stacked(parts: Sequence[Tensor], dims: Dims) -> Tensor:
    """Scores of windows behind each other in the rows."""
    if len(parts) == 1:
        return parts[0]
    at = _rows(dims)
    others = shape_of((dims[at][2:],), 1, 1)[0]
    apart = [p.reshape([*p.shape[:at], p.shape[at] // others, others, *p.shape[at + 1 :]]) for p in parts]
    return torch.stack(apart, at + 1).flatten(at, at + 2)
