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
