"""A module's window as tasks, the schedules that compute it, and the program of a converted module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from ....core.op_rows import format_refusals
from ....core.timing import Window
from ....errors import NotStreamable
from ..axes import BATCH, TIME, Dims, where
from ..capture import Captured
from ..values import Stream
from ..walker import Walked
from . import rules  # noqa: F401 (they register themselves)
from .frame import Frame, frame_of
from .instruction import Windows
from .plan import Schedule, planned, reusable
from .report import WindowPlan
from .rolling import Carry
from .tasks import Select, Slice, Task, WindowInput
from .walk import Walk

MOST_STRIDES = 4  # at which what windows take over may end, of those that are tried


@dataclass
class Windowed:
    """A module's window as tasks.

    Attributes:
        walk: what made them.
        outputs: the tasks of the scores.
        frames: which entries of the module's outputs they are, where they are one frame of these.
        tasks: those that the scores need.
    """

    walk: Walk
    outputs: list[Task]
    frames: tuple[Frame | None, ...] = ()

    def __post_init__(self) -> None:
        self.frames = self.frames or (None,) * len(self.outputs)
        self.tasks = needed(self.walk.tasks, self.outputs)

    @property
    def length(self) -> int:
        """Frames of a window."""
        return next(t.wire.n for t in self.tasks if isinstance(t, WindowInput))

    @property
    def sequence(self) -> bool:
        """Whether an output has frames still."""
        return any(t.wire.timed for t in self.outputs)

    def at_frame(self, index: int, dims: Sequence[int | None]) -> Windowed:
        """One frame of each output that has frames.

        Args:
            index: which one.
            dims: where frames are in outputs whose positions are lost; ``None``: such an output has no frames, and stays.

        Raises:
            IndexError: there is no such frame.
        """
        found, frames = list[Task](), list[Frame | None]()
        for out, lost in zip(self.outputs, dims, strict=True):
            dim = out.wire.dim if out.wire.timed else lost
            task, frame = (out, None) if dim is None else frame_of(self.walk, out, dim, index)
            found.append(task)
            frames.append(frame)
        return Windowed(self.walk, found, tuple(frames))

    @property
    def apart(self) -> Task | None:
        """The first operation that splits the frames of a value, one by one or in groups. ``None``: there is none."""
        taken: dict[int, list[Select | Slice]] = {}
        for task in self.tasks:
            if isinstance(task, (Select, Slice)) and all(disjoint(task, other) for other in taken.get(id(task.inputs[0]), [])):
                taken.setdefault(id(task.inputs[0]), []).append(task)
        return next((found[0] for found in taken.values() if len(found) > 1), None)

    def every(self) -> int:
        """Frames from one window to the next: the largest number that is the common stride of the shared values."""
        strides = self.strides
        candidates = sorted({math.lcm(*strides[i:]) for i in range(len(strides))} | set(strides), reverse=True)
        for every in candidates:
            if math.lcm(1, *(t.wire.stride for t in self.tasks if reusable(t, every))) == every:
                return every
        return 1

    @property
    def strides(self) -> list[int]:
        """The strides of values that later windows share, the largest first."""
        return sorted({t.wire.stride for t in self.tasks if t.wire.timed and t.wire.clean}, reverse=True)

    def check_length(self, plan: WindowPlan) -> None:
        """Refuse a plan for windows of another length.

        Raises:
            ValueError: it is one.
        """
        if plan.length not in (None, self.length):
            raise ValueError(
                f"continual: {plan!r} is for windows of {plan.length} frames, and the example has {self.length}. Give an example of "
                f"{plan.length} frames, or a plan without length"
            )

    def complete(self, plan: WindowPlan) -> WindowPlan:
        """A plan with all its numbers, and the smallest stride that means the same."""
        every = self.every() if plan.every is None else plan.every
        stride = next((s for s in self.strides if plan.stride is None or s <= plan.stride), 0)
        found = WindowPlan(stride, every, self.length)
        return found if self.schedule(found).takes_over else replace(found, stride=0)

    def ways(self, every: int) -> list[WindowPlan]:
        """Plans to choose from: each window again; all that windows have in common; and only what is before some stride, since later
        operations are few, and bound by reading weights."""
        plans = [self.complete(WindowPlan(s, every)) for s in (None, *self.strides[1:MOST_STRIDES])]
        return [WindowPlan(0, every, self.length), *(p for p in dict.fromkeys(plans) if p.stride)]

    def schedule(self, plan: WindowPlan) -> Schedule:
        """The schedule of a window that follows other windows, by a complete plan."""
        most, every = plan.stride or 0, plan.every or 1
        return planned(self.tasks, self.outputs, every, lambda task: task.wire.stride <= most)

    def by_itself(self, every: int) -> Schedule:
        """The schedule of a window that follows no other."""
        return planned(self.tasks, self.outputs, every, None)

    def of(self, schedule: Schedule) -> Schedule:
        """Whole windows, and the values that the windows of a schedule share."""
        own = [schedule.tasks[h.task] for h in schedule.histories if not isinstance(h, Carry)]
        return planned(self.tasks, own, schedule.every, None)

    def reuse(self, every: int) -> float:
        """The share of a window's multiply-adds that windows have in common with those before."""
        whole = self.by_itself(every).macs
        return max(0.0, 1 - self.schedule(self.complete(WindowPlan(every=every))).macs / whole) if whole else 0.0

    def program(self, plan: WindowPlan) -> Walked:
        """A program of one instruction, like that of a converted stream, by a complete plan."""
        made, streams = self._instruction(plan)
        draft = self.walk.draft
        draft.instructions = [made]
        return Walked(draft, streams, [], None)

    def _instruction(self, plan: WindowPlan) -> tuple[Windows, list[Stream]]:
        draft, every = self.walk.draft, plan.every or 1
        entries = [t for t in self.tasks if isinstance(t, WindowInput)]
        wire = draft.wires.then(0, Window(self.length, every))
        streams = [Stream(draft.new_slot(), in_rows(t, self.walk.rows), wire, t.dtype, True) for t in self.outputs]
        made = Windows(
            "windows", f"windows of {self.length} every {every}", "", self.length, every, plan, self.schedule(plan),
            self.by_itself(every),
            tuple(t.wire.dims for t in entries), tuple(s.dims for s in streams), tuple(s for _, s in self.walk.entry_slots),
            tuple(s.slot for s in streams), tuple(t.dtype for t in self.outputs), wire, rows=self.walk.rows,
        )  # fmt: skip
        return made, streams


def windowed(captured: Captured, module: nn.Module) -> Windowed:
    """Walk an exported window.

    Raises:
        NotStreamable: the module draws random numbers, changes its buffers, or gives something else than tensors.
    """
    walk = Walk(captured, module)
    outputs = walk.follow()
    if walk.refusals:
        found = tuple(walk.refusals)
        raise NotStreamable(format_refusals(type(module).__name__, found), found)
    walk.draft.windowed = True
    return Windowed(walk, outputs)


def needed(tasks: Sequence[Task], outputs: Sequence[Task]) -> list[Task]:
    """The tasks that the outputs need, each after its inputs, and all streams."""
    wanted = {id(t) for t in outputs}
    found = []
    for task in reversed(tasks):
        if id(task) in wanted or isinstance(task, WindowInput):
            wanted |= {id(t) for t in task.inputs}
            found.append(task)
    return found[::-1]


def disjoint(a: Select | Slice, b: Select | Slice) -> bool:
    """Whether two tasks read no frame in common."""
    (own, *_), *_ = a.reach(((0, a.wire.n),))
    (other, *_), *_ = b.reach(((0, b.wire.n),))
    return own.hi <= other.lo or other.hi <= own.lo


def in_rows(task: Task, rows: int | None = None) -> Dims:
    """The layout of a score, windows in the rows.

    Args:
        rows: the number of rows, if the graph has a fixed one: then they are the first dimension.
    """
    if rows is not None and task.wire.dims and task.wire.dims[0] in ((rows,), (BATCH,)):
        return ((BATCH, TIME), *task.wire.dims[1:])
    dims = tuple(tuple(task.wire.n if f == TIME else f for f in d) for d in task.wire.dims)
    at = where(dims, BATCH)
    if at is None:
        raise NotStreamable(
            f"'{task.path}' mixes the rows of the batch: every row is a stream of its own. Remedy: keep the batch as a dimension of its own"
        )
    i = dims[at].index(BATCH)
    return tuple((*d[: i + 1], TIME, *d[i + 1 :]) if k == at else d for k, d in enumerate(dims))
