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
from .exec_context import ExecContext
from .windows.instruction import Windows
from .windows.plan import Schedule
from .windows.report import WindowPlan
from .windows.window import Windowed

ENOUGH = 0.06  # seconds for each way
WORTH = 0.87  # of the time of recomputing: a smaller gain is not worth its state, and compilers may turn it round
LEAST, MOST = 4, 200  # runs of each
FINE = 1e-6  # seconds


@dataclass(frozen=True)
class Choice:
    """How windows are computed.

    Attributes:
        plan: complete.
        ratio: how much faster than the module on its frames, as far as it was measured.
    """

    plan: WindowPlan
    ratio: float | None


def fastest(window: Windowed, net: Any, ways: Sequence[WindowPlan], module: nn.Module, captured: Captured) -> Choice:
    """Measure the ways to compute a window, and choose.

    Args:
        window: the module's window.
        net: it as a converted module, whose constants are taken.
        ways: plans, first the one by which each window is computed again.
        module: the module itself.
        captured: the example.
    """
    one = fresh(captured.of_length(captured.steps, 1))
    runs = [_run_of(net, window.schedule(plan)) for plan in ways]
    whole, plain, *others = _least([lambda: module(*one), *runs])
    best = min(others, default=plain)
    if best > WORTH * min(whole, plain):
        return Choice(ways[0], whole / plain)
    return Choice(ways[1 + others.index(best)], whole / best)


def _run_of(net: Any, schedule: Schedule) -> Callable[[], object]:
    """A step of one row, with what it writes."""
    made: Windows = net._program.instructions[0]
    rows = made.rows or 1
    m = context_of(net, rows)
    streams = [i for i in net.io_layout.inputs if i.time is not None]
    new = min(schedule.every, made.length)
    frames = [
        torch.zeros(shape_of(d, rows, new), dtype=i.dtype, device=m.device) for d, i in zip(made.streams, streams, strict=True)
    ]
    buffers = [torch.zeros(h.layout.shape(rows, 2 * h.round), dtype=h.dtype, device=m.device) for h in schedule.histories]

    def run() -> None:
        kept = [h.layout.take(h.old(b, 0), rows) for h, b in zip(schedule.histories, buffers, strict=True)]
        _, added = schedule.run(m, frames, kept)
        for h, b, x in zip(schedule.histories, buffers, added, strict=True):
            own = h.layout.put(x, rows, h.new)
            for slot in h.slots(b, 0):
                slot.copy_(own)

    return run


def context_of(net: Any, rows: int, inputs: Sequence[Tensor] | None = None) -> ExecContext:
    """The execution context of a converted module, with its constants, for a number of rows.

    Args:
        inputs: the inputs that are not streams; by default of zeros.
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    if inputs is None:
        inputs = [torch.zeros(i.shape, dtype=i.dtype, device=device) for i in net.io_layout.inputs if i.time is None]
    return ExecContext(net._program.environment(inputs), net._program.wires, rows, device, [], None)


def _least(runs: Sequence[Callable[[], object]]) -> list[float]:
    """The minimum time of each run. The runs alternate, so that other load on the machine affects all of them."""
    spent, now = [float("inf")] * len(runs), clock()
    end = time.perf_counter() + ENOUGH * len(runs)
    with torch.no_grad():
        for count in range(MOST):
            if count >= LEAST and time.perf_counter() > end:
                break
            for i, run in enumerate(runs):
                start = now()
                run()
                if torch.cuda.is_initialized():  # so far, the work was only queued
                    torch.cuda.synchronize()
                spent[i] = min(spent[i], now() - start)
    return spent


def clock() -> Callable[[], float]:
    """The clock of short runs: the CPU time of this thread. By the wall clock, a busy machine makes long runs longer than many short ones.

    It is the wall clock where a GPU works beside the thread, or where CPU time is counted in coarse units.
    """
    if torch.cuda.is_initialized() or time.get_clock_info("thread_time").resolution > FINE:
        return time.perf_counter
    return time.thread_time
