"""Scores of windows keep their module's layout, also where the batch is not its first dimension."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.convert.windows import close, made, noise, windows_of


class Placed(nn.Module):
    """Scores of a clip with the batch at some place, behind dimensions of other sizes."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.conv, self.place = nn.Conv1d(3, 5 * 7 * 2, 3, padding=1), place

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean(2).view(-1, 5, 7, 2).movedim(0, self.place)


class States(nn.Module):
    """The last states of a recurrent layer, as it gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, c = self.rnn(x.transpose(1, 2))[1]
        return h, c


@pytest.mark.parametrize("make", [*(lambda place=p: Placed(place) for p in range(4)), States], ids=["0", "1", "2", "3", "states"])
def test_scores_are_placed_as_the_module_places_them(make):
    module = made(make())
    net = co.continual(module, noise(2, 3, 11))
    clip = noise(3, 3, 16, seed=2)
    listed = lambda y: list(y) if isinstance(y, tuple) else [y]  # noqa: E731
    want = [listed(y) for y in windows_of(module, clip, 11, net.windows.every)]
    with torch.no_grad():
        for got, own in zip(listed(net(clip[:, :, :11])), want[0], strict=True):
            close(got, own)
        for got, own in zip(listed(net(clip)), zip(*want, strict=True), strict=True):
            close(got, torch.stack(own, 2))
        for got, own in zip(listed(net.forward_steps(clip)), zip(*want, strict=True), strict=True):
            close(got, torch.stack(own, 2))
        net.clean_state()
        steps = [net.forward_step(clip[:, :, t]) for t in range(16)]
    for y, own in zip([y for y in steps if y is not None], want, strict=True):
        for a, b in zip(listed(y), own, strict=True):
            close(a, b)


def test_rows_of_a_batch_of_streams_have_no_batch():
    module = made(Placed(2))
    net = co.continual(module, noise(2, 3, 6))
    clip = noise(1, 3, 6)
    streams = co.StreamBatch(net, clip[:, :, 0], capacity=2, backend="eager")
    handle = streams.open()
    found = [streams.step({handle: clip[0, :, t]}).get(handle) for t in range(6)]
    close(next(y for y in found if y is not None), module(clip).squeeze(2))


class Plain(nn.Module):
    """Code that asks for the number of rows as a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.head = nn.Conv1d(3, 4, 5, padding=2), nn.GRU(4, 3, batch_first=True), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)).reshape(len(x), 2, 2, -1).flip(1).reshape(len(x), 4, x.shape[2])
        h = self.rnn(y.transpose(1, 2), torch.zeros(1, int(x.shape[0]), 3, dtype=x.dtype))[0]
        return self.head(torch.cat([torch.stack([a.mean(2) for a in y.split(2, 1)], 1).flatten(1), h[:, -1]], 1))


def test_rows_as_a_plain_number():
    """Windows of such modules had nothing in common: their graph was for so many rows alone."""
    module, clip = made(Plain()), noise(3, 3, 45)
    net = co.continual(module, clip[:2, :, :40], windows=co.WindowPlan())
    assert net.windows.reuse > 0.35
    close(net.forward_steps(clip), torch.stack(windows_of(module, clip, 40, 1), 2))
    with pytest.raises(co.NotStreamable, match="depends on the other rows"):
        co.continual(made(Shuffled()), noise(2, 3, 40))


class Shuffled(nn.Module):
    """Rows that are as many as the batch, one place further."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)[[*range(1, len(x)), 0]]
