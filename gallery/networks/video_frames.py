"""Networks on frames, one by one or in pairs, and what joins them over time, written from the papers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parts import Block, Fn, conv_norm
from .video_designs import FRAMES, row


class Shift(nn.Module):
    """Channels of each frame moved to its neighbours: by padding, by writes, or with ``n_segment`` and frames among the rows (Lin 2019)."""

    def __init__(self, way: str = "pad", online: bool = False):
        super().__init__()
        self.way, self.online = way, online
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def shifted(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        if self.online:
            return torch.cat((F.pad(x[:, :, :2], (0, 0, 0, 0, 0, 0, 1, -1)), x[:, :, 2:]), 2)
        if self.way == "pad":
            early, late = F.pad(x[:, :, :2], (0, 0, 0, 0, 0, 0, 1, -1)), F.pad(x[:, :, 2:4], (0, 0, 0, 0, 0, 0, -1, 1))
            return torch.cat((early, late, x[:, :, 4:]), 2)
        out = torch.zeros_like(x)
        out[:, :-1, :2], out[:, 1:, 2:4], out[:, :, 4:] = x[:, 1:, :2], x[:, :-1, 2:4], x[:, :, 4:]
        return out

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 3, H, W)
        b, t = x.shape[:2]
        y = F.relu(self.a(x.flatten(0, 1)))
        y = y + self.b(self.shifted(y.unflatten(0, (b, t))).flatten(0, 1))
        y = self.head(F.relu(y).mean((2, 3))).view(b, t, -1)
        return y if self.online or self.way == "frames" else y.mean(1)


class Segments(Shift):
    """As published: the input is ``(B, T·3, H, W)``, and the number of segments is fixed."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(x.shape[0], -1, 3, *x.shape[2:]))


class Pairs(nn.Module):
    """Correlation of each frame with the next one's neighbourhood, after optical flow networks (Dosovitskiy 2015)."""

    def __init__(self, grid: bool = False):
        super().__init__()
        self.cnn, self.out, self.grid = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(9, 2, 3, padding=1), grid

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 3, H, W)
        b, t = x.shape[:2]
        y = self.cnn(x.flatten(0, 1)).unflatten(0, (b, t))
        one, two = y[:, :-1].flatten(0, 1), y[:, 1:].flatten(0, 1)
        if self.grid:
            lines = torch.linspace(-1, 1, 8, dtype=x.dtype)
            at = torch.stack(torch.meshgrid(lines, lines, indexing="xy"), -1).expand(two.shape[0], -1, -1, -1)
            two = F.grid_sample(two, at * 0.9, align_corners=True)
        around = F.unfold(two, 3, padding=1).unflatten(1, (6, 9)).unflatten(3, (8, 8))
        return self.out((one[:, :, None] * around).mean(1)).unflatten(0, (b, t - 1))


NETWORKS = [
    row("TSM", Shift, "Lin 2019, ICCV", **FRAMES),
    row("TSM, in place", lambda: Shift("write"), "Lin 2019, ICCV", **FRAMES),
    row("TSM, per frame", lambda: Shift("frames"), "Lin 2019, ICCV", "stream", **FRAMES),
    row("TSM, online", lambda: Shift(online=True), "Lin 2019, ICCV", "stream", **FRAMES),
    row("TSM in the paper's layout", Segments, "Lin 2019, ICCV", clip=(2, 24, 16, 16), time_dim=1),
    row(
        "TSN",
        lambda: Fn(
            lambda m, x: m.head(m.cnn(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2]).mean(1)),
            cnn=nn.Sequential(conv_norm(3, 6, 3, rank=2, stride=2), conv_norm(6, 8, 3, rank=2)),
            head=nn.Linear(8, 5),
        ),
        "Wang 2016, ECCV",
        **FRAMES,
    ),
    row(
        "TRN, pairs of frames",
        lambda: Fn(
            lambda m, x: m.head(
                F.relu(
                    m.pair(
                        torch.cat((y := m.cnn(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2]), y.roll(1, 1)), 2)[:, 1:]
                    )
                ).mean(1)
            ),
            cnn=nn.Conv2d(3, 6, 3, 2),
            pair=nn.Linear(12, 8),
            head=nn.Linear(8, 5),
        ),
        "Zhou 2018, ECCV",
        **FRAMES,
    ),
    row(
        "frames and GRU",
        lambda: Fn(
            lambda m, x: m.rnn(m.cnn(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2]))[0],
            cnn=conv_norm(3, 6, 3, rank=2, stride=2),
            rnn=nn.GRU(6, 5, batch_first=True),
        ),
        "Donahue 2015, CVPR",
        "stream",
        **FRAMES,
    ),
    row(
        "frames and LSTM, last",
        lambda: Fn(
            lambda m, x: m.head(m.rnn(m.cnn(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2]))[0][:, -1]),
            cnn=conv_norm(3, 6, 3, rank=2, stride=2),
            rnn=nn.LSTM(6, 6, batch_first=True),
            head=nn.Linear(6, 5),
        ),
        "Donahue 2015, CVPR",
        **FRAMES,
    ),
    row(
        "frames and attention",
        lambda: Fn(
            lambda m, x: m.head(m.block(m.cnn(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2]))[:, -1]),
            cnn=conv_norm(3, 8, 3, rank=2, stride=2),
            block=Block(8, 2),
            head=nn.Linear(8, 5),
        ),
        "Neimark 2021, ICCVW (VTN)",
        **FRAMES,
    ),
    row(
        "CNN, 1D convolutions and CTC",
        lambda: Fn(
            lambda m, x: m.time(m.cnn(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2]).transpose(1, 2)),
            cnn=conv_norm(3, 6, 3, rank=2, stride=2),
            time=nn.Sequential(nn.Conv1d(6, 8, 5), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 12, 3)),
        ),
        "Cui 2019, IEEE TMM",
        "stream",
        clip=(2, 16, 3, 16, 16),
        time_dim=1,
    ),
    row(
        "DeepPhys",
        lambda: Fn(
            lambda m, x: (
                (torch.tanh(m.a(torch.diff(x, dim=1).flatten(0, 1))) * torch.sigmoid(m.b(x[:, 1:].flatten(0, 1))))
                .mean((2, 3))
                .unflatten(0, (x.shape[0], -1))
            ),
            a=nn.Conv2d(3, 4, 3),
            b=nn.Conv2d(3, 1, 3),
        ),
        "Chen 2018, ECCV",
        "stream",
        **FRAMES,
    ),
    row("correlation of pairs", Pairs, "Dosovitskiy 2015, ICCV", "stream", **FRAMES),
    row("correlation of warped pairs", lambda: Pairs(True), "Teed 2020, ECCV (RAFT)", "stream", **FRAMES),
    row(
        "EDVR, fusion of five frames",
        lambda: Fn(
            lambda m, x: m.up(F.relu(m.fuse(x.flatten(1, 2)))),
            fuse=nn.Conv2d(15, 8, 3, padding=1),
            up=nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2)),
        ),
        "Wang 2019, CVPRW",
        "windows",
        (2, 5, 3, 16, 16),
        1,
    ),
    row(
        "super-resolution, frames one by one",
        lambda: Fn(
            lambda m, x: m.net(x.flatten(0, 1)).unflatten(0, x.shape[:2]),
            net=nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)),
        ),
        "Shi 2016, CVPR",
        "stream",
        **FRAMES,
    ),
    row(
        "set of frames, by attention scores",
        lambda: Fn(
            lambda m, x: (torch.softmax(m.score(y := m.cnn(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2])), 1) * y).sum(
                1
            ),
            cnn=nn.Conv2d(3, 6, 3),
            score=nn.Linear(6, 1),
        ),
        "Ilse 2018, ICML",
        **FRAMES,
    ),
]
