"""What a stream with gaps should be like, said in another way than the library does: the clip with its gaps filled. No tests are here."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import continual as co

POLICIES = ("hold", "zero", "value", "interpolate")
VALUE = -1.5


def options(gaps: str) -> dict[str, Any]:
    """Arguments of a stream."""
    return {"gaps": gaps} | ({"value": VALUE} if gaps == "value" else {})


def filled(clip: Tensor, came: list[int], gaps: str) -> Tensor:
    """A clip of which only some frames came, the first and the last among them.

    Args:
        clip: ``(B, C, T)``.
        came: the steps whose frames came, in order.
        gaps: one of the policies.
    """
    rows = clip.double().numpy()
    steps = np.arange(came[0], came[-1] + 1)
    if gaps == "interpolate":
        flat = rows.reshape(-1, rows.shape[-1])
        made = np.stack([np.interp(steps, came, row[came]) for row in flat]).reshape(*rows.shape[:2], -1)
        return torch.from_numpy(made).to(clip)
    there = np.isin(steps, came)
    source = np.maximum.accumulate(np.where(there, steps, 0)) if gaps == "hold" else steps
    made = rows[:, :, source].copy()
    if gaps != "hold":
        made[:, :, ~there] = VALUE if gaps == "value" else 0.0
    return torch.from_numpy(made).to(clip)


def stacked(outputs: list[co.StreamOutput]) -> Tensor:
    """Values of several outputs ``(B, C, n)``."""
    return torch.stack([out.value for out in outputs], 2)


def eventful(module: nn.Module) -> Any:
    """A module with weights that outputs can tell apart, in float64 and eval mode."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.6)
    return module.double().eval()


class UNet(nn.Module):
    """Down and up by 2 in time, with a connection across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(2, 3, 4, stride=2, padding=1), nn.ConvTranspose1d(3, 2, 4, stride=2, padding=1)
        self.mix = nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([x, self.up(torch.relu(self.down(x)))], 1))


def network(name: str) -> Any:
    """A network of two channels."""
    return NETWORKS[name]()


NETWORKS: dict[str, Any] = {
    "convolutions": lambda: eventful(co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.ReLU(), co.Conv1d(4, 3, 5, padding=2))),
    "causal": lambda: eventful(co.Sequential(co.ConstantPad1d((4, 0), 0.3), co.Conv1d(2, 3, 5))),
    "strides": lambda: eventful(co.Sequential(co.Conv1d(2, 4, 4, stride=2, padding=1), nn.Tanh(), co.Conv1d(4, 3, 3))),
    "upsampling": lambda: eventful(co.Sequential(co.Conv1d(2, 3, 3, padding=1), co.Upsample(scale_factor=2, mode="linear"))),
    "u-net": lambda: co.continual(eventful(UNet()), torch.randn(2, 2, 32, dtype=torch.float64)),
    "windows": lambda: co.continual(
        eventful(nn.Sequential(nn.Conv1d(2, 3, 5, stride=2, padding=2), nn.AdaptiveAvgPool1d(1), nn.Flatten())),
        torch.randn(2, 2, 12, dtype=torch.float64),
    ),
    "recurrent": lambda: eventful(co.Sequential(co.GRU(2, 4), co.Linear(4, 3, channel_dim=1))),
}


made = functools.cache(network)


def clip_of(steps: int, seed: int = 0) -> Tensor:
    """Noise, ``(2, 2, steps)``."""
    return torch.randn(2, 2, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def near(a: Tensor, b: Tensor) -> bool:
    """Whether outputs of streams are those of clips."""
    assert not a.requires_grad  # streams are for inference
    b = b.detach()
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-12 * max(1.0, float(b.abs().max())))


def same(a: list[co.StreamOutput], b: list[co.StreamOutput]) -> None:
    """Compare outputs bit by bit."""
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.value, other.value)
        assert (one.time, one.index, one.flags) == (other.time, other.index, other.flags)
