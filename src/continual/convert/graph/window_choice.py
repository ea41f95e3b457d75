"""Which way to compute windows is the fastest here: measured once, when a module is converted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .axes import shape_of
from .capture import Captured, fresh
from .instructions import ExecContext
from .windows.instruction import Windows
from .windows.plan import Schedule
from .windows.tasks import Entry, Task
from .windows.window import Windowed, always, never

ENOUGH = 0.06  # seconds for each way
LEAST, MOST = 3, 200  # runs of each


@dataclass(frozen=True)
class Choice:
    """What was measured.

    Attributes:
        shared: which operations' values windows take over.
        recomputed: whether that is none.
        ratio: how much faster than the module on its frames.
        seconds: of a window.
    """

    shared: Callable[[Task], bool]
    recomputed: bool
    ratio: float
    seconds: float


@dataclass(frozen=True)
class Below:
    """Take over values of up to a stride: the later ones are few, and what computes them is bound by reading weights."""

    stride: int

    def __call__(self, task: Task) -> bool:
        return task.wire.stride <= self.stride


def fastest(window: Windowed, net: Any, every: int, module: nn.Module, captured: Captured) -> Choice:
    """Measure the ways to compute a window, and choose.

    Args:
        window: the module's window.
        net: it as a converted module, whose constants are taken.
        every: frames from a window to the next.
        module: the module itself.
        captured: the example.
    """
    one = fresh(captured.of_length(captured.steps, 1))
    whole = _seconds(lambda: module(*one))
    plain = _of_schedule(net, window.plan(every, never))
    best: Choice | None = None
    for shared in _ways(window):
        schedule = window.plan(every, shared)
        if all(isinstance(schedule.tasks[h.task], Entry) for h in schedule.histories):
            continue
        took = _of_schedule(net, schedule)
        if best is None or took < best.seconds:
            best = Choice(shared, False, whole / took, took)
    if best is None or best.seconds >= plain or best.ratio <= 1.0:
        return Choice(never, True, 1.0, plain)
    return best


def _ways(window: Windowed) -> list[Callable[[Task], bool]]:
    """All that windows have in common; and only what is before some stride."""
    strides = sorted({t.wire.stride for t in window.tasks if t.wire.timed and t.wire.clean})
    return [always, *(Below(s) for s in strides[-4:-1][::-1])]


def _of_schedule(net: Any, schedule: Schedule) -> float:
    """Seconds of a window, of one row."""
    made: Windows = net._program.instructions[0]
    rows = made.rows or 1
    m = moment_of(net, rows)
    streams = [i for i in net.io_layout.inputs if i.time is not None]
    new = min(schedule.every, made.length)
    frames = [
        torch.zeros(shape_of(d, rows, new), dtype=i.dtype, device=m.device) for d, i in zip(made.streams, streams, strict=True)
    ]
    kept = [
        h.shelf.take(torch.zeros(h.shelf.shape(rows, h.size), dtype=h.dtype, device=m.device), rows) for h in schedule.histories
    ]
    return _seconds(lambda: schedule.run(m, frames, kept))


def moment_of(net: Any, rows: int, given: Sequence[Tensor] | None = None) -> ExecContext:
    """A moment of a converted module: with its constants, for so many rows.

    Args:
        given: the inputs that are no streams; by default of zeros.
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    if given is None:
        given = [torch.zeros(i.shape, dtype=i.dtype, device=device) for i in net.io_layout.inputs if i.time is None]
    return ExecContext(net._program.environment(given), net._program.wires, rows, device, [], None)


def _seconds(run: Callable[[], Any]) -> float:
    """The least time of some runs: often enough to tell, and not for long."""
    spent: list[float] = []
    end = time.perf_counter() + ENOUGH
    with torch.no_grad():
        while len(spent) < LEAST or (len(spent) < MOST and time.perf_counter() < end):
            start = time.perf_counter()
            run()
            spent.append(time.perf_counter() - start)
    return min(spent)
