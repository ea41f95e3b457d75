"""Frames chosen by indices that follow from the length of the clip."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph.regular_index import regular_index
from tests.contract import assert_equal
from tests.convert.rows import No, Row, check_refused, check_row, fn, in_turns, no, row


class Windows(nn.Module):
    """Windows by indices behind a recurrent layer, which fixes the length in the export; their scores by `einsum`: ``(B, T, C)``."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.weight = nn.GRU(3, 4, batch_first=True), nn.Parameter(torch.randn(3, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(x)[0]
        windows = y[:, torch.arange(y.shape[1] - 2)[:, None] + torch.arange(3)]
        return torch.einsum("bnkc,kcd->bnd", windows, self.weight)


class LearnedShift(nn.Module):
    """Channels shifted by learned amounts, interpolated between two frames: ``(B, C, T)``."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([-1.7, -0.4, 0.3, 0.9, 1.6]))

    def forward(self, x: Tensor) -> Tensor:
        low = self.shift.floor().long()
        index = positions(x) + 2 + low[:, None]
        earlier, later = (F.pad(x, (2, 3)).gather(2, (index + i).expand(x.shape)) for i in (0, 1))
        return torch.lerp(earlier, later, (self.shift - low)[:, None])


def quantised(m: nn.Module, x: Tensor) -> Tensor:
    """The nearest code of each frame, by a table that is expanded to the rows."""
    codes = m.e[None].expand(x.shape[0], -1, -1)
    nearest = torch.cdist(x, codes).argmin(-1)
    return codes.gather(1, nearest[..., None].expand(-1, -1, x.shape[2])) * 0.5 + x


def positions(x: Tensor, dim: int = 2) -> Tensor:
    return torch.arange(x.shape[dim])


ROWS = [
    fn("windows", lambda x: x[:, :, positions(x)[:-2, None] + torch.arange(3)].amax(-1), delay=2, field=3),
    fn("windows, offsets first", lambda x: x[:, :, positions(x)[None, :-4] + torch.tensor([0, 1, 4])[:, None]].amax(2), delay=4),
    fn("windows of a grid of offsets", lambda x: x[:, :, positions(x)[:-5, None, None] + torch.tensor([[0, 2], [1, 5]])].flatten(3),
        delay=5),
    fn("windows, repeated at the ends", lambda x: x[:, :, (positions(x)[:, None] + torch.arange(-2, 2)).clamp(0, x.shape[2] - 1)].sum(-1),
        delay=1, field=4),
    fn("windows, mirrored at the start", lambda x: x[:, :, (positions(x)[:, None] - torch.arange(3)).abs()].amax(-1)),
    fn("windows two apart", lambda m, x: (x[:, :, torch.arange(0, x.shape[2] - 3, 2)[:, None] + torch.arange(4)] * m.w).sum(-1),
        params={"w": (4,)}, delay=3),
    fn("windows, time first", lambda x: x[positions(x, 0)[:-3, None] + torch.arange(0, 4, 3)].mean(1), shape=(13, 2, 3), time=0, delay=3),
    row("windows behind a recurrent layer", Windows, shape=(2, 9, 3), time=1, delay=2),
    fn("the frame before", lambda x: x - x[:, :, (positions(x) - 1).clamp(min=0)], delay=0),
    fn("an earlier frame by index_select", lambda x: x.index_select(2, (positions(x) - 3).clamp(min=0)), delay=0),
    fn("a later frame by gather", lambda x: x.gather(2, (positions(x) + 1).clamp(max=x.shape[2] - 1).view(1, 1, -1).expand(x.shape)),
        delay=1),
    fn("an earlier frame by take_along_dim", lambda x: torch.take_along_dim(x, (positions(x) - 2).abs().view(1, 1, -1), 2)),
    fn("another shift for each channel", lambda x: x.gather(2, (positions(x) - torch.arange(3).view(1, 3, 1)).clamp(min=0).expand(x.shape)),
        delay=0),
    fn("another shift for each channel and joint, by take_along_dim", lambda m, x: torch.take_along_dim(F.pad(x, (0, 0, 2, 2)),
        positions(x).view(1, 1, -1, 1) + m.by, 2), buffers=lambda: {"by": torch.randint(5, (1, 3, 1, 4))}, shape=(2, 3, 11, 4)),
    fn("a codebook that rows share", quantised, params={"e": (8, 3)}, shape=(2, 9, 3), time=1, delay=0),
    row("learned shifts, between frames", LearnedShift, shape=(2, 5, 9)),
    fn("all but the first frames", lambda x: x[:, :, torch.arange(3, x.shape[2])], delay=3),
    fn("every other frame", lambda x: x[:, :, torch.arange(0, x.shape[2], 2)] * 2, delay=0),
    fn("every third frame from the second", lambda x: x.index_select(2, torch.arange(1, x.shape[2], 3)), delay=1),
]  # fmt: skip

REFUSED = [
    no("first frames", lambda x: x[:, :, torch.arange(3)], "by their number", "slices"),
    no("other frames for other rows", lambda x: x.gather(2, (positions(x) - torch.arange(2).view(2, 1, 1)).clamp(min=0).expand(
        x.shape)), "by their number", "slices"),
    no("other steps for other channels", lambda x: x.gather(2, (positions(x) * torch.tensor([1, 1, 0]).view(1, 3, 1)).expand(x.shape)),
        "by their number", "slices"),
    no("some channels by gather", lambda x: x.gather(2, (positions(x) - 1).clamp(min=0).expand(x.shape[0], 2, x.shape[2])),
        "by their number", "slices"),
    no("frames of the other end", lambda x: x[:, :, (positions(x) - 1) % x.shape[2]], "by their number", "slices"),
    no("frames again and again", lambda x: x[:, :, positions(x) // 2], "by their number", "slices"),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_frames_by_their_index(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_offsets_follow_the_parameters() -> None:
    module, clip = LearnedShift().eval(), torch.randn(2, 5, 9)
    net = co.continual(module, clip)
    with torch.no_grad():
        module.shift.copy_(module.shift.flip(0))
        assert_equal(net(clip), module(clip), "forward after an update")


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (lambda n: torch.arange(n), (1, 0, 0)),
        (lambda n: torch.arange(1, n, 2), (2, -1, 0)),
        (lambda n: (torch.arange(n) - 2).clamp(min=0), (1, 2, -2)),
        (lambda n: (torch.arange(n) + 2).clamp(max=n - 1), (1, -2, 2)),
        (lambda n: torch.arange(n - 2)[:, None] + torch.arange(3), (1, 0, 0)),
        (lambda n: torch.arange(n).flip(0), None),
        (lambda n: torch.arange(n).roll(1), None),
        (lambda n: torch.arange(n // 2), None),
        (lambda n: torch.arange(n) // 2, None),
        (lambda n: torch.zeros(n, dtype=torch.long), None),
        (lambda n: torch.arange(n).pow(2).clamp(max=n - 1), None),
    ],
)
def test_regular_indices(index: Callable[[int], Tensor], expected: tuple[int, int, int] | None) -> None:
    found = regular_index([(n, index(n)) for n in (40, 10, 11, 13)])
    assert (found and (found.step, found.first, found.last)) == expected
