"""`fastest_windows`: which way to compute exact windows is the fastest in compiled programs, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ..convert.conversion import GraphOptions, continual
from ..convert.graph.window_choice import clock
from ..convert.graph.windows.report import WindowPlan
from ..core.step_spec import Inputs
from ..programs.compile import Backend, compile

LEAST = 5  # calls of each program


@dataclass(frozen=True)
class WindowTimes:
    """How long a call of a compiled program takes, by the plan of its windows.

    Attributes:
        seconds: the least time of a call, for each plan.
    """

    seconds: dict[WindowPlan, float]

    @property
    def plan(self) -> WindowPlan:
        """The fastest plan."""
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """How much faster it is than to compute each window again."""
        anew = next(t for plan, t in self.seconds.items() if not plan.stride)
        return anew / self.seconds[self.plan]

    def __str__(self) -> str:
        rows = [f"{plan!r}: {1e6 * t:,.0f} µs" for plan, t in sorted(self.seconds.items(), key=lambda item: item[1])]
        return "\n".join(rows)


def fastest_windows(
    module: nn.Module, clip: Inputs, *, backend: Backend = "inductor", seconds: float = 0.5, **options: Unpack[GraphOptions]
) -> WindowTimes:
    """Measure the ways to compute exact windows of a module in compiled programs.

    ``co.continual`` measures in eager mode, in which many small operations cost more than a compiler makes of them. There, a module may
    be faster on each window again, and compiled it is not. Each way is compiled here, which takes its time.

    Args:
        module, clip, options: as :func:`~continual.continual` takes them, except for ``windows``. The rows of the clip are those of the
            programs.
        backend: as :func:`~continual.compile` takes it.
        seconds: for each way. They take turns, so that whatever else the machine does meets all of them.

    Returns:
        The times, and the fastest plan: for ``co.continual(module, clip, windows=times.plan)``.

    Raises:
        ValueError: ``windows`` among the options.
        NotStreamable: as :func:`~continual.continual` and :func:`~continual.compile`.

    Example:
        >>> module = nn.Sequential(nn.Conv1d(3, 8, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
        >>> clip = torch.randn(1, 3, 40)
        >>> times = co.fastest_windows(module, clip, backend="eager", seconds=0.01)
        >>> net = co.continual(module, clip, windows=times.plan)
        >>> sorted(plan.stride for plan in times.seconds)
        [0, 1]
    """
    if options.get("windows") is not None:
        raise ValueError("fastest_windows: tries several plans for windows=, so leave it out")
    own: dict[str, Any] = {k: v for k, v in options.items() if k not in ("windows", "every")}
    first: Any = continual(module, clip, windows=WindowPlan(0, options.get("every")), **own)
    nets = {plan: continual(module, clip, windows=plan, **own) for plan in first.windows.ways}
    calls = [_call_of(net, clip, backend) for net in nets.values()]
    return WindowTimes(dict(zip(nets, _least(calls, seconds), strict=True)))


def _call_of(net: Any, clip: Inputs, backend: Backend) -> Callable[[], None]:
    """A call of the compiled program, which goes on from the one before."""
    inputs: list[Any] = list(clip) if isinstance(clip, (list, tuple)) else [clip]
    times = net.time_dims
    steps = [x if t is None else x.select(t, 0) for x, t in zip(inputs, times, strict=True)]
    program = compile(net, steps if len(steps) > 1 else steps[0], backend=backend)
    chunks = [x if t is None else _frames(x, t, program.chunk) for x, t in zip(inputs, times, strict=True)]
    state = program.init_state()

    def call() -> None:
        nonlocal state
        _, _, state = program(chunks if len(chunks) > 1 else chunks[0], state)

    return call


def _frames(x: Tensor, dim: int, count: int) -> Tensor:
    """So many frames of a clip, repeated where it has fewer."""
    whole = torch.cat([x] * -(-count // x.shape[dim]), dim) if count > x.shape[dim] else x
    return whole.narrow(dim, 0, count)


def _least(calls: Sequence[Callable[[], None]], seconds: float) -> list[float]:
    """The least time of each of some calls, which take turns."""
    spent, now = [float("inf")] * len(calls), clock()
    with torch.inference_mode():
        for call in calls:
            call()  # compiles
        end, rounds = time.perf_counter() + seconds * len(calls), 0
        while rounds < LEAST or time.perf_counter() < end:
            rounds += 1
            for i, call in enumerate(calls):
                start = now()
                call()
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()
                spent[i] = min(spent[i], now() - start)
    return spent
