"""States that begin with a function of the clip's first frame, in loops that take frames of another tensor and in recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph.loops.instruction import LoopCall
from tests.contract import assert_equal
from tests.convert.cases import noise
from tests.convert.rows import No, Row, check_refused, check_row, in_turns, no, row
from tests.programs.rows import check_rows


class Begins(nn.Module):
    """Layers for a body that is a function of the module and a clip ``(B, T, 4)``."""

    def __init__(self, body: Callable[[Any, Tensor], Any]):
        super().__init__()
        self.body = body
        self.features, self.init = nn.Linear(4, 5), nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.conv, self.field = nn.Conv1d(4, 5, 3), nn.Linear(5, 20)
        self.gru, self.deep = nn.GRU(4, 5, batch_first=True), nn.GRU(4, 5, num_layers=2)
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def over(y: Tensor, h: Tensor) -> Tensor:
    """A recurrence over the frames of a tensor."""
    outs = []
    for t in range(y.shape[1]):
        h = torch.tanh(0.5 * h + y[:, t])
        outs.append(h)
    return torch.stack(outs, 1)


def behind(m: Begins, x: Tensor) -> Tensor:
    return over(m.features(x), m.init(x[:, 0]))


def shorter(m: Begins, x: Tensor) -> Tensor:
    return over(m.conv(x.transpose(1, 2)).transpose(1, 2), m.init(x[:, 0]))


def strided(m: Begins, x: Tensor) -> Tensor:
    return m.gru(x[:, ::2].relu(), m.init(x[:, 0])[None])[0]


def controlled(m: Begins, x: Tensor) -> Tensor:
    """A neural controlled differential equation by Euler's steps."""
    h, outs = m.init(x[:, 0]), []
    changes = x[:, 1:] - x[:, :-1]
    for t in range(changes.shape[1]):
        h = h + (torch.tanh(m.field(h)).view(-1, 5, 4) * changes[:, t, None]).sum(-1)
        outs.append(h)
    return torch.stack(outs, 1)


def two_layers(m: Begins, x: Tensor) -> Tensor:
    y = x.transpose(0, 1)
    return m.deep(y, torch.stack((m.init(y[0]), m.features(x[:, :1]).squeeze(1))))[0].transpose(0, 1)


def both_states(m: Begins, x: Tensor) -> Tensor:
    h = m.init(x[:, 0]).unsqueeze(0)
    return m.lstm(x, (h, m.features(x[:, 0])[None].expand(1, x.shape[0], 5) + h))[0]


def scanned(m: Begins, x: Tensor) -> Tensor:
    def step(frame: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(frame + 0.5 * h)
        return new, new

    return co.scan(step, m.features(x), m.init(x[:, 0]), dim=1)[0]


def built(body: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Begins(body)


ROWS = [
    row("behind a layer", built(behind), shape=(2, 11, 4), time=1, delay=0),
    row("behind a convolution", built(shorter), shape=(2, 11, 4), time=1, delay=2),
    row("behind a stride", built(strided), shape=(2, 11, 4), time=1, delay=0),
    row("a neural CDE", built(controlled), shape=(2, 11, 4), time=1, delay=1),
    row("two layers", built(two_layers), shape=(2, 11, 4), time=1, delay=0),
    row("both states", built(both_states), shape=(2, 11, 4), time=1, delay=0),
    row("scan", built(scanned), shape=(2, 11, 4), time=1, delay=0),
]


@pytest.mark.parametrize("case", in_turns(ROWS, 3))
def test_first_states(case: Row) -> None:
    """They were refused, since a stream has its first frame once: in the first iteration, which begins with it."""
    check_row(case)


class Tracker(nn.Module):
    """An image network for the first frame gives the state; its last state leaves, too. Clips are ``(B, T, 3, 6, 5)``."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.gru = nn.GRU(90, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(x.flatten(2), self.image(x[:, 0])[None])
        return y, h


def test_the_first_frame_of_each_stream_in_programs() -> None:
    """Rows begin, end and are reset at different times; an image network runs on the first frame of each."""
    torch.manual_seed(0)
    module = Tracker().eval()
    net = co.continual(module, noise(2, 7, 3, 6, 5), time_dim=1)
    check_rows(net, noise(2, 13, 3, 6, 5))
    clip = noise(3, 9, 3, 6, 5)
    y, h = net(clip)
    want = module(clip)
    assert_equal(y, want[0])
    assert_equal(h, want[1])


def test_an_iteration_runs_it_once() -> None:
    """The function of the first frame costs nothing afterwards."""
    net = co.continual(Tracker().eval(), noise(2, 7, 3, 6, 5), time_dim=1)
    loop = next(i.module.loop for i in net._program.instructions if isinstance(i, LoopCall))
    first, later = ([op.target for op in cell.ops] for cell in (*loop.prologue, loop.body))
    assert "aten.conv2d.default" in first
    assert "aten.conv2d.default" not in later


def written(m: Begins, x: Tensor) -> Tensor:
    """Through a view."""
    h = m.init(x[:, 0])
    h[:, 1:] = 0.3
    return m.gru(x, h[None])[0]


def written_later(m: Begins, x: Tensor) -> Tensor:
    y = x * 2
    first = m.init(y[:, 0])
    y *= 3
    return m.gru(y, first[None])[0]


def mixed(m: Begins, x: Tensor) -> Tensor:
    h = m.init(x[:, 0])
    return m.gru(x, (h - h.mean(0))[None])[0]


def mixed_later(m: Begins, x: Tensor) -> Tensor:
    y = m.features(x)
    h, outs = torch.zeros_like(y[:, 0]), []
    for t in range(x.shape[1]):
        h = torch.tanh(0.5 * h + y[:, t] - y[:, t].mean(0))
        outs.append(h)
    return torch.stack(outs, 1)


KNOWN: dict = {"shape": (2, 11, 4), "time": 1}
AGAIN = "meets the clip's frames again"
REFUSED = [
    no("the second frame", built(lambda m, x: m.gru(x, m.init(x[:, 1])[None])[0]), AGAIN, "last n frames", **KNOWN),
    no("frames that come later", built(lambda m, x: m.gru(x, m.init(x[:, 2:][:, 0])[None])[0]), AGAIN, "last n frames", **KNOWN),
    no("all frames", built(lambda m, x: m.gru(x, m.init(x.mean(1))[None])[0]), AGAIN, "time_pooling", **KNOWN),
    no("written", built(written), AGAIN, "last n frames", **KNOWN),
    no("written later", built(written_later), AGAIN, "last n frames", **KNOWN),
    no("rows that meet", built(mixed), "mixes the rows", "rows apart", **KNOWN),
    no("rows that meet in each iteration", built(mixed_later), "mixes the rows", "rows apart", **KNOWN),
]


@pytest.mark.parametrize("case", in_turns(REFUSED, 2))
def test_refused(case: No) -> None:
    check_refused(case)
