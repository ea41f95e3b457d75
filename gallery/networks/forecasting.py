"""Forecasting and anomaly detection, written from the papers, small: 48 steps of three series."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..parts import Attention, Block, Causal, Fn, Permuted, conv_norm

STEPS, SERIES, AHEAD = 48, 3, 8


class Decomposed(nn.Module):
    """A moving mean with repeated ends and what is left of the series, each with a linear layer over time (Zeng 2023)."""

    def __init__(self, kind: str = "DLinear"):
        super().__init__()
        self.kind = kind
        self.season, self.trend = nn.Linear(STEPS, AHEAD), nn.Linear(STEPS, AHEAD)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        if self.kind == "NLinear":
            last = x[:, -1:].detach()
            return self.season((x - last).transpose(1, 2)).transpose(1, 2) + last
        ends = torch.cat((x[:, :1].repeat(1, 4, 1), x, x[:, -1:].repeat(1, 4, 1)), 1)
        mean = F.avg_pool1d(ends.transpose(1, 2), 9, 1)
        return (self.season(x.transpose(1, 2) - mean) + self.trend(mean)).transpose(1, 2)


class Normalised(nn.Module):
    """A module on series whose mean and deviation over the window are taken off, and put back on (Kim 2022)."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.gain, self.bias = module, nn.Parameter(torch.rand(SERIES) + 0.5), nn.Parameter(torch.randn(SERIES))

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = x.mean(1, keepdim=True), torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)
        y = self.module((x - mean) / deviation * self.gain + self.bias)
        return (y - self.bias) / self.gain * deviation + mean


class Doubly(nn.Module):
    """Blocks that take off what they explain of the window, and add up what they foresee (Oreshkin 2020)."""

    def __init__(self, blocks: int = 2):
        super().__init__()
        self.body = nn.ModuleList(
            nn.Sequential(nn.Linear(STEPS, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()) for _ in range(blocks)
        )
        self.back = nn.ModuleList(nn.Linear(16, STEPS) for _ in range(blocks))
        self.ahead = nn.ModuleList(nn.Linear(16, AHEAD) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:  # (B, T)
        total = torch.zeros((), dtype=x.dtype)
        for body, back, ahead in zip(self.body, self.back, self.ahead, strict=True):
            y = body(x)
            x, total = x - back(y), total + ahead(y)
        return total


class Skipping(nn.Module):
    """Convolutions, a GRU, a GRU over every sixth step and a linear part on the last steps (Lai 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.skip = nn.Conv2d(1, 8, (7, SERIES)), nn.GRU(8, 6), nn.GRU(8, 4)
        self.head, self.direct = nn.Linear(6 + 4 * 6, SERIES), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        y = F.relu(self.conv(x.unsqueeze(1))).squeeze(3)
        h = self.rnn(y.permute(2, 0, 1))[1].squeeze(0)
        count = y.shape[2] // 6
        s = y[:, :, -count * 6 :].view(b, 8, count, 6).permute(2, 0, 3, 1).reshape(count, b * 6, 8)
        s = self.skip(s)[1].view(b, 24)
        return self.head(torch.cat((h, s), 1)) + self.direct(x[:, -12:].transpose(1, 2)).squeeze(2)


class Autocorrelation(nn.Module):
    """Similarity of delays through the spectrum of the window; the best delays are averaged (Wu 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(SERIES, 8) for _ in range(3))
        self.head = nn.Linear(8, SERIES)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        q, k, v = (f(x).transpose(1, 2) for f in (self.q, self.k, self.v))
        found = torch.fft.irfft(torch.fft.rfft(q, dim=-1) * torch.conj(torch.fft.rfft(k, dim=-1)), n=n, dim=-1)
        weights, delays = torch.topk(found.mean(1), 3, dim=-1)
        weights = torch.softmax(weights, -1)
        at = (torch.arange(n, device=x.device) + delays[..., None]) % n
        parts = [torch.gather(v, 2, at[:, i, None].expand_as(v)) * weights[:, i, None, None] for i in range(3)]
        return self.head((parts[0] + parts[1] + parts[2]).transpose(1, 2))


class Mixing(nn.Module):
    """Layers over time and over series in turn (Chen 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.series = nn.Linear(STEPS, STEPS), nn.Sequential(nn.Linear(SERIES, 8), nn.ReLU(), nn.Linear(8, SERIES))
        self.norm, self.head = nn.LayerNorm(SERIES), nn.Linear(STEPS, AHEAD)

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.relu(self.time(self.norm(x).transpose(1, 2))).transpose(1, 2)
        return self.head((x + self.series(x)).transpose(1, 2)).transpose(1, 2)


class Folded(nn.Module):
    """The window as an image of periods, and 2D convolutions; the period is fixed (Wu 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(SERIES, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, SERIES, 3, padding=1))
        self.head = nn.Linear(STEPS, AHEAD)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        y = y + self.conv(y.unflatten(2, (-1, 8))).flatten(2)
        return self.head(y).transpose(1, 2)


class Patches(nn.Module):
    """Overlapping patches of each series by itself, and blocks (Nie 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.blocks = nn.Linear(16, 8), nn.Sequential(Block(8, 2), Block(8, 2))
        self.table, self.head = nn.Parameter(torch.randn(1, 5, 8)), nn.Linear(40, AHEAD)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        y = self.inner(x.transpose(1, 2).unfold(2, 16, 8)).flatten(0, 1)
        return self.head(self.blocks(y + self.table).flatten(1)).view(b, SERIES, AHEAD).transpose(1, 2)


class Inverted(nn.Module):
    """Each series is a token (Liu 2024)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.blocks, self.head = nn.Linear(STEPS, 8), Block(8, 2), nn.Linear(8, AHEAD)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.inner(x.transpose(1, 2)))).transpose(1, 2)


class Tree(nn.Module):
    """Even and odd steps that correct each other, level by level (Liu 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(SERIES, SERIES, 3, padding=1), nn.Conv1d(SERIES, SERIES, 3, padding=1)
        self.head = nn.Linear(STEPS, AHEAD)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        even, odd = y[:, :, ::2], y[:, :, 1::2]
        even, odd = even * torch.exp(torch.tanh(self.a(odd))), odd * torch.exp(torch.tanh(self.b(even)))
        return self.head(torch.stack((even, odd), 3).flatten(2)).transpose(1, 2)


class Reconstruction(nn.Module):
    """An autoencoder of the whole window: what it says of it, or by how much it is wrong (Audibert 2020)."""

    def __init__(self, error: bool):
        super().__init__()
        self.down, self.up, self.error = nn.Linear(12 * SERIES, 8), nn.Linear(8, 12 * SERIES), error

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.up(F.relu(self.down(x.flatten(1))))).view_as(x)
        return ((x - y) ** 2).mean((1, 2)) if self.error else y


class Autoencoder(nn.Module):
    """Recurrent: the last state, repeated for each frame, is decoded in reverse (Malhotra 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.out = (
            nn.LSTM(SERIES, 6, batch_first=True),
            nn.LSTM(6, 6, batch_first=True),
            nn.Linear(6, SERIES),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)[1][0][-1]
        return ((self.out(self.decoder(h[:, None].repeat(1, x.shape[1], 1))[0]) - x) ** 2).mean((1, 2))


def row(
    name: str, build: Any, source: str, expected: Any = "windows", clip: Any = (2, STEPS, SERIES), time_dim: int = 1, **more: Any
) -> Network:
    """A row of this field."""
    return Network(f"forecasting/{name}", build, clip, expected, source, time_dim=time_dim, **more)


NETWORKS = [
    row("DLinear", Decomposed, "Zeng 2023, AAAI"),
    row("NLinear", lambda: Decomposed("NLinear"), "Zeng 2023, AAAI"),
    row("RevIN and linear", lambda: Normalised(Permuted(nn.Linear(STEPS, AHEAD), (0, 2, 1), (0, 2, 1))), "Kim 2022, ICLR"),
    row(
        "RevIN and GRU, per frame",
        lambda: Normalised(
            Fn(lambda m, x: m.out(m.rnn(x)[0]), rnn=nn.GRU(SERIES, 6, batch_first=True), out=nn.Linear(6, SERIES))
        ),
        "Kim 2022, ICLR",
        "windows",
        options={"output": -1},
    ),
    row("TSMixer", Mixing, "Chen 2023, TMLR"),
    row("N-BEATS", Doubly, "Oreshkin 2020, ICLR", clip=(2, STEPS)),
    row("LSTNet", Skipping, "Lai 2018, SIGIR"),
    row(
        "DeepAR",
        lambda: Fn(
            lambda m, x: (m.mean(y := m.rnn(x)[0]), F.softplus(m.scale(y))),
            rnn=nn.LSTM(SERIES, 8, 2, batch_first=True),
            mean=nn.Linear(8, 1),
            scale=nn.Linear(8, 1),
        ),
        "Salinas 2020, IJF",
        "stream",
    ),
    row(
        "TCN forecaster",
        lambda: nn.Sequential(
            Causal(3, 8, 3), nn.ReLU(), Causal(8, 8, 3, dilation=2), nn.ReLU(), Causal(8, 8, 3, dilation=4), nn.Conv1d(8, 24, 1)
        ),
        "Bai 2018, arXiv:1803.01271",
        "stream",
        (2, 3, 48),
        2,
    ),
    row("iTransformer", Inverted, "Liu 2024, ICLR"),
    row("PatchTST by hand", Patches, "Nie 2023, ICLR"),
    row("TimesNet, fixed period", Folded, "Wu 2023, ICLR"),
    row("SCINet", Tree, "Liu 2022, NeurIPS"),
    row("Autoformer's autocorrelation", Autocorrelation, "Wu 2021, NeurIPS", options={"output": -1}),
    row(
        "transformer, mean",
        lambda: Fn(
            lambda m, x: m.head(m.blocks(m.inner(x) + m.table).mean(1)),
            inner=nn.Linear(3, 8),
            table=nn.Parameter(torch.randn(1, STEPS, 8)),
            blocks=nn.Sequential(Block(8, 2), Block(8, 2)),
            head=nn.Linear(8, AHEAD),
        ),
        "Vaswani 2017, NeurIPS",
    ),
    row(
        "causal transformer, sine table",
        lambda: Fn(
            lambda m, x: m.head(m.block(m.inner(x) + m.table[:, : x.shape[1]])),
            inner=nn.Linear(3, 8),
            block=Block(8, 2, causal=True),
            table=torch.sin(torch.arange(512)[:, None] / 10 ** torch.arange(8))[None],
            head=nn.Linear(8, 3),
        ),
        "Vaswani 2017, NeurIPS",
        "windows",
        options={"output": -1},
    ),
    row(
        "Temporal Fusion, gated parts",
        lambda: Fn(
            lambda m, x: m.norm(x @ m.skip + torch.sigmoid(m.gate(y := m.rnn(m.inner(x))[0])) * m.value(y)),
            inner=nn.Linear(3, 6),
            skip=torch.randn(3, 6),
            rnn=nn.LSTM(6, 6, batch_first=True),
            gate=nn.Linear(6, 6),
            value=nn.Linear(6, 6),
            norm=nn.LayerNorm(6),
        ),
        "Lim 2021, IJF",
        "stream",
    ),
    row(
        "USAD, reconstruction",
        lambda: Reconstruction(False),
        "Audibert 2020, KDD",
        "windows",
        (2, 12, SERIES),
    ),
    row("USAD, error", lambda: Reconstruction(True), "Audibert 2020, KDD", "windows", (2, 12, SERIES)),
    row(
        "TCN autoencoder",
        lambda: nn.Sequential(
            conv_norm(3, 8, 5, padding=2),
            nn.AvgPool1d(4),
            nn.Conv1d(8, 4, 1),
            nn.Upsample(scale_factor=4),
            conv_norm(4, 8, 5, padding=2),
            nn.Conv1d(8, 3, 1),
        ),
        "Thill 2021, ASOC",
        "stream",
        (2, 3, 64),
        2,
    ),
    row("LSTM autoencoder, error", Autoencoder, "Malhotra 2016, ICML AD"),
    row(
        "Anomaly Transformer's block",
        lambda: Fn(
            lambda m, x: m.head(m.mix(m.inner(x)) + m.inner(x)).sub(x).square().mean((1, 2)),
            inner=nn.Linear(3, 8),
            mix=Attention(8, 2),
            head=nn.Linear(8, 3),
        ),
        "Xu 2022, ICLR",
    ),
    row(
        "quantile CNN",
        lambda: nn.Sequential(
            nn.Conv1d(3, 8, 5), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(144, 9)
        ),
        "Wen 2017, arXiv:1711.11053",
        clip=(2, 3, 48),
        time_dim=2,
    ),
]
