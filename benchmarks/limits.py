"""What this machine can do, measured beside the rows: products of matrices, and copying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

import continual as co
from continual.core.state import frames
from continual.layers.window import SlidingWindow

from .timing import Local, alternate

GEMMS = ((1024, 1024, 1024), (64, 1728, 3136), (2048, 2048, 512))  # rows, products, columns


PEAKS: dict[int, float] = {}  # what was measured, or is known from another process, by threads


def gemm_peak(threads: int) -> float:
    """Floating-point operations a second of a float32 product of matrices: the best of several shapes, each in its best round, by torch's
    library for them and by oneDNN, which is twice as fast on some processors."""
    if threads in PEAKS:
        return PEAKS[threads]
    best = 0.0
    for m, k, n in GEMMS:
        for call in products(m, k, n):
            best = max(best, 2 * m * k * n / min(alternate([Local("gemm", call)], 9).rounds["gemm"]))
    PEAKS[threads] = best
    return best


def products(m: int, k: int, n: int) -> Iterator[Callable[[], Any]]:
    """Ways to multiply matrices of so many rows, products and columns."""
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    yield lambda: torch.mm(a, b, out=out)
    if torch.backends.mkldnn.is_available():
        weight = torch.ops.mkldnn._reorder_linear_weight(b.t().contiguous(), m)
        yield lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "")


def copying(nbytes: int) -> Callable[[], Any]:
    """A copy within a working set of so many bytes: half of them read, half written."""
    source = torch.randn(max(1, nbytes // 8))
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


@cache
def copy_time(nbytes: int, threads: int) -> float:
    """Seconds to move a working set, without what a call of a copy costs by itself."""
    full, empty = Local("full", copying(nbytes)), Local("empty", copying(8))
    timings = alternate([full, empty], 9)
    return max(1e-9, min(timings.rounds["full"]) - min(timings.rounds["empty"]))


@dataclass(frozen=True)
class Limit:
    """The least that a step can take, and why.

    Attributes:
        seconds: a step.
        bound: ``"compute"`` or ``"memory"``.
        operations: multiply-adds of a step.
        nbytes: that a step moves at least: weights and what it reads of the state, the frame that comes, what is kept of it in each
            window, and what leaves. What goes from layer to layer need not leave the registers, and is left out.
    """

    seconds: float
    bound: str
    operations: float
    nbytes: int

    @staticmethod
    def of(net: Any, frame: Any, threads: int, period: int = 1) -> Limit:
        """Of a network's steps, the mean over a period of them: what is at a lower rate may be read once in it."""
        found = co.operations(net, frame)
        mean = found.mean_executed
        operations = float(mean if mean is not None else 0) * frame.shape[0]
        nbytes = weights_of(net) + state_read(net, frame) + state_written(net, frame) + passed(net, frame)
        compute, memory = 2 * operations / gemm_peak(threads), copy_time(nbytes, threads) / period
        return Limit(max(compute, memory), "compute" if compute >= memory else "memory", operations, nbytes)


def weights_of(net: Any) -> int:
    """Bytes of parameters."""
    return sum(p.numel() * p.element_size() for p in net.parameters())


def state_read(net: Any, frame: Any) -> int:
    """Bytes of the state that a step reads: of rings that hold dilated taps, the taps."""
    total = 0.0
    for name, tensor in net.init_state(frame).tensors.items():
        path, _, _ = name.rpartition(".")
        try:
            layer = net.part(path) if path else net
        except AttributeError:  # a queue where branches meet again, which is read once
            layer = None
        share = 1.0
        if isinstance(layer, SlidingWindow) and layer._kept:
            share = min(1.0, (layer._taps - 1) / layer._kept)
        total += share * tensor.numel() * tensor.element_size()
    return int(total)


def state_written(net: Any, frame: Any) -> int:
    """Bytes that a step writes to the windows of its layers: the frame that comes to each. Other states are left out."""
    state = net.init_state(frame).tensors
    windows = [t for name, t in state.items() if name.rpartition(".")[2] == "window"]  # (B, frames, C, *S)
    return sum(t.numel() * t.element_size() // t.shape[1] for t in windows)


def passed(net: Any, frame: Any) -> int:
    """Bytes of the frame that comes and of the frame that leaves."""
    state = net.init_state(frame)
    return sum(f.nbytes for wire in (state.frame, state.node.out) for f in frames(wire))
