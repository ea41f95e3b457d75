"""Rows whose outputs come several at once, every ``period`` steps: networks that go down and up in time.

What a user does without us is to recompute a window once per period, not once per step. All times are per step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import continual as co


class Skip(nn.Module):
    """A module, and its input beside its output."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.inner(x)), 1)


class CoSkip(co.BroadcastReduce):
    """The same on streams."""

    @staticmethod
    def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> CoSkip:
        assert isinstance(module, Skip)
        return CoSkip(co.Identity(), co.continual(module.inner), reduce="concat")


co.convert.register(Skip, CoSkip)


@dataclass(frozen=True)
class Burst:
    """The shortest aligned window that gives the outputs of one period.

    Attributes:
        stop: inputs after which the stream has returned these outputs.
        width: of the window, which ends at ``stop``.
        sent: the first of the outputs.
        first: its place among the window's outputs.
    """

    stop: int
    width: int
    sent: int
    first: int

    @staticmethod
    def of(net: Any, period: int) -> Burst:
        """Of a network of overall stride 1, in the middle of a stream."""
        timing = net.timing
        stop = -(-(timing.transient + 2 * net.receptive_field) // period) * period
        sent, last = timing.delivered(stop - period), timing.delivered(stop) - 1
        start = timing.span(sent, last)[0] // period * period
        return Burst(stop, stop - start, sent, sent - start)


def recompute(plain: nn.Module, first: Tensor, burst: Burst, period: int) -> Callable[[Tensor], Tensor]:
    """What a user does without us: the plain module on a clip buffer, whenever a period of frames ``(B, C, period, *S)`` is there."""
    buffer = first.clone()

    def step(frames: Tensor) -> Tensor:
        nonlocal buffer
        buffer = torch.cat((buffer[:, :, period:], frames), 2)
        y: Tensor = plain(buffer)
        return y[:, :, burst.first : burst.first + period]

    return step


def outputs(net: Any, clip: Tensor) -> Tensor:
    """The outputs of stepping through a clip."""
    return torch.cat([y for t in range(clip.shape[2]) if (y := net.forward_step(clip[:, :, t])) is not None], 2)


def check(net: Any, plain: nn.Module, clip: Tensor, period: int, require_equal: Callable[[str, Tensor, Tensor], None]) -> Tensor:
    """Check steps, chunks and windows against the plain module, on a clip that is longer than :attr:`Burst.stop`."""
    burst, expected = Burst.of(net, period), plain(clip)
    net.clean_state()
    require_equal("forward_step", outputs(net, clip), expected[:, :, : net.timing.delivered(clip.shape[2])])
    net.clean_state()
    require_equal("forward_steps", net.forward_steps(clip, pad_end=True), expected)
    net.clean_state()
    window = clip[:, :, burst.stop - burst.width - period : burst.stop - period]
    found = recompute(plain, window, burst, period)(clip[:, :, burst.stop - period : burst.stop])
    require_equal("window", found, expected[:, :, burst.sent : burst.sent + period])
    return expected


def calls(net: Any, plain: nn.Module, clip: Tensor, period: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A period of our steps, and of recomputing."""
    burst = Burst.of(net, period)
    frame, frames = clip[:, :, 0].clone(), clip[:, :, :period].clone()
    net.forward_steps(clip[:, :, : burst.stop])

    def steps() -> None:
        for _ in range(period):
            net.forward_step(frame)

    return steps, partial(recompute(plain, clip[:, :, : burst.width], burst, period), frames)
