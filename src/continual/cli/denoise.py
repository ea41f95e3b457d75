"""The network of the demonstration, written for clips, and its training. Only the last lines concern streams."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

import continual as co


class Residual(nn.Sequential):
    """A shortcut and a body, added."""

    def __init__(self, *body: nn.Module):
        super().__init__(nn.Identity(), nn.Sequential(*body))

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, T)`` to ``(B, C, T)``."""
        return self[0](input) + self[1](input)


def denoiser(channels: int = 24) -> nn.Sequential:
    """A network that sees 33 samples on both sides: dilated, residual, padded so that a clip keeps its length."""
    blocks = [
        Residual(
            nn.Conv1d(channels, channels, 3, padding="same", dilation=dilation),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )
        for dilation in (1, 2, 4, 8, 16)
    ]
    return nn.Sequential(nn.Conv1d(1, channels, 5, padding="same"), nn.ReLU(), *blocks, nn.Conv1d(channels, 1, 1))


def noise(size: tuple[int, ...], rate: float, generator: torch.Generator) -> Tensor:
    """Mains hum at random strengths and phases, and white noise."""

    def draw() -> Tensor:
        return torch.rand((*size[:-1], 1), generator=generator)

    time = torch.arange(size[-1]) / rate
    turn = 2 * math.pi
    hum = (0.3 + 0.3 * draw()) * torch.sin(turn * (min(50.0, rate / 5) * time + draw()))
    return hum + 0.35 * torch.randn(size, generator=generator)


def train(
    net: nn.Module, clean: Tensor, rate: float, steps: int, generator: torch.Generator, on_step: Callable[[float], None]
) -> None:
    """Train on random crops of a signal with fresh noise.

    Args:
        net: the network; afterwards it is in eval mode.
        clean: the signal ``(T,)``.
        rate: samples per second.
        on_step: called with the loss after each step.
    """
    size = min(256, clean.numel())
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for _ in range(steps):
        starts = torch.randint(0, clean.numel() - size + 1, (16,), generator=generator)
        target = torch.stack([clean[s : s + size] for s in starts.tolist()]).unsqueeze(1)
        target = target * (0.7 + 0.6 * torch.rand((16, 1, 1), generator=generator))
        loss = nn.functional.mse_loss(net(target + noise((16, 1, size), rate, generator)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        on_step(loss.item())
    net.eval()


class StreamingResidual(co.Residual):
    """The streaming version of :class:`Residual`: the shortcut waits for the body."""

    @staticmethod
    def build_from(module: nn.Module, *args: object, **kwargs: object) -> co.CoModule:
        """The streaming version of a :class:`Residual`."""
        return StreamingResidual(co.continual(module.get_submodule("1")))


co.convert.register(Residual, StreamingResidual)
