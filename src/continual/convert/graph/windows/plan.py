"""The schedule of a window: what is computed, and what is kept for the next window. It is planned once, from the outputs back to the
frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..exec_context import ExecContext
from .ending import Ending, ended
from .kept import History
from .rolling import Recurrent, Start, carry_of
from .tasks import Block, Get, Item, Slice, Task, Value, WindowInput
from .wire import Axis, Ranges, Wire, count, cut, merged


@dataclass(frozen=True)
class Part:
    """A range of an operation's input: computed values, entries of a history, or a fill value."""

    kind: str  # "computed" | "kept" | "fill"
    start: int
    length: int
    step: int = 1


@dataclass(frozen=True)
class Gather:
    """How the input positions that an operation needs are assembled."""

    task: int
    item: int | None
    axis: Axis | None  # None: the value as it is
    parts: tuple[Part, ...] = ()
    history: int = -1
    fill: float = 0.0

    def __call__(self, m: ExecContext, values: list[Value], kept: Sequence[Tensor]) -> Value:
        if self.axis is not None and not self.parts:
            return None
        value = values[self.task]
        if self.item is not None:
            value = value[self.item]
        if self.axis is None:
            return value
        axis, batch = self.axis, m.batch
        own = None if value is None else axis.split(value, batch)
        like = own if own is not None else picked(kept[self.history], axis.apart, 0, 1, 1)
        found = []
        for part in self.parts:
            if part.kind == "computed":
                found.append(own.narrow(axis.apart, part.start, part.length))  # type: ignore[union-attr]
            elif part.kind == "fill":
                shape = [*like.shape[: axis.apart], part.length, *like.shape[axis.apart + 1 :]]
                found.append(like.new_full(shape, self.fill))
            else:
                found.append(picked(kept[self.history], axis.apart, part.start, part.length, part.step))
        return axis.merge(found[0] if len(found) == 1 else torch.cat(found, axis.apart), batch)

    def bound(self) -> Get:
        """:meth:`__call__`, with all decided that is the same in every window."""
        number, item, axis = self.task, self.item, self.axis
        if axis is None:
            return (lambda m, values, kept: values[number]) if item is None else lambda m, values, kept: values[number][item]
        if not self.parts:
            return lambda m, values, kept: None
        if len(self.parts) > 1 or self.parts[0].kind == "fill" or item is not None or not axis.alone:
            return self
        part, at = self.parts[0], axis.apart
        start, size, step = part.start, part.length, part.step
        if part.kind == "computed":
            return lambda m, values, kept: values[number].narrow(at, start, size)
        history = self.history
        return lambda m, values, kept: picked(kept[history], at, start, size, step)


def picked(kept: Any, at: int, start: int, length: int, step: int) -> Tensor:
    """Entries ``start, start + step, …`` of a history: of a tensor in dimension ``at``, or by the history's own ``pick``."""
    if not isinstance(kept, Tensor):
        found: Tensor = kept.pick(start, length, step)
        return found
    x = kept.narrow(at, start, (length - 1) * step + 1)
    return x if step == 1 else x[(slice(None),) * at + (slice(None, None, step),)]


NOWHERE = Axis(0, (), ())  # of a value that is not needed


@dataclass(frozen=True)
class Kept:
    """The value of an operation that is read from a history as it is."""

    history: int
    task: int = -1

    def __call__(self, m: ExecContext, values: list[Value], kept: Sequence[Tensor]) -> Value:
        return kept[self.history]


@dataclass(frozen=True)
class Step:
    """One operation of a schedule."""

    index: int
    task: Task
    ranges: Ranges
    gathers: tuple[Gather | Kept, ...]
    frees: tuple[int, ...]  # values that nothing needs behind it

    def bound(self) -> Get:
        """How its value is computed, with all decided that is the same in every window."""
        return self.task.bound(self.ranges, [g.bound() if isinstance(g, Gather) else g for g in self.gathers])


Bound = tuple[int, Get, tuple[int, ...]]  # a value's number, how it is computed, and which values are not needed any more


@dataclass
class Schedule:
    """A window as a static sequence of operations.

    Attributes:
        tasks: all operations; values are known by their numbers.
        steps: those that run.
        warm: the steps that compute what is kept.
        histories: what is kept.
        outputs: how the outputs are put together.
        entries: the numbers of the streams that come in, and how many of the last frames of the window come again.
    """

    tasks: list[Task]
    every: int
    steps: list[Step] = field(default_factory=list)
    warm: list[Step] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)
    outputs: list[Gather] = field(default_factory=list)
    computed: dict[int, Ranges] = field(default_factory=dict)

    def run(
        self, m: ExecContext, frames: Sequence[Tensor], kept: Sequence[Tensor], warm: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The outputs of a window, and what is added to each history.

        Args:
            m: constants and the number of rows.
            frames: of each stream those that are new, in the module's layout.
            kept: the histories, with their positions apart.
            warm: compute only what is kept: the window is not full yet, and has no outputs.
        """
        values: list[Value] = [None] * len(self.tasks)
        for index, number in self._entries:
            values[index] = frames[number]
        for index, run, frees in self._warm_runs if warm else self._runs:
            values[index] = run(m, values, kept)
            for freed in frees:
                values[freed] = None
        added = [h.added(values[h.task], m) for h in self.histories]
        return ([] if warm else [g(m, values, kept) for g in self.outputs]), added

    @cached_property
    def _entries(self) -> list[tuple[int, int]]:
        """The values that are frames which come in, and of which stream."""
        return [(i, task.number) for i, task in enumerate(self.tasks) if isinstance(task, WindowInput)]

    @cached_property
    def _runs(self) -> list[Bound]:
        return [(step.index, step.bound(), step.frees) for step in self.steps if not isinstance(step.task, WindowInput)]

    @cached_property
    def _warm_runs(self) -> list[Bound]:
        return [(step.index, step.bound(), ()) for step in self.warm if not isinstance(step.task, WindowInput)]

    def __getstate__(self) -> dict[str, Any]:
        """Copies bind their operations themselves."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_runs", "_warm_runs")}

    @property
    def takes_over(self) -> bool:
        """Whether more is kept than frames."""
        return not all(isinstance(self.tasks[h.task], WindowInput) for h in self.histories)

    @property
    def macs(self) -> int:
        """Multiply-adds of a window and row."""
        return round(sum(step.task.macs * step.task.share(step.ranges) for step in self.steps))


Shared = Callable[[Task], bool]


def in_step(wire: Wire, every: int) -> bool:
    """Whether values move by whole positions from one window to the next, or windows by whole strides."""
    return every % wire.stride == 0 or wire.stride % every == 0


def reusable(task: Task, every: int) -> bool:
    """Whether windows can reuse values of earlier windows."""
    wire = task.wire
    if not wire.timed or task.items or task.whole or not in_step(wire, every):
        return False
    return wire.a + wire.b + max(1, every // wire.stride) < wire.n


class Planner:
    """Plans a schedule.

    Args:
        tasks: all operations, each behind its inputs.
        outputs: those whose values leave.
        every: frames from one window to the next.
        shared: which operations' values windows take over, among those where that is possible; ``None``: none, and the input is all
            frames of the window.
    """

    def __init__(self, tasks: Sequence[Task], outputs: Sequence[Task], every: int, shared: Shared | None):
        self.tasks, self.every, self.shared = list(tasks), every, shared
        self.number = {id(t): i for i, t in enumerate(self.tasks)}
        self.asked: dict[int, list[tuple[int, int]]] = {}
        self.schedule = Schedule(self.tasks, every)
        self.history_of: dict[int, int] = {}
        self.carry_of: dict[int, int] = {}
        self._plan(outputs)

    def _plan(self, outputs: Sequence[Task]) -> None:
        made = self.schedule
        for out in outputs:
            self._ask(out, (Block(0, out.wire.n),) if out.wire.timed else ())
        for index in range(len(self.tasks) - 1, -1, -1):
            if index in self.asked:
                self._roll(index, merged(self.asked[index]))
                task = self.tasks[index]
                made.computed[index] = self._computed(index, task, merged(self.asked[index]))
                for source, blocks in zip(task.inputs, task.reach(made.computed[index]), strict=True):
                    self._ask(source, blocks)
        made.outputs = [self._gather(out, (Block(0, out.wire.n),) if out.wire.timed else (), None, 0.0) for out in outputs]
        for index in sorted(made.computed):
            task, ranges = self.tasks[index], made.computed[index]
            gathers = tuple(
                self._gather(source, blocks, task.index if isinstance(task, Item) else None, task.fill)
                for source, blocks in zip(task.inputs, task.reach(ranges), strict=True)
            )
            own = (Kept(self.carry_of[index]),) if index in self.carry_of else ()
            made.steps.append(Step(index, task, ranges, (*gathers, *own), ()))
        made.steps = self._freed(made.steps)
        made.warm = self._needed_for_histories(made.steps)

    def _roll(self, index: int, asked: Ranges) -> None:
        """Of a recurrent layer compute the end alone, or run the open windows as one batch, where nothing else is needed."""
        task = self.tasks[index]
        if not isinstance(task, Recurrent):
            return
        states = any(isinstance(t, Item) and t.index and t.inputs[0] is task for i, t in enumerate(self.tasks) if i in self.asked)
        if not states and (end := ended(task, asked)) is not None:
            self.tasks[index] = end
            return
        if self.shared is None or not self.shared(task):
            return
        rolled = task.rolled(self.every, self._start)
        if rolled is not None and asked in ((), ((task.wire.n - 1, task.wire.n),)):
            self.tasks[index] = rolled
            self.carry_of[index] = len(self.schedule.histories)
            self.schedule.histories.append(carry_of(index, rolled))

    def _start(self, task: Task, count: int) -> Start:
        """How the first positions of a task are computed from the first frames of a window."""
        wire = Wire(task.wire.dims, count, task.wire.stride)
        head = Slice(task.path, "first positions", task.source, (task,), wire, dtype=task.dtype)
        own = Planner([*self.tasks[: self.number[id(task)] + 1], head], [head], self.every, None)
        entries = sorted((t for t in own.tasks if isinstance(t, WindowInput)), key=lambda t: t.number)
        frames = max(hi for t in entries for _, hi in own.asked.get(own.number[id(t)], [(0, 0)]))
        return Start(own.schedule, tuple(entries), frames)

    def _ask(self, task: Task, blocks: Sequence[Block] | None) -> None:
        if blocks is None or (task.wire.timed and not task.items and not blocks and not isinstance(task, WindowInput)):
            return
        n, known = task.wire.n, self.asked.setdefault(self.number[id(task)], [])
        real = [(max(0, b.lo), min(n, b.hi)) for b in blocks if max(0, b.lo) < min(n, b.hi)]
        known += real or ([(n - 1, n)] if blocks else [])  # fill alone needs a real position for its shape

    def _computed(self, index: int, task: Task, asked: Ranges) -> Ranges:
        """Which positions are computed. The other positions that are needed come from a history."""
        wire = task.wire
        if index in self.carry_of:
            return ((wire.n - 1, wire.n),)
        if isinstance(task, Ending):
            return asked
        if not wire.timed and not task.items:
            return ((0, 1),) if task.single else ()
        whole = ((0, wire.n),)
        if self.shared is None or not (isinstance(task, WindowInput) or (reusable(task, self.every) and self.shared(task))):
            return whole if task.whole or isinstance(task, WindowInput) else asked
        new = min(wire.n, max(1, self.every // wire.stride))
        edge = wire.n - wire.b - new
        old = cut(asked, wire.a, edge)
        if not old:
            return merged([*asked, (edge, wire.n)]) if isinstance(task, WindowInput) else asked
        rate, first = max(1, wire.stride // self.every), old[0][0]
        size = (edge - first) * rate
        ranges = merged([*cut(asked, 0, wire.a), (edge, edge + new), *cut(asked, edge, wire.n)])
        self.history_of[index] = len(self.schedule.histories)
        self.schedule.histories.append(History(index, first, rate, new, size, _place(ranges, edge), wire, task.dtype))
        return ranges

    def _gather(self, task: Task, blocks: Sequence[Block] | None, item: int | None, fill: float) -> Gather:
        """How some positions of a value are assembled."""
        index = self.number[id(task)]
        if blocks is None:
            return Gather(index, item, NOWHERE)
        wire, computed = task.item(item), self.schedule.computed.get(index, ())
        if not wire.timed:
            return Gather(index, item, None)
        if not blocks:
            return Gather(index, item, wire.axis)
        history = self.history_of.get(index, -1)
        parts: list[Part] = []
        for block in blocks:
            for part in self._parts(wire, block, computed, history):
                last = parts[-1] if parts else None
                if last is not None and last.kind == part.kind and last.step == part.step and _goes_on(last, part):
                    parts[-1] = Part(last.kind, last.start, last.length + part.length, last.step)
                else:
                    parts.append(part)
        if parts == [Part("computed", 0, count(computed))]:
            return Gather(index, item, None)
        return Gather(index, item, wire.axis, tuple(parts), history, fill)

    def _parts(self, wire: Wire, block: Block, computed: Ranges, history: int) -> list[Part]:
        found: list[Part] = []
        if block.lo < 0:
            found.append(Part("fill", 0, min(0, block.hi) - block.lo))
        p, end = max(0, block.lo), min(wire.n, block.hi)
        while p < end:
            own = next(((lo, hi) for lo, hi in computed if lo <= p < hi), None)
            if own is not None:
                stop = min(end, own[1])
                found.append(Part("computed", _place(computed, p), stop - p))
            else:
                h = self.schedule.histories[history]
                stop = min(end, h.first + h.size // h.rate)
                found.append(Part("kept", (p - h.first) * h.rate, stop - p, h.rate))
            p = stop
        after = max(0, block.hi - max(wire.n, block.lo)) + block.more
        if after:
            found.append(Part("fill", 0, after))
        return found

    def _freed(self, steps: list[Step]) -> list[Step]:
        """Steps that release a value after its last use."""
        kept = {h.task for h in self.schedule.histories} | {g.task for g in self.schedule.outputs} | {Kept.task}
        found: list[Step] = []
        for step in reversed(steps):
            last = tuple({g.task for g in step.gathers} - kept)
            kept |= {g.task for g in step.gathers}
            found.append(Step(step.index, step.task, step.ranges, step.gathers, last))
        return found[::-1]

    def _needed_for_histories(self, steps: list[Step]) -> list[Step]:
        needed = {h.task for h in self.schedule.histories}
        found = []
        for step in reversed(steps):
            if step.index in needed:
                needed |= {g.task for g in step.gathers}
                found.append(step)
        return found[::-1]


def _place(ranges: Ranges, position: int) -> int:
    """Where a position is among the computed ones."""
    at = 0
    for lo, hi in ranges:
        if lo <= position < hi:
            return at + position - lo
        at += hi - lo
    raise IndexError(f"position {position} is not in {ranges}")


def _goes_on(a: Part, b: Part) -> bool:
    return a.kind == "fill" or b.start == a.start + a.length * a.step


def planned(tasks: Sequence[Task], outputs: Sequence[Task], every: int, shared: Any) -> Schedule:
    """Plan a schedule: as :class:`Planner`."""
    return Planner(tasks, outputs, every, shared).schedule
