"""Parts of a module under ``torch.autocast``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.cases import noise


class Parts(nn.Module):
    """A causal convolution and a cell, each in a part without autocast; clips are ``(B, T, 4)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv1d(4, 5, 3), nn.LSTMCell(5, 6)

    @torch.autocast("cpu", enabled=False)
    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(nn.functional.pad(x.mT, (2, 0))).mT
        return y, y.relu()

    @torch.autocast("cpu", enabled=False)
    def step(self, frame: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One frame."""
        new: tuple[Tensor, Tensor] = self.cell(frame, (h, c))
        return new

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.features(x)
        h = c = x.new_zeros(x.shape[0], 6)
        outs = []
        for frame in (y + z).unbind(1):
            h, c = self.step(frame, h, c)
            outs.append(h)
        return torch.stack(outs, 1)


def test_parts_without_it() -> None:
    """They were operations of their own, and converting a loop of them ended in a TypeError."""
    torch.manual_seed(0)
    module = Parts().eval()
    net = co.continual(module, noise(2, 9, 4), time_dim=1)
    x = noise(2, 17, 4)
    assert_equal(torch.cat([net.forward_steps(x[:, :5]), net.forward_steps(x[:, 5:], pad_end=True)], 1), module(x))


class Enabled(nn.Module):
    """A part in another dtype than the module says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5)

    @torch.autocast("cpu", dtype=torch.bfloat16)
    def part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        return y, y * 2

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.part(x)
        return y + z


def test_a_part_with_it_is_refused() -> None:
    with pytest.raises(co.NotStreamable, match="wrap_with_autocast"):
        co.continual(Enabled().eval(), noise(2, 9, 4), time_dim=1)
