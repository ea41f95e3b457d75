"""What random networks are made of: layers by the dimensions of a clip, and functions that a counter-example names. No tests are here."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import continual as co

CHANNELS = 2
SPACE = {1: (), 2: (3,), 3: (4, 3)}
CONV = {1: co.Conv1d, 2: co.Conv2d, 3: co.Conv3d}
AVG = {1: co.AvgPool1d, 2: co.AvgPool2d, 3: co.AvgPool3d}
UP = {1: co.ConvTranspose1d, 2: co.ConvTranspose2d, 3: co.ConvTranspose3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
MAX = {1: co.MaxPool1d, 2: co.MaxPool2d, 3: co.MaxPool3d}
LP = {1: co.LPPool1d, 2: co.LPPool2d, 3: co.LPPool3d}
PADS = {
    dims: [getattr(co, f"{kind}Pad{dims}d") for kind in ("Constant", "Zero", "Replication", "Reflection")] for dims in (1, 2, 3)
}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def flipped(step: Tensor) -> Tensor:
    """Channels in the other order."""
    return step.flip(1)


def doubled(clip: Tensor) -> Tensor:
    """Twice the values, of clips."""
    return clip * 2


def first(module: nn.Module, x: Tensor) -> bool:
    """The condition that holds."""
    return True


def second(module: nn.Module, x: Tensor) -> bool:
    """The condition that does not."""
    return False


def random_norm(cls: type[nn.Module], channels: int) -> nn.Module:
    """A batch norm with statistics and weights as if it were trained."""
    norm: Any = cls(channels)
    for value, low in ((norm.running_mean, -1), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -1)):
        nn.init.uniform_(value, low, low + 1.5)
    return norm.eval()
