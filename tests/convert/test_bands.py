"""Bands of a spectrum as rows of their own, as full-band and sub-band enhancers have them, with statistics of the frames so far."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.cases import noise
from tests.convert.rows import Fn, Row, check_row, fn
from tests.programs.rows import check_rows


def repeated(x: Tensor) -> Tensor:
    """The mean of the frames so far, by positions that are repeated for all rows and bands."""
    b, c, t = x.shape
    numbers = torch.arange(1, t + 1, dtype=x.dtype).reshape(1, t).repeat(b * c, 1)
    return (x.reshape(b * c, t).cumsum(1) / numbers).reshape(b, c, t) * x


def bands(x: Tensor) -> Tensor:
    """Each frequency with its neighbours, ``(B, F, 3, T)``."""
    b, c, t = x.shape
    padded = F.pad(x.reshape(b, 1, c, t), (0, 0, 1, 1), mode="reflect")
    return F.unfold(padded, (3, t)).reshape(b, 1, 3, t, c).permute(0, 4, 1, 2, 3).reshape(b, c, 3, t)


class Enhancer(nn.Module):
    """A mask for each frequency of its neighbours, by a recurrent layer that all frequencies share."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        y = bands(x).reshape(b * c, 3, t)
        so_far = torch.arange(3, 3 * t + 1, 3, dtype=x.dtype).reshape(1, t).repeat(b * c, 1)
        y = y / (y.sum(1).abs().cumsum(-1) / so_far + 0.1).reshape(b * c, 1, t)
        return self.out(self.rnn(y.permute(0, 2, 1))[0]).permute(0, 2, 1).reshape(b, c, t)


ROWS = [
    fn("positions repeated for rows and bands", repeated, shape=(2, 3, 9), delay=0),
    fn("bands of all frames", bands, shape=(2, 5, 9), delay=0),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_bands(case: Row) -> None:
    """They were refused: a number of repetitions, or the size of a patch, depends on the length."""
    check_row(case)


@pytest.mark.parametrize("module", [Fn(repeated), Enhancer()], ids=["positions", "enhancer"])
def test_bands_in_programs(module: nn.Module) -> None:
    """Rows of bands met positions of another number of frames."""
    net = co.continual(module.eval(), noise(2, 5, 9))
    assert net.delay == 0
    check_rows(net, noise(2, 5, 17))
