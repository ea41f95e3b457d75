"""Exact windows behind layers that raise the rate: groups of entries move by whole positions, at 1e-10 in double precision."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.windows import check
from tests.long import by_turns

EVERYTHING = co.WindowPlan()


class Up(nn.Module):
    """A convolution with a stride, a way up, and what takes its entries."""

    def __init__(self, up: Any, behind: Any = None, stride: int = 2) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3, stride, 1), nn.Conv1d(4, 4, 3, padding=1)
        self.up, self.behind, self.head = up, behind, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.b(torch.tanh(self.a(x))))
        y = y if self.behind is None else self.behind(torch.tanh(y))
        return self.head(y.amax(2) + y.std(2))


class Across(nn.Module):
    """Down twice and up twice, with connections across, after U-Net."""

    def __init__(self, mode: str = "transposed") -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(6, 6, 3, padding=1)
        self.u, self.v, self.mode = nn.ConvTranspose1d(6, 6, 4, 2, 1), nn.ConvTranspose1d(6, 4, 2, 2), mode
        self.d, self.e = nn.Conv1d(12, 6, 3, padding=1), nn.Conv1d(8 if mode == "transposed" else 10, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def up(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x) if self.mode == "transposed" else F.interpolate(x, scale_factor=2, mode=self.mode)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        b = F.relu(self.b(F.max_pool1d(a, 2)))
        c = F.relu(self.c(F.avg_pool1d(b, 2)))
        d = torch.tanh(self.d(torch.cat((b, self.up(self.u, c)), 1)))
        return self.head(self.norm(self.e(torch.cat((a, self.up(self.v, d)), 1))).amax(2))


class Images(nn.Module):
    """Time and space up together, and frames merged with the rows up in space alone."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.a, self.up = nn.Conv2d(2, 3, 3, 2, 1), nn.ConvTranspose2d(3, 3, (3, 4), 2, 1, (1, 0))
        self.b, self.head, self.mode = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3), mode

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, S)
        y = torch.tanh(self.a(x))
        y = self.b(self.up(y) if self.mode == "transposed" else F.interpolate(y, scale_factor=2, mode=self.mode))
        b, c, t, s = y.shape
        rows = F.interpolate(y.transpose(1, 2).reshape(b * t, c, s), scale_factor=1.5, mode="linear", align_corners=True)
        return self.head(rows.mean(2).view(b, t, c).amax(1))


def transposed(size: int, factor: int, pad: int = 0, more: int = 0, dilation: int = 1) -> nn.Module:
    return nn.ConvTranspose1d(4, 4, size, factor, pad, more, dilation=dilation)


class Interpolate(nn.Module):
    def __init__(self, factor: int, mode: str) -> None:
        super().__init__()
        self.factor, self.mode = factor, mode

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode)


class Cut(nn.Module):
    """A stretch of the entries, every so many."""

    def __init__(self, *place: int) -> None:
        super().__init__()
        self.place = slice(*place)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.place]


UPS = {
    "2 by 2": lambda: transposed(2, 2),
    "4 by 2": lambda: transposed(4, 2, 1),
    "3 by 2": lambda: transposed(3, 2, 1, 1),
    "5 by 3, padded": lambda: transposed(5, 3, 1),
    "3 by 2, dilated": lambda: transposed(3, 2, 2, 1, 2),
    "3 by 1": lambda: transposed(3, 1, 1),
    "longer": lambda: transposed(4, 2),
    "nearest": lambda: Interpolate(2, "nearest"),
    "linear": lambda: Interpolate(3, "linear"),
    "twice": lambda: nn.Sequential(transposed(2, 2), nn.Tanh(), Interpolate(2, "linear"), transposed(4, 2, 1)),
}
BEHIND = {
    "nothing": lambda: None,
    "convolution": lambda: nn.Conv1d(4, 4, 3, padding=1),
    "stride 2": lambda: nn.Conv1d(4, 4, 4, 2, 1),
    "pools": lambda: nn.Sequential(nn.MaxPool1d(3, 1, 1), nn.AvgPool1d(2, 2)),
    "cut": lambda: nn.Sequential(nn.ConstantPad1d((1, 1), 0.5), Cut(3, -3), nn.Conv1d(4, 4, 3, dilation=2, padding=2)),
    "every other": lambda: Cut(1, None, 2),
}
PAIRS = [pair for pair in product(UPS, BEHIND) if pair != ("3 by 2, dilated", "every other")]  # of which the bias alone is left


@pytest.mark.parametrize("up, behind", by_turns(PAIRS, 6))
@pytest.mark.parametrize("every", [1, None])
def test_entries_of_a_raised_rate(up, behind, every):
    check(Up(UPS[up](), BEHIND[behind]()), (3, 48), windows=co.WindowPlan(every=every))


LEAST = [
    (lambda: Up(transposed(4, 2, 1), nn.Conv1d(4, 4, 3, padding=1)), (3, 64), {}, 0.7),
    (lambda: Up(Interpolate(2, "linear"), BEHIND["cut"](), stride=1), (3, 64), {}, 0.7),
    (lambda: Up(UPS["twice"](), BEHIND["stride 2"](), stride=4), (3, 128), {"every": 4}, 0.6),
    (Across, (3, 96), {"every": 1}, 0.6),
    (lambda: Across("linear"), (3, 96), {}, 0.6),
    (lambda: Across("nearest"), (3, 96), {"every": 2}, 0.5),
    (lambda: Images("transposed"), (2, 32, 6), {"every": 1}, 0.7),
    (lambda: Images("bilinear"), (2, 32, 6), {}, 0.6),
]


@pytest.mark.parametrize("module, shape, options, least", LEAST)
def test_windows_take_over_what_is_behind_it(module, shape, options, least):
    assert check(module(), shape, windows=co.WindowPlan(**options)).windows.reuse >= least


def test_nothing_is_followed_where_groups_are_not_full():
    """63 entries are no groups of two: what is behind them is computed on the window, and right."""
    net: Any = check(Across(), (3, 64), windows=EVERYTHING)
    odd: Any = check(Up(transposed(3, 2), nn.Conv1d(4, 4, 3, padding=1)), (3, 48), windows=EVERYTHING)
    assert odd.windows.reuse < net.windows.reuse
