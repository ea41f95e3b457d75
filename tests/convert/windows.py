"""Modules for whole clips, and what their exact windows are compared with: the module itself on each window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph import window_check as exact
from continual.convert.graph.window_choice import Choice


def taken_over(window: Any, net: Any, ways: Sequence[co.WindowPlan], *args: Any) -> Choice:
    """The choice to take over whatever windows have in common."""
    return Choice(ways[1] if len(ways) > 1 else ways[0], 2.0)


def computed_anew(window: Any, net: Any, ways: Sequence[co.WindowPlan], *args: Any) -> Choice:
    """The choice to compute each window again."""
    return Choice(ways[0], 1.0)


@pytest.fixture(params=["taken over", "computed again"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute windows, whatever is faster here."""
    monkeypatch.setattr(exact, "fastest", taken_over if request.param == "taken over" else computed_anew)
    return str(request.param)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows take over whatever they have in common."""
    monkeypatch.setattr(exact, "fastest", taken_over)


def made(module: nn.Module, seed: int = 0) -> nn.Module:
    """A module in double precision, whose norms are no identities."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(part.running_mean, 0.0, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    for p in module.parameters():
        if p.ndim == 1:
            nn.init.normal_(p, 0.1, 0.4)
    return module.double().eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    """A clip in double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def windows_of(module: Callable[[Tensor], Any], clip: Tensor, length: int, every: int, dim: int = 2) -> list[Any]:
    """What the module gives for each window of a clip."""
    with torch.no_grad():
        return [module(clip.narrow(dim, i, length)) for i in range(0, clip.shape[dim] - length + 1, every)]


def stacked(scores: list[Tensor]) -> Tensor:
    """Scores as ``forward_steps`` gives them."""
    return torch.stack(scores, min(2, scores[0].ndim))


def check(module: nn.Module, shape: tuple[int, ...], *, dim: int = 2, rows: int = 3, score: Any = None, **options: Any) -> Any:
    """Compare the exact windows of a module with the module, in all ways to run them.

    Args:
        shape: of a clip without rows, whose time is ``dim``.
        rows: of the clips.
        score: what to take of the module's output; by default all.
    """
    module = made(module)
    score = score or (lambda y: y)
    net = co.continual(module, noise(2, *shape), time_dim=dim, **options)
    length, every = shape[dim - 1], net.windows.every
    assert net.windows.mode == "exact"
    assert (net.delay, net.receptive_field, net.stride[0], net.padding[0]) == (length - 1, length, every, 0)
    assert not [n for n in net.notes if "gap of the library" in n]
    steps = 2 * length + 2 * every + 3
    clip = noise(rows, *shape[: dim - 1], steps, *shape[dim:], seed=2)
    want = stacked([score(y) for y in windows_of(module, clip, length, every, dim)])
    with torch.no_grad():
        close(net(clip), want)
        one = [net.forward_step(clip.select(dim, t)) for t in range(steps)]
        assert [t for t, y in enumerate(one) if y is not None] == list(range(length - 1, steps, every))
        close(stacked([y for y in one if y is not None]), want)
        net.clean_state()
        parts = [net.forward_steps(c) for c in clip.split([1, length // 2, 0, every, steps - 1 - length // 2 - every], dim)]
        close(torch.cat([p for p in parts if p is not None], min(2, want.ndim - 1)), want)
        spoiled(net, module, clip, score, dim)
    return net


def spoiled(net: Any, module: nn.Module, clip: Tensor, score: Any, dim: int) -> None:
    """What came before a window leaves no trace in its score, and what is in it does."""
    length, every = net.windows.length, net.windows.every
    behind = -(-length // every) * every
    for bad in (float("nan"), 1e30):
        before = torch.full_like(clip.narrow(dim, 0, behind), bad)
        stream = torch.cat((before, clip.narrow(dim, 0, length + every)), dim)
        got = net.steps(stream, net.init_state(stream.select(dim, 0)))[0]
        at = min(2, got.ndim - 1)
        first = behind // every
        close(got.select(at, first), score(module(clip.narrow(dim, 0, length))))
    other = clip.narrow(dim, 0, length).clone()
    for place in (length // 2, length - 1):
        other.narrow(dim, place, 1).mul_(-3.0).add_(1.0)
    moved = score(module(other)) - score(module(clip.narrow(dim, 0, length)))
    assert moved.abs().max() > 1e-9, "a constant would pass"
    close(net(other), score(module(other)))


def close(got: Tensor, want: Tensor) -> None:
    """Equal to 1e-10."""
    assert got.shape == want.shape
    assert float((got - want).detach().abs().max()) <= 1e-10 * max(1.0, float(want.detach().abs().max()))


# ---- modules ------------------------------------------------------------------------------------------------------------


class Eeg(nn.Module):
    """Convolutions over time with a long window, over electrodes, two pools, and a layer of fixed length."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Conv2d(1, 4, (1, 15), padding=(0, 7), bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.space = nn.Conv2d(4, 8, (5, 1), groups=4, bias=False)
        self.late = nn.Conv2d(8, 8, (1, 8), padding=(0, 4), groups=8)
        self.head = nn.Linear(8 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.elu(self.space(self.norm(self.time(x)))), (1, 4))
        return self.head(F.avg_pool2d(F.elu(self.late(y)), (1, 8)).flatten(1))


class Residual(nn.Module):
    """A residual block with a stride in its shortcut; a gate over the clip if asked for."""

    def __init__(self, gate: bool = False, norm: str = "batch") -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 8, 7, stride=2, padding=3)
        self.norm = nn.BatchNorm1d(8) if norm == "batch" else nn.GroupNorm(2, 8)
        self.a, self.b = nn.Conv1d(8, 12, 5, stride=2, padding=2), nn.Conv1d(12, 12, 3, padding=1)
        self.short, self.head = nn.Conv1d(8, 12, 1, stride=2), nn.Linear(12, 4)
        self.gate = nn.Linear(12, 12) if gate else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.norm(self.stem(x))), 3, 1, 1)
        y = self.b(F.relu(self.a(x)))
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(y.mean(2))).unsqueeze(2)
        return self.head(F.relu(y + self.short(x)).mean(2))


class Video(nn.Module):
    """Frames merged with rows, then a layer over time."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.time, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv1d(6, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        y = F.relu(self.frame(x.reshape(b * t, *x.shape[2:]))).mean((2, 3)).view(b, t, -1)
        return self.head(F.relu(self.time(y.transpose(1, 2))).amax(2))


class Tokens(nn.Module):
    """Patches of time, a class token, a table of positions and attention to all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv1d(3, 8, 4, stride=4)
        self.table, self.token = nn.Parameter(torch.randn(1, 11, 8)), nn.Parameter(torch.randn(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).transpose(1, 2)
        y = torch.cat((self.token.expand(y.shape[0], -1, -1), y), 1) + self.table
        return self.head(self.encoder(y)[:, 0])


class Skeleton(nn.Module):
    """Graph convolutions over joints, written as an einsum, and convolutions over time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("graph", torch.rand(2, 5, 5))
        self.inside, self.time = nn.Conv2d(3, 12, 1), nn.Conv2d(6, 6, (5, 1), (2, 1), (2, 0))
        self.norm, self.short, self.head = nn.BatchNorm2d(6), nn.Conv2d(3, 6, 1, (2, 1)), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, t, v = x.shape
        y = torch.einsum("nkctv,kvw->nctw", self.inside(x).view(n, 2, 6, t, v), self.graph)
        y = F.relu(self.norm(self.time(y.contiguous())) + self.short(x))
        return self.head(F.avg_pool2d(y, y.shape[2:])).flatten(1)


class Tagger(nn.Module):
    """A layer over time and a recurrent one in both directions."""

    def __init__(self, head: str = "frames") -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(3, 8, 3, padding=1), nn.LSTM(8, 5, batch_first=True, bidirectional=True)
        self.out, self.head = nn.Linear(10, 4), head

    def forward(self, x: Tensor) -> Tensor:
        y, (h, _) = self.rnn(F.relu(self.conv(x)).transpose(1, 2))
        if self.head == "states":
            return self.out(torch.cat((h[-2], h[-1]), 1))
        return self.out(y) if self.head == "frames" else self.out(y[:, -1] + y.mean(1))


class Scaled(nn.Module):
    """The clip's own mean and deviation, and a recurrent layer's last state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.out = nn.Conv1d(4, 4, 3), nn.GRU(4, 5, 2, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean(2, keepdim=True)) / (x.std(2, keepdim=True) + 1e-3)
        return self.out(self.rnn(self.conv(x).permute(0, 2, 1))[1][-1])


class Shifts(nn.Module):
    """Channels shifted in time by writes, edges of all kinds, pools that reach beyond them, halves and their product."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect")
        self.b = nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")
        self.c = nn.Conv1d(4, 4, 3, padding=1, padding_mode="replicate")
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        o = torch.zeros_like(x)
        o[:, :2, :-1] = x[:, :2, 1:]
        o[:, 2:3, 1:] = x[:, 2:3, :-1]
        o[:, 3:] = x[:, 3:]
        y = self.b(torch.roll(F.relu(self.a(o)), 2, 2) + F.pad(self.c(o), (1, 0))[:, :, :-1])
        y = F.max_pool1d(F.avg_pool1d(y, 4, 2, 1, ceil_mode=True, count_include_pad=False), 3, 2, 1, ceil_mode=True)
        a, b = y.chunk(2, 1)
        y = torch.cat((a * b, a, y[:, :1], b[:, :1].tanh()), 1)
        return self.out(y.std(2)) + self.out(y[:, :, -1])


class UpDown(nn.Module):
    """Down and up again, and groups of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv1d(4, 4, 3, padding=1), nn.ConvTranspose1d(4, 4, 2, stride=2)
        self.down = nn.Conv1d(4, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = F.interpolate(self.up(self.down(y)), scale_factor=2.0, mode="nearest")
        groups = x.unfold(2, 4, 4).flatten(2).view(x.shape[0], 4, -1, 4).mean(3)
        return (z[:, :, ::2] + y).mean(2) + groups.amax(2)
