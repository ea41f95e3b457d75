"""How long a step takes, and how long what people do without us: the module on its window."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import continual as co

from .compare import cut, leaves, one
from .network import Network

SECONDS = 0.25  # for each of the two
LEAST, MOST = 3, 300


def least(run: Callable[[], object], seconds: float = SECONDS) -> float:
    """The least time of some runs."""
    spent: list[float] = []
    end = time.perf_counter() + seconds
    with torch.no_grad():
        run()
        while len(spent) < LEAST or (len(spent) < MOST and time.perf_counter() < end):
            start = time.perf_counter()
            run()
            spent.append(time.perf_counter() - start)
            if spent[-1] > 4 * seconds:
                break
    return min(spent)


def rows_of(module: nn.Module, network: Network) -> int | None:
    """One row, if the module takes a batch of one; else those of the example (``None``)."""
    try:
        with torch.no_grad():
            module(*network.inputs(rows=1))
    except (RuntimeError, ValueError, IndexError):
        return None
    return 1


def window_of(net: Any, module: nn.Module, network: Network, rows: int | None) -> tuple[Tensor, ...]:
    """The clip on which the module is recomputed: its receptive field, where that is known and the module takes it; else the example."""
    if getattr(net, "windows", None) is None and not net.unbounded_memory and net.receptive_field < 2 * network.frames:
        field = net.receptive_field
        for frames in [field, *(-(-field // n) * n for n in (4, 16, 64))]:
            inputs = network.inputs(frames, rows=rows)
            try:
                with torch.no_grad():
                    if any(y.numel() for y in leaves(module(*inputs))):
                        return inputs
            except Exception:  # whatever people's modules raise on a length that they are not for
                continue
    return network.inputs(rows=rows)


def feeding(net: Any, network: Network, rows: int | None) -> tuple[Callable[[], object], int]:
    """A call in mid-stream with the frames that complete the next outputs (``net.step_size`` of them); how many frames it has."""
    chunk, dims = int(net.step_size), network.time_dims
    before = net.delay + 1 + -(net.delay + 1) % chunk
    frames = -(-(before + chunk) // network.frames) * network.frames
    clip = network.inputs(frames, rows=rows)
    given = [x.clone() for x in cut(clip, dims, before, chunk)]
    with torch.no_grad():
        net.forward_steps(*cut(clip, dims, 0, before))
    if chunk > 1:
        return lambda: net.forward_steps(*given), chunk
    frame = one(given, dims)
    return lambda: net.forward_step(*frame), chunk


def measured(net: Any, module: nn.Module, network: Network) -> tuple[float, float, float]:
    """Seconds for a frame and of the module on its window, and how much faster the calls that bring outputs are than windows for them."""
    rows = rows_of(module, network)
    window = window_of(net, module, network, rows)
    run, frames = feeding(net, network, rows)
    whole, spent = least(lambda: module(*window)), least(run)
    net.clean_state()
    return spent / frames, whole, whole / spent


def compiled(net: Any, module: nn.Module, network: Network) -> float:
    """How much faster calls of the compiled program are than the compiled module on a window for each output."""
    rows = rows_of(module, network)
    window = window_of(net, module, network, rows)
    frame = one(cut(network.inputs(rows=rows), network.time_dims, 0, 1), network.time_dims)
    program: Any = co.compile(net, frame[0] if len(frame) == 1 else tuple(frame))
    state = [program.init_state()]
    frames = -(-program.chunk // network.frames) * network.frames
    chunk = cut(network.inputs(frames, rows=rows), network.time_dims, 0, program.chunk)

    def call() -> None:
        state[0] = program(*chunk, state[0])[2]

    torch.backends.mha.set_fastpath_enabled(False)  # torch.compile can't follow it
    whole = torch.compile(module, dynamic=False)
    outputs = max(1, round(program.chunk / float(net.timing.stride)))
    return least(lambda: whole(*window)) * outputs / least(call)
