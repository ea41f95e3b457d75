"""Time among the rows: parts of networks that work on each frame by itself, with the frames merged with the batch.

The networks are small ones of the kinds that papers describe: dual-path enhancers, transformers for each frame in front of a recurrent
layer, vector quantisation, optical flow by correlation, graphs of several frames.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import No, Row, check_refused, check_row, in_turns, no, row


class DualPath(nn.Module):
    """A layer over frequencies, both ways, and a causal layer over time for each frequency: ``(B, C, T, F)``."""

    def __init__(self, cell: type, both: bool = True):
        super().__init__()
        self.across = cell(4, 3, batch_first=True, bidirectional=both)
        self.back, self.norm = nn.Linear(6 if both else 3, 4), nn.LayerNorm(4)
        self.along, self.out = cell(4, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, f = x.shape
        y = self.across(x.permute(0, 2, 3, 1).reshape(b * t, f, c))[0]
        y = self.norm(self.back(y)).view(b, t, f, c) + x.permute(0, 2, 3, 1)
        z = self.along(y.permute(0, 2, 1, 3).reshape(b * f, t, c))[0]
        return (y + self.out(z).view(b, f, t, c).permute(0, 2, 1, 3)).permute(0, 3, 1, 2)


class States(nn.Module):
    """The states after a sequence within each frame, of two layers that run both ways: ``(B, T, F, C)``."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)

    def forward(self, x: Tensor) -> Tensor:
        b, t, f, c = x.shape
        _, (h, cells) = self.rnn(x.reshape(b * t, f, c).transpose(0, 1))
        return torch.cat((h[-1], cells[0]), -1).view(b, t, -1)


class Learned(nn.Module):
    """A learned state before the sequence of each frame."""

    def __init__(self, rows: str) -> None:
        super().__init__()
        self.rnn, self.rows = nn.GRU(3, 4, batch_first=True, bidirectional=True), rows
        self.h0 = nn.Parameter(torch.randn(2, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, f, c = x.shape
        h0 = self.h0.expand(-1, b * t, -1).contiguous() if self.rows == "b*t" else x.mean((2, 3)).view(1, b * t, 1) * self.h0
        return self.rnn(x.reshape(b * t, f, c), h0.contiguous())[0].reshape(b, t, f, -1)


class InWindows(nn.Module):
    """A layer inside overlapping windows of the clip, both ways; its last output for each window."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unfold(2, 4, 2)
        b, c, n, size = windows.shape
        return self.rnn(windows.permute(0, 2, 3, 1).reshape(b * n, size, c))[0][:, -1].view(b, n, -1).transpose(1, 2)


class FrameTransformer(nn.Module):
    """A transformer over the patches of each frame with a token of its own, and a recurrent layer over the frames."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.token, self.place = how, nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 5, 4))
        self.embed, self.block = nn.Linear(3, 4), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.rnn = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        b, t, p, c = x.shape
        y = self.embed(x.reshape(b * t, p, c))
        token = self.token.expand(b * t, -1, -1) if self.how == "expand" else self.token.repeat(y.shape[0], 1, 1)
        y = self.block(torch.cat((token, y), 1) + self.place)[:, 0]
        return self.rnn(y.view(b, t, -1))[0]


class Quantised(nn.Module):
    """The nearest vectors of a code book, for frames that are rows."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.conv, self.codes = how, nn.Conv1d(3, 3, 3), nn.Parameter(torch.randn(9, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).transpose(1, 2)
        flat = y.reshape(-1, y.shape[2])
        if self.how == "cdist":
            chosen = self.codes[torch.cdist(flat[None], self.codes[None])[0].argmin(-1)]
        elif self.how == "table":
            chosen = F.embedding(torch.cdist(flat, self.codes).argmin(-1), self.codes)
        else:
            far = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ self.codes.t() + self.codes.pow(2).sum(1)
            chosen = F.one_hot((-far).max(1)[1], 9).to(x.dtype) @ self.codes
        return (y + (chosen.view(y.shape) - y).detach()).transpose(1, 2)


class Losses(nn.Module):
    """Vectors of a code book, and a loss over all rows that a part of the network gives and nobody asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(9, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.quantised(x.transpose(1, 2))[0].transpose(1, 2)

    def quantised(self, y: Tensor) -> tuple[Tensor, Tensor]:
        chosen = F.embedding(torch.cdist(y, self.codes[None]).argmin(-1), self.codes)
        loss = (y - chosen).pow(2).mean()
        loss += 0.1 * torch.randn_like(y).mean()
        chosen *= 2
        chosen[:, :, 0] += 1
        return chosen, loss


class Warped(nn.Module):
    """Each frame sampled at places that a network computes from it: ``(B, T, C, H, W)``."""

    def __init__(self, grid: str):
        super().__init__()
        self.grid, self.flow = grid, nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c, h, w = x.shape
        y = x.reshape(b * t, c, h, w)
        moved = self.flow(y).permute(0, 2, 3, 1) * 0.2
        if self.grid == "affine":
            still = torch.eye(2, 3, dtype=x.dtype)[None].expand(b * t, -1, -1)
            places = F.affine_grid(still, [b * t, c, h, w], align_corners=False) + moved
        else:
            lines = [torch.linspace(-1, 1, n, dtype=x.dtype) for n in (w, h)]
            places = torch.stack(torch.meshgrid(*lines, indexing="xy"), -1)[None].repeat(b * t, 1, 1, 1)
            places = places if self.grid == "constant" else places + moved
        return F.grid_sample(y, places, align_corners=False).view(b, t, c, h, w)


class Correlated(nn.Module):
    """Optical flow by lookups in the correlation of each frame and the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.update = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c, h, w = x.shape
        f = self.features(x.reshape(b * t, c, h, w)).view(b, t, 4, h * w)
        before, after = f[:, :-1].reshape(-1, 4, h * w), f[:, 1:].reshape(-1, 4, h * w)
        pairs = before.shape[0]
        volume = (before.transpose(1, 2) @ after / 2).view(pairs * h * w, 1, h, w)
        places = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy")).to(x.dtype).repeat(pairs, 1, 1, 1)
        near = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 3, dtype=x.dtype)] * 2, indexing="ij"), -1)
        around = places.permute(0, 2, 3, 1).reshape(pairs * h * w, 1, 1, 2) + near.view(1, 3, 3, 2)
        around = 2 * around / torch.tensor([w - 1, h - 1], dtype=x.dtype) - 1
        found = F.grid_sample(volume, around, align_corners=True).view(pairs, h, w, 9).permute(0, 3, 1, 2)
        return (places + self.update(found)).view(b, t - 1, 2, h, w)


class SeveralFrames(nn.Module):
    """A graph over the joints of three frames at once, as in MS-G3D: ``(B, C, T, V)``."""

    def __init__(self) -> None:
        super().__init__()
        self.unfold = nn.Unfold((3, 1), padding=(1, 0))
        self.graph, self.out = nn.Parameter(torch.randn(15, 15)), nn.Conv3d(3, 4, (1, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, v = x.shape
        y = self.unfold(x).view(b, c, 3, -1, v).permute(0, 1, 3, 2, 4).contiguous().view(b, c, -1, 3 * v)
        y = torch.einsum("vu,bctu->bctv", self.graph, y).view(b, c, -1, 3, v)
        return self.out(y).squeeze(3)


FREQUENCIES: dict = {"shape": (2, 4, 9, 5), "delay": 0}
FRAMES: dict = {"shape": (2, 7, 5, 3), "time": 1, "delay": 0}
IMAGES: dict = {"shape": (2, 6, 3, 5, 4), "time": 1}
ROWS = [
    row("gru over frequencies, both ways, and over time", lambda: DualPath(nn.GRU), **FREQUENCIES),
    row("lstm over frequencies, both ways, and over time", lambda: DualPath(nn.LSTM), **FREQUENCIES),
    row("rnn over frequencies and over time", lambda: DualPath(nn.RNN, both=False), **FREQUENCIES),
    row("states after a sequence in each frame, projected", States, **FRAMES, field=1),
    row("a learned state for all rows", lambda: Learned("b*t"), **FRAMES, field=1),
    row("a state of each row", lambda: Learned("each"), **FRAMES, field=1),
    row("lstm inside windows", InWindows, shape=(2, 3, 12), other=4, delay=3, field=4),
    row("tokens by expand, and an lstm", lambda: FrameTransformer("expand"), shape=(2, 7, 4, 3), time=1, delay=0),
    row("tokens by repeat, and an lstm", lambda: FrameTransformer("repeat"), shape=(2, 7, 4, 3), time=1, delay=0),
    row("nearest codes by cdist", lambda: Quantised("cdist"), delay=2, field=3),
    row("nearest codes by cdist and a table", lambda: Quantised("table"), delay=2, field=3),
    row("nearest codes by a product", lambda: Quantised("product"), delay=2, field=3),
    row("nearest codes, and a loss that is not used", Losses, delay=0, field=1),
    row("samples of affine grids", lambda: Warped("affine"), **IMAGES, delay=0, field=1),
    row("samples of a constant grid", lambda: Warped("constant"), **IMAGES, delay=0, field=1),
    row("samples of a constant grid, moved", lambda: Warped("moved"), **IMAGES, delay=0, field=1),
    row("lookups in a correlation", Correlated, **IMAGES, delay=1, field=2),
    row("a graph over several frames", SeveralFrames, shape=(2, 3, 9, 5), delay=1, field=3),
]


class Rows(nn.Module):
    """A layer whose sequence is the batch, or whose weights depend on the stream."""

    def __init__(self, what: str):
        super().__init__()
        self.what, self.rnn = what, nn.GRU(3, 4, bidirectional=True)
        self.h0 = nn.Parameter(torch.randn(2, 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, f, c = x.shape
        if self.what == "batch":
            return self.rnn(x.reshape(b, t * f, c))[0].view(b, t, f, -1)
        if self.what == "time":
            return self.rnn(x.permute(1, 0, 2, 3).reshape(t, b * f, c))[0].view(t, b, f, -1).transpose(0, 1)
        return self.rnn(x.flatten(0, 1).transpose(0, 1), self.h0.repeat(1, b * t // 5, 1))[0].transpose(0, 1).unflatten(0, (b, t))


REFUSED = [
    no("a sequence of rows", lambda: Rows("batch"), "does not run over time here", "batch_first", shape=(2, 7, 5, 3), time=1),
    no("a sequence of frames, both ways", lambda: Rows("time"), "reads the clip from its end", "bidirectional=False",
       shape=(2, 7, 5, 3), time=1),
    no("states for groups of rows", lambda: Rows("groups"), r"a size depends on the length of the clip \(4 for 10 steps\)",
       "fixed number", shape=(2, 10, 4, 3), time=1),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_time_among_the_rows(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_a_program_runs_layers_within_frames() -> None:
    torch.manual_seed(0)
    module = DualPath(nn.GRU).eval()
    clip = torch.randn(2, 4, 7, 5)
    program = co.compile(co.continual(module, clip), clip.select(2, 0), backend="eager")
    with torch.no_grad():
        found = [program.step(frame) for frame in clip.unbind(2)]
        assert_equal(torch.stack(found, 2), module(clip), "a program of steps")
