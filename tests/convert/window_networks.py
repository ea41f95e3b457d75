"""More classifiers of clips, after well-known designs, small: for tests of exact windows. No tests are in this file."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpaceThenTime(nn.Module):
    """Attention among the patches of each frame, then among frames, after ViViT."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv3d(2, 8, (1, 4, 4), (1, 4, 4))
        make = lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)  # noqa: E731
        self.space, self.time, self.head = make(), make(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, H, W)
        y = self.patch(x).flatten(3)
        b, c, t, s = y.shape
        y = self.space(y.permute(0, 2, 3, 1).reshape(b * t, s, c)).mean(1).view(b, t, c)
        return self.head(self.time(y).mean(1))


class Divided(nn.Module):
    """Attention over time for each patch, written by hand, then a gate over patches, after TimeSformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.head = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, S, 6)
        y = self.embed(x).transpose(1, 2)
        q, k, v = self.qkv(y).chunk(3, -1)
        y = y + torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
        weight = torch.softmax(y.mean(-1, keepdim=True), 1)
        return self.head((y * weight).sum(1)[:, -1])


class TwoStreams(nn.Module):
    """Two kinds of frames, joined early and again late."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 6, 5, padding=2), nn.Conv1d(2, 6, 3, padding=1)
        self.late, self.head = nn.Conv1d(12, 6, 3, stride=2), nn.Linear(12, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = F.relu(self.a(x)), F.gelu(self.b(y))
        z = F.relu(self.late(torch.cat((a, a * b), 1)))
        return self.head(torch.cat((z.mean(2), b.amax(2)), 1))


class Gated(nn.Module):
    """Causal dilated convolutions with gates and skips, after WaveNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 6, 1)
        self.pairs = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(4))
        self.skips, self.head = nn.ModuleList(nn.Conv1d(6, 5, 1) for _ in range(4)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), torch.zeros((), dtype=x.dtype)
        for i, (pair, skip) in enumerate(zip(self.pairs, self.skips, strict=True)):
            y = pair(F.pad(x, (2**i, 0)))
            y = torch.tanh(y[:, :6]) * torch.sigmoid(y[:, 6:])
            x, total = x + y, total + skip(y)
        return self.head(F.relu(total)[..., -1])


class Statistics(nn.Module):
    """Squeeze-and-excitation, and a mean and a deviation weighted by attention, after ECAPA-TDNN."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 5, padding=2), nn.Conv1d(8, 8, 3, dilation=2, padding=2)
        self.gate, self.attend, self.head = nn.Linear(8, 8), nn.Conv1d(8, 8, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        y = y * torch.sigmoid(self.gate(y.mean(-1))).unsqueeze(-1)
        weight = torch.softmax(self.attend(torch.tanh(y)), 2)
        mean = (y * weight).sum(2)
        return self.head(torch.cat((mean, ((y.square() * weight).sum(2) - mean.square()).clamp(min=1e-4).sqrt()), 1))


class Mixer(nn.Module):
    """Layers over time and over channels in turns: time is mixed by weights for each pair of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 6, 3, padding=1), nn.LayerNorm(6)
        self.time, self.channels, self.head = nn.Linear(24, 24), nn.Linear(6, 6), nn.Linear(24 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x).transpose(1, 2))
        y = y + F.gelu(self.time(y.transpose(1, 2))).transpose(1, 2)
        return self.head((y + F.gelu(self.channels(y))).flatten(1))


class Deep(nn.Module):
    """Five strides of 2: one score in 32 steps by strides, and one each step in 32 phases."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 4, 4, 6, 6, 8)
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.norms, self.head = nn.ModuleList(nn.BatchNorm1d(b) for b in widths[1:]), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)))
        return self.head(x.mean(2))


class Ladder(nn.Module):
    """Down and up with connections across, after U-Net, and a score of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 6, 4, 2, 1), nn.Conv1d(6, 6, 3, padding=1)
        self.up, self.head = nn.ConvTranspose1d(6, 4, 4, 2, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        b = self.up(F.relu(self.c(F.relu(self.b(a)))))
        return self.head(torch.cat((a, b), 1).mean(2))


class Spectra(nn.Module):
    """A short-time spectrum as frames of a strided window, a logarithm, and 2D convolutions over time and frequency."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, T)
        frames = x.unfold(1, 16, 8) * self.window
        own = torch.fft.rfft(frames).abs().transpose(1, 2)
        given = torch.stft(x, 16, 8, window=self.window, center=True, return_complex=True)
        y = torch.log1p(torch.cat((own, torch.view_as_real(given).square().sum(-1)), 2))
        return self.head(F.relu(self.conv(y.unsqueeze(1))).mean(3).flatten(1))


class TimeFirst(nn.Module):
    """Time before the rows, as recurrent layers of torch have it by default, and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Linear(5, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.encoder, self.head = nn.TransformerEncoderLayer(8, 2, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (T, B, 5)
        y = self.embed(x)
        y = torch.cat((self.token.expand(-1, y.shape[1], -1), y))
        return self.head(self.encoder(y)[0])


class Pyramid(nn.Module):
    """Means over parts of the clip, and maxima of windows that overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(3, 4, 5, padding=2), nn.Linear(4 * (1 + 2 + 4), 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool1d(F.relu(self.conv(x)), 3, 1, 1)
        return self.head(torch.cat([F.adaptive_avg_pool1d(y, n).flatten(1) for n in (1, 2, 4)], 1))


class Last(nn.Module):
    """A recurrent layer's last output or its last states."""

    def __init__(self, kind: str = "LSTM", take: str = "output", layers: int = 1, bias: bool = True, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 3 if stride == 1 else stride, stride)
        own = {"nonlinearity": "relu"} if kind == "RNN" else {}
        self.rnn = getattr(nn, kind)(5, 6, layers, bias=bias, batch_first=True, **own)
        self.head, self.take = nn.Linear(6, 3), take

    def forward(self, x: Tensor) -> Tensor:
        y, ends = self.rnn(torch.tanh(self.conv(x)).transpose(1, 2))
        h = ends[0] if isinstance(ends, tuple) else ends
        found = {
            "output": lambda: y[:, -1],
            "state": lambda: h[-1],
            "both": lambda: y[:, -1] + h.sum(0),
            "cell": lambda: ends[1][0],
        }
        return self.head(found[self.take]())
