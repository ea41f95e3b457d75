"""The report on exact windows, and the plan by which they are computed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WindowPlan:
    """How the windows of a converted module are computed. The same plan gives the same state on every machine, and nothing is measured.

    ``net.windows.plan`` is the plan of a network; ``co.continual(module, clip, windows=plan)`` builds another one like it.

    Args:
        stride: later windows take over the values of operations whose outputs are up to so many frames apart. ``0``: none, every window
            is computed again. ``None``: all that windows have in common.
        every: frames from one window to the next; ``None``: the stride of what windows have in common.
        length: frames of a window; ``None``: those of the example. Another example is refused.

    Example:
        >>> module = nn.Sequential(nn.Conv1d(3, 8, 5, padding=2), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
        >>> here = co.continual(module, torch.randn(1, 3, 40))  # the fastest way on this machine
        >>> there = co.continual(module, torch.randn(1, 3, 40), windows=here.windows.plan)
        >>> _ = here.forward_steps(torch.randn(1, 3, 50))
        >>> there.set_state(here.get_state())
        >>> co.continual(module, torch.randn(1, 3, 40), windows=co.WindowPlan(stride=0)).windows.recomputed
        True
    """

    stride: int | None = None
    every: int | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("stride", 0), ("every", 1), ("length", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ValueError(f"WindowPlan: {name} is a number of frames, {least} or more, or None, not {value!r}")


@dataclass(frozen=True)
class WindowReport:
    """How the scores of a converted module's windows are computed.

    Attributes:
        length: frames of a window.
        every: frames from one window to the next.
        mode: ``"exact"``: each score is the module's own of its window; ``"stream"``: the module over an endless stream.
        reuse: the share of a window's multiply-adds that windows take over from those before, where they do.
        recomputed: whether windows are computed again instead: since that is faster here, or by the plan.
        ratio: how much faster a window is than the module on its frames, measured here; where nothing was measured 1 for recomputed
            windows, and ``None`` for others.
        plan: what decides on the state, complete; ``None`` for a stream.
        ways: the plans that there are to choose from.
    """

    length: int
    every: int
    mode: str
    reuse: float
    recomputed: bool
    ratio: float | None
    plan: WindowPlan | None = None
    ways: tuple[WindowPlan, ...] = ()
