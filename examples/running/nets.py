"""Four small networks for streams, with weights that are known rather than learnt: what comes out can be seen to be right.

They are ordinary clip networks of torch.nn; `continual run` converts them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _fixed(conv: nn.Conv1d | nn.Conv3d, weight: Tensor) -> nn.Module:
    with torch.no_grad():
        conv.weight.copy_(weight)
    return conv


def low_pass(cutoff: float = 500.0, rate: float = 8000.0, taps: int = 257) -> nn.Module:
    """Takes what is above a frequency out of a sound: a windowed sinc, as one convolution."""
    n = torch.arange(taps) - taps // 2
    kernel = torch.sinc(2 * cutoff / rate * n) * torch.hann_window(taps + 2, periodic=False)[1:-1]
    return _fixed(nn.Conv1d(1, 1, taps, padding=taps // 2, bias=False), (kernel / kernel.sum()).view(1, 1, -1))


class Square(nn.Module):
    """The square of each number."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x


def beats(rate: float = 360.0) -> nn.Module:
    """Where the heart beats in an ECG: slope, square, mean over 150 ms (the first half of the method of Pan and Tompkins)."""
    slope = _fixed(nn.Conv1d(1, 1, 5, padding=2, bias=False), torch.tensor([-1.0, -2.0, 0.0, 2.0, 1.0]).view(1, 1, -1) / 8)
    window = round(0.15 * rate) // 2 * 2 + 1
    return nn.Sequential(slope, Square(), nn.AvgPool1d(window, 1, window // 2))


def trend(steps: int = 97) -> nn.Module:
    """The mean and the slope of a sensor over a day of quarter hours, the newest value last: it looks into the past alone."""
    n = torch.arange(steps) - (steps - 1) / 2
    kernels = torch.stack([torch.full((steps,), 1 / steps), 4 * n / (n * n).sum()])  # the slope in units an hour
    return nn.Sequential(nn.ConstantPad1d((steps - 1, 0), 20.0), _fixed(nn.Conv1d(1, 2, steps, bias=False), kernels.unsqueeze(1)))


class Movement(nn.Module):
    """How likely it is that the left, the middle or the right third of a picture moves: ``(B, 3, T, H, W)`` to ``(B, 3, T)``."""

    def __init__(self) -> None:
        super().__init__()
        change = torch.zeros(1, 3, 3, 1, 1)
        change[0, :, 0], change[0, :, 2] = -1 / 3, 1 / 3
        self.change = _fixed(nn.Conv3d(3, 1, (3, 1, 1), padding=(1, 0, 0), bias=False), change)
        self.thirds = nn.AdaptiveAvgPool3d((None, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.thirds(self.change(x).abs())  # (B, 1, T, 1, 3)
        return 600 * y[:, 0, :, 0].transpose(1, 2)


def movement() -> nn.Module:
    """See :class:`Movement`."""
    return Movement()


def tone(seconds: float, rate: float = 8000.0, seed: int = 0) -> Tensor:
    """Plucked notes below 450 Hz, with hiss."""
    t = torch.arange(int(seconds * rate)) / rate
    notes = 220 * 2 ** (torch.tensor([0, 3, 7, 12, 7, 3])[(t * 2).long() % 6] / 12)
    phase = torch.cumsum(2 * math.pi * notes / rate, 0)
    return 0.5 * torch.exp(-6 * (t % 0.5)) * torch.sin(phase) + 0.12 * torch.randn(
        t.shape, generator=torch.Generator().manual_seed(seed)
    )
