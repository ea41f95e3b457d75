"""A long run (time and memory flat, no drift), and the bytes of state beside what they stand for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import continual as co

from .measure import WrongResult, require_equal
from .workloads import Workload

POINTS = 10
BANK = 97  # different frames that are fed in turn; prime, so that no ring or stride meets them in the same order


@dataclass(frozen=True)
class Point:
    """Where a long run stands: steps so far, resident megabytes (10⁶), µs per step since the point before."""

    steps: int
    rss: float
    micros: float


@dataclass(frozen=True)
class StateSize:
    """Bytes of a stream's state, and of the ``R - 1`` input frames that any exact method must know."""

    name: str
    state: int
    frames: int


def resident() -> float:
    """Resident memory of this process in megabytes (10⁶); the peak where the system tells no more."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _page() / 1e6
    except OSError:
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _page() -> int:
    import resource

    return resource.getpagesize()


def small_network() -> nn.Module:
    """Convolutions, an average with a temporal stride, activations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv1d(8, 8, 3), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 8, 5), nn.ReLU()).eval()


def long_run(steps: int, say: Callable[[Point], None] = lambda point: None) -> list[Point]:
    """Step a small network for long, and compare its last output with the plain module's on the last frames.

    Raises:
        WrongResult: if the last output is not what the plain module makes of the last frames.
    """
    with torch.inference_mode(False):  # ordinary parameters, as in a network that was loaded before
        plain = small_network()
        net = co.continual(plain)
    if steps < POINTS + net.receptive_field + 1:
        raise ValueError(f"a long run has more than {POINTS + net.receptive_field} steps, got {steps}")
    frames = list(torch.randn(BANK, 1, 8, generator=torch.Generator().manual_seed(1)).unbind())
    points: list[Point] = []
    done, last, at = 0, None, 0
    while done < steps:
        target = steps * (len(points) + 1) // POINTS
        start = time.perf_counter()
        for t in range(done, target):
            y = net.forward_step(frames[t % BANK])
            if y is not None:
                last, at = y, t
        took = time.perf_counter() - start
        points.append(Point(target, resident(), 1e6 * took / (target - done)))
        say(points[-1])
        done = target
    if last is None:
        raise WrongResult(f"no output in {steps} steps")
    window = torch.stack([frames[t % BANK] for t in range(at - net.receptive_field + 1, at + 1)], 2)
    require_equal(f"the output of step {at}", last.unsqueeze(2), plain(window))
    return points


def state_sizes(workloads: Sequence[Workload]) -> list[StateSize]:
    """State bytes of each workload at batch 1, float32."""
    sizes = []
    for workload in workloads:
        net = co.continual(workload.constant_rate(), **workload.options)
        state = net.init_state(workload.clip(1)[:, :, 0])
        sizes.append(StateSize(workload.name, state.nbytes, (net.receptive_field - 1) * workload.frame_bytes))
    return sizes


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that a call has allocated at once, beside what there was before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    profiler: Any = found.profiler
    events = profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
