"""What windows take over through operations that mix positions with others: each network by one rule, at 1e-10 in double precision."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph.windows.ending import Ending
from continual.convert.graph.windows.rolling import Rolling
from tests.convert.windows import check, close, made, noise, stacked, windows_of
from tests.long import by_turns

EVERYTHING = co.WindowPlan()


class ClassTokens(nn.Module):
    """A class token among the patches of each frame, and attention between them, after ViViT."""

    def __init__(self, how: str = "expand") -> None:
        super().__init__()
        self.patch, self.how = nn.Conv2d(2, 8, 4, 4), how
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.space, self.time = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        b, t = x.shape[:2]
        y = self.patch(x.flatten(0, 1)).flatten(2).transpose(1, 2)
        token = self.token.expand(b * t, -1, -1) if self.how == "expand" else self.token.repeat(b * t, 1, 1)
        y = self.space(torch.cat((token, y), 1) + self.place)[:, 0].view(b, t, -1)
        return self.time(y).amax(1)


class PlaceTokens(ClassTokens):
    """A token that is another one for each frame: it can't be told from a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Parameter(torch.randn(7, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        y = self.patch(x.flatten(0, 1)).flatten(2).transpose(1, 2)
        y = self.space(torch.cat((self.frames.repeat(b, 1, 1), y), 1) + self.place)[:, 0].view(b, t, -1)
        return self.time(y).amax(1)


class Groups(nn.Module):
    """Shifts around the edges between operations on groups of three frames, in the manner of Swin."""

    def __init__(self, shift: int):
        super().__init__()
        self.inside, self.across, self.head, self.shift = nn.Linear(3 * 4, 3 * 4), nn.Linear(3 * 4, 3 * 4), nn.Linear(4, 2), shift

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 4)
        b, t = x.shape[:2]
        y = x + torch.tanh(self.inside(x.reshape(b, t // 3, 12))).view(b, t, 4)
        z = self.across(torch.roll(y, self.shift, 1).reshape(b, t // 3, 12)).sigmoid().view(b, t, 4)
        return self.head((y * torch.roll(z, -self.shift, 1)).amax(1))


@pytest.mark.parametrize("shift, every", by_turns([(1, 3), (-1, 1), (-2, 6), (4, 3), (3, 3), (17, 1)], 3))
def test_shifts_by_entries_of_a_position(shift, every):
    """Found by Video Swin: groups of frames that are shifted by less than a group had nothing in common."""
    net = check(Groups(shift), (30, 4), dim=1, windows=co.WindowPlan(every=every))
    assert net.windows.reuse > 0.5


class Rolls(nn.Module):
    """Shifts around the edges of time and of space at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, S)
        y = self.b(torch.roll(F.relu(self.a(x)), (2, -1), (2, 3)))
        return self.head(torch.roll(y, (-1, 1, 3), (2, 3, 1)).amax((2, 3)))


NETWORKS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any], float]] = {
    "class tokens": (ClassTokens, (7, 2, 8, 8), {"dim": 1}, 0.8),
    "class tokens, repeated": (lambda: ClassTokens("repeat"), (7, 2, 8, 8), {"dim": 1}, 0.8),
    "a token for each frame": (PlaceTokens, (7, 2, 8, 8), {"dim": 1}, 0.0),
    "shifts of time and space": (Rolls, (3, 24, 5), {}, 0.6),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_the_modules_own(name):
    module, shape, options, least = NETWORKS[name]
    assert check(module(), shape, windows=EVERYTHING, **options).windows.reuse >= least


# ---- one end of layers in both directions -------------------------------------------------------------------------------


class BothWays(nn.Module):
    """A recurrent layer in both directions, and one end of it."""

    def __init__(self, kind: str = "LSTM", layers: int = 1, take: Any = -1, bias: bool = True, first: bool = True) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(4, 5, layers, bias=bias, batch_first=first, bidirectional=True)
        self.head, self.take, self.first = nn.Linear(10, 3), take, first

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        y, ends = self.rnn(x.permute(0, 2, 1) if self.first else x.permute(2, 0, 1))
        y = y if self.first else y.transpose(0, 1)
        if self.take == "state too":
            h = ends[0] if isinstance(ends, tuple) else ends
            return self.head(y[:, -1] + torch.cat((h[-2], h[-1]), 1))
        return self.head(y[:, 0] + y[:, -1] if self.take == "both" else y[:, self.take])


ENDS = {
    "LSTM, last": {},
    "LSTM, first, two layers": {"layers": 2, "take": 0},
    "GRU, last, three layers": {"kind": "GRU", "layers": 3},
    "RNN, last, no biases, time first": {"kind": "RNN", "bias": False, "first": False},
    "LSTM, first, time first": {"take": 0, "first": False},
}


def ends_of(net: Any) -> list[Ending]:
    """The layers of which an end alone is computed."""
    return [s.task for s in net._program.instructions[0].schedule.steps if isinstance(s.task, Ending)]


@pytest.mark.parametrize("plan", [EVERYTHING, co.WindowPlan(stride=0)], ids=["taken over", "computed again"])
@pytest.mark.parametrize("name", ENDS)
def test_an_end_of_both_directions(name, plan):
    assert len(ends_of(check(BothWays(**ENDS[name]), (4, 13), windows=plan))) == 1


@pytest.mark.parametrize("take", ["both", "state too", 3])
def test_more_than_an_end_of_both_directions(take):
    assert not ends_of(check(BothWays(take=take), (4, 13), windows=EVERYTHING))


def test_an_end_costs_one_direction():
    nets = [co.continual(made(BothWays(layers=2, take=take)), noise(2, 4, 20), windows=EVERYTHING) for take in (-1, 3)]
    end, whole = (n._program.instructions[0].alone.macs for n in nets)
    directions = {1: 4 * 5 * (4 + 5) * 20, 2: 4 * 5 * (10 + 5) * 20}
    assert whole - end == pytest.approx(directions[2] * 19 / 20, rel=0.01)
    assert whole == pytest.approx(2 * directions[1] + 2 * directions[2], rel=0.02)


def test_an_end_in_programs():
    module, clip = made(BothWays(layers=2)), noise(3, 4, 40)
    program = co.compile(co.continual(module, clip[:, :, :13], windows=EVERYTHING), clip[:, :, 0], backend="eager")
    found = [program.step(clip[:, :, t]) for t in range(40)]
    close(stacked([y for y in found if y is not None]), stacked(windows_of(module, clip, 13, 1)))


def test_an_end_by_output():
    class Sequence(BothWays):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    net = check(Sequence(), (13, 4), dim=1, windows=EVERYTHING, output=-1, score=lambda y: y[:, -1])
    assert len(ends_of(net)) == 1


# ---- recurrent layers behind padding ------------------------------------------------------------------------------------


class Behind(nn.Module):
    """Convolutions with padding and a stride, and a recurrent layer's last output or states."""

    def __init__(self, kind: str = "LSTM", layers: int = 1, stride: int = 1, take: str = "output", first: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 5, padding=2, padding_mode="reflect"), nn.Conv1d(4, 5, 3, stride, 1)
        self.rnn = getattr(nn, kind)(5, 6, layers, batch_first=first)
        self.head, self.take, self.first = nn.Linear(6, 3), take, first

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.b(torch.tanh(self.a(x))))
        y, ends = self.rnn(y.transpose(1, 2) if self.first else y.permute(2, 0, 1))
        h = ends[0] if isinstance(ends, tuple) else ends
        last = y[:, -1] if self.first else y[-1]
        return self.head({"output": last, "states": h.sum(0), "cell": ends[-1][0]}[self.take])


class Joined(nn.Module):
    """Two streams of which one alone is padded, before a recurrent layer, and a vector behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.rnn = nn.Conv1d(3, 4, 5, padding=2), nn.Conv1d(2, 4, 1), nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self.rnn((torch.tanh(self.a(x)) + self.b(y)).transpose(1, 2))[0][:, -1] * v


BEHIND = {
    "LSTM": ({}, (3, 24), {}, 18),
    "LSTM, two layers, the cell": ({"layers": 2, "take": "cell"}, (3, 24), {}, 18),
    "GRU, states of two layers, time first": ({"kind": "GRU", "layers": 2, "take": "states", "first": False}, (3, 24), {}, 18),
    "RNN, every 3": ({"kind": "RNN"}, (3, 24), {"every": 3}, 6),
    "LSTM behind a stride": ({"stride": 2}, (3, 30), {}, 12),
    "LSTM behind a stride, every 4": ({"stride": 2}, (3, 30), {"every": 4}, 6),
}


def batch_of(net: Any) -> list[int]:
    """How many windows go on together in each layer."""
    return [s.task.windows for s in net._program.instructions[0].schedule.steps if isinstance(s.task, Rolling)]


@pytest.mark.parametrize("name", BEHIND)
def test_windows_enter_with_their_own_first_positions(name):
    own, shape, options, windows = BEHIND[name]
    found = batch_of(check(Behind(**own), shape, windows=co.WindowPlan(**options)))
    assert found == [windows]


def test_windows_that_do_not_enter_together():
    """Hops that do not divide what windows share, and scores between the strides."""
    assert batch_of(check(Behind(), (3, 24), windows=co.WindowPlan(every=4))) == []
    assert batch_of(check(Behind(stride=2), (3, 30), windows=co.WindowPlan(every=1))) == []


def test_entering_windows_of_several_streams():
    module = made(Joined())
    clip = (noise(2, 3, 20), noise(2, 2, 20, seed=3), noise(2, 5, seed=4))
    net = co.continual(module, clip, time_dim=(2, 2, None), windows=EVERYTHING)
    assert batch_of(net) == [16]
    x, y, v = noise(3, 3, 47, seed=5), noise(3, 2, 47, seed=6), noise(3, 5, seed=7)
    want = stacked([module(x[:, :, i : i + 20], y[:, :, i : i + 20], v) for i in range(28)])
    close(net.forward_steps(x, y, v), want)


def test_entering_windows_in_programs_and_their_contract():
    module = made(Behind(layers=2))
    net = co.continual(module, noise(2, 3, 24), windows=EVERYTHING)
    co.verify(net, noise(2, 3, 24), reference=module)
    copy = pickle.loads(pickle.dumps(net))
    close(copy.forward_steps(noise(2, 3, 40)), stacked(windows_of(module, noise(2, 3, 40), 24, 1)))
    program, clip = co.compile(net, noise(3, 3), backend="eager"), noise(3, 3, 50, seed=8)
    found = [program.step(clip[:, :, t]) for t in range(50)]
    close(stacked([y for y in found if y is not None]), stacked(windows_of(module, clip, 24, 1)))
