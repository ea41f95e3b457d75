"""Exact windows as tables and as text: what is reused, the margins, and where the window is computed as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch

from ....core.op_rows import Row
from .plan import Schedule, Step
from .rolling import Carry, Rolling
from .tasks import Item, StaticInput, Task, WindowInput
from .wire import count

SHOWN = 3  # places that a note names


def rows_of_windows(
    schedule: Schedule, entries: Sequence[int], length: int, first: int, batch: int
) -> tuple[list[Row], dict[int, int]]:
    """A row for every operation of a window.

    Args:
        schedule: how a window is computed.
        entries: what stands for each stream, as in :class:`~continual.core.op_rows.Row`.
        length: frames of a window.
        first: the index of the first row.
        batch: rows of the state.

    Returns:
        The rows, and for every task the index of its row.
    """
    nbytes = {h.task: state_bytes_of(h.task, schedule, batch) for h in schedule.histories}
    at: dict[int, int] = {}
    rows: list[Row] = []
    waiting = 0
    for step in schedule.steps:
        task = step.task
        if isinstance(task, WindowInput):
            at[step.index], waiting = entries[task.number], waiting + nbytes.get(step.index, 0)
            continue
        inputs = tuple(dict.fromkeys(at[g.task] for g in step.gathers if g.task in at))
        if isinstance(task, (Item, StaticInput)):
            at[step.index] = inputs[0] if inputs else entries[0]
            continue
        stride = task.wire.stride if task.wire.timed else schedule.every
        own, waiting = nbytes.get(step.index, 0) + waiting, 0
        rows.append(
            Row(task.path, described(step), inputs, (0,) * len(inputs), Fraction(1, stride), length, length - 1, own, task.source)
        )
        at[step.index] = first + len(rows) - 1
    return rows, at


def state_bytes_of(task: int, schedule: Schedule, batch: int) -> int:
    """The bytes of the history of a task, in mirrored buffers."""
    found = [h for h in schedule.histories if h.task == task]
    return sum(torch.Size(h.layout.shape(batch, 2 * h.round)).numel() * h.dtype.itemsize for h in found)


def state_bytes(schedule: Schedule) -> int:
    """The bytes of state for one row, in mirrored buffers."""
    return sum(state_bytes_of(h.task, schedule, 1) for h in schedule.histories)


def described(step: Step) -> str:
    """An operation, and at how many positions it is computed."""
    task = step.task
    if isinstance(task, Rolling):
        return f"{task.label}, {task.windows} windows at once"
    if not task.wire.timed:
        return task.label
    if task.whole or count(step.ranges) == task.wire.n:
        return f"{task.label}, window"
    return f"{task.label}, {count(step.ranges)} of {task.wire.n}"


def ends_of_sharing(schedule: Schedule) -> list[Task]:
    """The operations whose inputs are shared between windows, but whose results are not."""
    kept = {h.task for h in schedule.histories if not isinstance(h, Carry)}
    found = []
    for step in schedule.steps:
        shared = any(g.task in kept and not isinstance(schedule.tasks[g.task], WindowInput) for g in step.gathers)
        if shared and not isinstance(step.task, Rolling) and not step.task.wire.clean * step.task.wire.timed:
            found.append(step.task)
    return found


def sharing_notes(schedule: Schedule) -> list[str]:
    """Where sharing ends, the margins there, and the state, as text."""
    notes = []
    ends = ends_of_sharing(schedule)
    if ends:
        places = [f"{t.path}{f' ({t.source})' if t.source else ''}" for t in ends[:SHOWN]]
        more = f" and {len(ends) - SHOWN} more" if len(ends) > SHOWN else ""
        notes.append(f"from {'; '.join(places)}{more} on the window is computed as a whole")
    for task in schedule.tasks:
        if isinstance(task, Rolling):
            notes.append(f"the {task.windows} windows that have begun go on as one batch in '{task.path}'")
    wide = [schedule.tasks[h.task] for h in schedule.histories if not isinstance(h, Carry) and schedule.tasks[h.task].inputs]
    if wide:
        last = max(wide, key=lambda t: (t.wire.a + t.wire.b) / t.wire.n)
        margins = f"{last.wire.a} + {last.wire.b} of {last.wire.n} positions at '{last.path}'"
        notes.append(f"the widest margins are {margins}; {state_bytes(schedule):,} bytes of state for a row")
    return notes
