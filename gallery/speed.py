"""How long a step takes, and how long what people do without us: the module on its window."""

from __future__ import annotations

import re
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
ENDLESS = 1 << 40  # frames


def least(run: Callable[[], object], seconds: float = SECONDS, before: Callable[[], object] = lambda: None) -> float:
    """The least time of some runs; what comes before each of them takes no part in it."""
    spent: list[float] = []
    with torch.no_grad():
        before()
        run()
        while len(spent) < LEAST or (len(spent) < MOST and sum(spent) < seconds):
            before()
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
            if net.lengths == "own" and frames > network.frames:
                break  # a module for no longer clips may keep tables of the longest one
            inputs = network.inputs(frames, rows=rows)
            try:
                with torch.no_grad():
                    if any(y.numel() for y in leaves(module(*inputs))):
                        return inputs
            except Exception:  # whatever people's modules raise on a length that they are not for
                continue
    return network.inputs(rows=rows)


class Feeding:
    """Calls in mid-stream with the frames that complete the next outputs, ``net.step_size`` of them.

    They begin where the example ends, or behind the first output if that comes later. Where tables end, at the end of the
    example or later, the stream begins anew.

    Args:
        net: the converted network.
        network: its row.
        rows: of the batch; ``None``: those of the example.
        longest: begin anew after so many frames at the latest.

    Attributes:
        frames: of each call.
    """

    def __init__(self, net: Any, network: Network, rows: int | None, longest: int = ENDLESS):
        dims, own, self.frames = network.time_dims, network.frames, int(net.step_size)
        longest = own if _is_short(net, network, rows) else min(longest, _limit(net))
        opening = -(-(net.delay + 1) // self.frames) * self.frames
        opening = max(opening, (own if longest > own else own - self.frames) // self.frames * self.frames)
        clip = network.inputs(-(-(opening + self.frames) // own) * own, rows=rows)
        self._net, self._opening = net, [x.clone() for x in cut(clip, dims, 0, opening)]
        self._chunk = [x.clone() for x in cut(clip, dims, opening, self.frames)]
        self._frame = one(self._chunk, dims)
        self._most = max(1, (min(longest, ENDLESS) - opening) // self.frames)
        self._calls = self._most

    def ready(self) -> None:
        """Begin the stream anew, if the next call would be the first one, or go too far."""
        if self._calls == self._most:
            self._net.clean_state()
            self._net.forward_steps(*self._opening)
            self._calls = 0

    def __call__(self) -> object:
        self._calls += 1
        return self._net.forward_steps(*self._chunk) if self.frames > 1 else self._net.forward_step(*self._frame)


def _limit(net: Any) -> int:
    """The frames after which the stream ends, as the notes of the conversion say."""
    return min(
        (int(found[1]) for note in net.notes if (found := re.search(r"positions for (\d+) frames", note))), default=ENDLESS
    )


def _is_short(net: Any, network: Network, rows: int | None) -> bool:
    """Whether a stream ends with the example: there are tables of this length in it. Exact windows are of the example's length anyway."""
    if net.windows is not None:
        return False
    try:
        with torch.no_grad():
            net.forward_steps(*network.inputs(2 * network.frames, rows=rows))
    except Exception:  # whatever people's operations raise behind the end of a table
        return True
    finally:
        net.clean_state()
    return False


def measured(net: Any, module: nn.Module, network: Network) -> tuple[float, float, float]:
    """Seconds for a frame and of the module on its window, and how much faster the calls that bring outputs are than windows for them."""
    rows = rows_of(module, network)
    window = window_of(net, module, network, rows)
    whole, run = least(lambda: module(*window)), Feeding(net, network, rows)
    try:
        spent = least(run, before=run.ready)
    except (
        IndexError,
        RuntimeError,
    ):  # behind the end of a table that the conversion does not know of: positions summed up from a mask
        run = Feeding(net, network, rows, 2 * network.frames)
        spent = least(run, before=run.ready)
    net.clean_state()
    return spent / run.frames, whole, whole / spent


def compiled(net: Any, module: nn.Module, network: Network) -> float:
    """How much faster calls of the compiled program are than the compiled module on a window for each output."""
    rows = rows_of(module, network)
    window = window_of(net, module, network, rows)
    frame = one(cut(network.inputs(rows=rows), network.time_dims, 0, 1), network.time_dims)
    program: Any = co.compile(net, frame[0] if len(frame) == 1 else tuple(frame), backend="aot")
    state = [program.init_state()]
    frames = -(-program.chunk // network.frames) * network.frames
    chunk = cut(network.inputs(frames, rows=rows), network.time_dims, 0, program.chunk)

    def call() -> None:
        state[0] = program(*chunk, state[0])[2]

    torch.backends.mha.set_fastpath_enabled(False)  # torch.compile can't follow it
    whole = torch.compile(module, dynamic=False)
    outputs = max(1, round(program.chunk / float(net.timing.stride)))
    return least(lambda: whole(*window)) * outputs / least(call)
