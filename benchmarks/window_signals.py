"""Classifiers of signals as people write them, untrained: EEG, ECG, movement, sound. More networks that exact windows are measured on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(a: int, b: int, size: int, stride: int = 1, **more: Any) -> nn.Sequential:
    """A convolution that keeps the length up to its stride, and a norm."""
    return nn.Sequential(nn.Conv1d(a, b, size, stride, size // 2, bias=False, **more), nn.BatchNorm1d(b))


class Shallow(nn.Module):
    """In the manner of ShallowFBCSPNet: the logarithm of the power behind filters over time and space."""

    def __init__(self, electrodes: int = 22, pooled: int = 61, classes: int = 4):
        super().__init__()
        self.time, self.space = nn.Conv2d(1, 40, (1, 25)), nn.Conv2d(40, 40, (electrodes, 1), bias=False)
        self.norm, self.head = nn.BatchNorm2d(40), nn.Conv2d(40, classes, (1, pooled))

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(self.norm(self.space(self.time(x))).square(), (1, 75), (1, 15))
        return self.head(torch.log(y.clamp(min=1e-6))).flatten(1)


class Deep4(nn.Module):
    """In the manner of Deep4Net: four times a convolution and a pool of 3."""

    def __init__(self, electrodes: int = 22, classes: int = 4):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 25, (1, 10)), nn.Conv2d(25, 25, (electrodes, 1), bias=False), nn.BatchNorm2d(25))
        self.rest = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, 2 * a, (1, 10), bias=False), nn.BatchNorm2d(2 * a)) for a in (25, 50, 100)
        )
        self.head = nn.Conv2d(200, classes, (1, 7))

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(F.elu(self.first(x)), (1, 3))
        for layer in self.rest:
            y = F.max_pool2d(F.elu(layer(y)), (1, 3))
        return self.head(y).flatten(1)


class EegTcn(nn.Module):
    """In the manner of EEGTCNet: filters as EEGNet has them, then causal dilated convolutions, of which the last step counts."""

    def __init__(self, electrodes: int = 22, classes: int = 4):
        super().__init__()
        self.time, self.space = nn.Conv2d(1, 8, (1, 32), padding="same", bias=False), nn.Conv2d(8, 16, (electrodes, 1), groups=8)
        self.late, self.norm = nn.Conv2d(16, 16, (1, 16), padding="same", groups=16, bias=False), nn.BatchNorm2d(16)
        self.tcn = nn.ModuleList(nn.Conv1d(16 if i == 0 else 12, 12, 4, dilation=2 ** (i // 2)) for i in range(4))
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.elu(self.space(self.time(x))), (1, 8))
        y = F.avg_pool2d(F.elu(self.norm(self.late(y))), (1, 8)).squeeze(2)
        for i, layer in enumerate(self.tcn):
            z = F.elu(layer(F.pad(y, (3 * 2 ** (i // 2), 0))))
            y = z if i % 2 == 0 else F.elu(z + y[:, :12])
        return self.head(y[:, :, -1])


class DenseEcg(nn.Module):
    """In the manner of SPARCNet: dense blocks, each half as long as the one before."""

    def __init__(self, channels: int = 16, growth: int = 16, classes: int = 6):
        super().__init__()
        self.stem = nn.Sequential(conv(channels, 24, 7, 2), nn.ELU(), nn.MaxPool1d(3, 2, 1))
        width, blocks = 24, list[nn.Module]()
        for _ in range(4):
            layers = [
                nn.Sequential(nn.BatchNorm1d(width + i * growth), nn.ELU(), conv(width + i * growth, growth, 3)) for i in range(4)
            ]
            blocks += [nn.ModuleList(layers)]
            half = (width + 4 * growth) // 2
            blocks += [nn.Sequential(nn.Conv1d(width + 4 * growth, half, 1), nn.AvgPool1d(2))]
            width = half
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layers, shorter in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            for layer in layers:  # type: ignore[attr-defined]
                x = torch.cat((x, layer(x)), 1)
            x = shorter(x)
        return self.head(F.elu(x).mean(2))


class Ribeiro(nn.Module):
    """In the manner of Ribeiro et al.: residual blocks of long filters, each a quarter as long as the one before, and all that is left."""

    def __init__(self, leads: int = 12, classes: int = 6, width: int = 32):
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width, 5 * width]
        self.stem = conv(leads, width, 17)
        self.a, self.b = (
            nn.ModuleList(conv(i, o, 17) for i, o in pairwise(widths)),
            nn.ModuleList(conv(o, o, 17, 4) for o in widths[1:]),
        )
        self.short, self.head = (
            nn.ModuleList(nn.Conv1d(i, o, 1) for i, o in pairwise(widths)),
            nn.Linear(widths[-1] * 16, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for a, b, short in zip(self.a, self.b, self.short, strict=True):
            x = F.relu(b(F.relu(a(x))) + short(F.max_pool1d(x, 4)))
        return self.head(x.flatten(1))


class XResNet(nn.Module):
    """In the manner of xresnet1d18: a stem of three convolutions, and shortcuts that pool. Strides of 32 in all."""

    def __init__(self, leads: int = 12, classes: int = 5, width: int = 32):
        super().__init__()
        self.stem = nn.Sequential(conv(leads, 32, 5, 2), nn.ReLU(), conv(32, 32, 5), nn.ReLU(), conv(32, width, 5), nn.ReLU(),
                                  nn.MaxPool1d(3, 2, 1))  # fmt: skip
        plan = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 2)]
        self.a, self.b = nn.ModuleList(conv(i, o, 5, s) for i, o, s in plan), nn.ModuleList(conv(o, o, 5) for _, o, _ in plan)
        self.short = nn.ModuleList(nn.Sequential(nn.AvgPool1d(s, ceil_mode=True), conv(i, o, 1)) for i, o, s in plan)
        self.head = nn.Sequential(nn.Linear(16 * width, 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for a, b, short in zip(self.a, self.b, self.short, strict=True):
            x = F.relu(b(F.relu(a(x))) + short(x))
        return self.head(torch.cat((x.amax(2), x.mean(2)), 1))


class Fcn(nn.Module):
    """In the manner of FCN, and of LSTM-FCN with a recurrent layer beside it."""

    def __init__(self, channels: int = 3, classes: int = 4, rnn: str = ""):
        super().__init__()
        self.convs = nn.ModuleList(conv(a, b, k) for a, b, k in ((channels, 128, 7), (128, 256, 5), (256, 128, 3)))
        self.rnn = getattr(nn, rnn)(channels, 64, batch_first=True) if rnn else None
        self.head = nn.Linear(128 + 64 * bool(rnn), classes)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.convs:
            y = F.relu(layer(y))
        y = y.mean(2)
        return self.head(y if self.rnn is None else torch.cat((y, self.rnn(x.transpose(1, 2))[0][:, -1]), 1))


class ResidualSeries(nn.Module):
    """In the manner of the ResNet for time series: three blocks of three convolutions."""

    def __init__(self, channels: int = 3, classes: int = 4, width: int = 64):
        super().__init__()
        widths = [channels, width, 2 * width, 2 * width]
        sizes = (7, 5, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleList(conv(a if i == 0 else b, b, k) for i, k in enumerate(sizes)) for a, b in pairwise(widths)
        )
        self.short, self.head = nn.ModuleList(conv(a, b, 1) for a, b in pairwise(widths)), nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for block, short in zip(self.blocks, self.short, strict=True):
            y = x
            for i, layer in enumerate(block):  # type: ignore[arg-type]
                y = layer(y) if i == 2 else F.relu(layer(y))
            x = F.relu(y + short(x))
        return self.head(x.mean(2))


class OmniScale(nn.Module):
    """In the manner of OS-CNN: filters of all prime lengths side by side."""

    def __init__(self, channels: int = 3, classes: int = 4):
        super().__init__()
        lengths = (1, 2, 3, 5, 7, 11, 13, 17, 19)
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(a, b, k, padding="same") for k in lengths) for a, b in ((channels, 12), (108, 12), (108, 24))
        )
        self.norms, self.head = nn.ModuleList(nn.BatchNorm1d(n) for n in (108, 108, 216)), nn.Linear(216, classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(torch.cat([f(x) for f in layer], 1)))  # type: ignore[union-attr]
        return self.head(x.mean(2))


class Separable(nn.Module):
    """In the manner of XceptionTime: separable convolutions of three lengths, and a pool."""

    def __init__(self, channels: int = 3, classes: int = 4, width: int = 16):
        super().__init__()
        before = [channels, 4 * width, 4 * width]
        self.narrow = nn.ModuleList(nn.Conv1d(c, width, 1, bias=False) for c in before)
        self.filters = nn.ModuleList(
            nn.ModuleList(nn.Sequential(nn.Conv1d(width, width, k, padding="same", groups=width), nn.Conv1d(width, width, 1))
                          for k in (39, 19, 9)) for _ in before
        )  # fmt: skip
        self.pooled = nn.ModuleList(nn.Conv1d(c, width, 1) for c in before)
        self.norms, self.head = nn.ModuleList(nn.BatchNorm1d(4 * width) for _ in before), nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i, norm in enumerate(self.norms):
            y = self.narrow[i](x)
            x = F.relu(norm(torch.cat([*(f(y) for f in self.filters[i]), self.pooled[i](F.max_pool1d(x, 3, 1, 1))], 1)))  # type: ignore[union-attr]
        return self.head(x.mean(2))


class Tcn(nn.Module):
    """Causal dilated convolutions with residual connections; the last step counts."""

    def __init__(self, channels: int = 9, classes: int = 6, width: int = 64):
        super().__init__()
        widths = [channels, *[width] * 6]
        self.a = nn.ModuleList(nn.Conv1d(i, o, 5, dilation=2**k) for k, (i, o) in enumerate(pairwise(widths)))
        self.short, self.head = nn.Conv1d(channels, width, 1), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for k, layer in enumerate(self.a):
            x = F.relu(layer(F.pad(x, (4 * 2**k, 0)))) + (self.short(x) if k == 0 else x)
        return self.head(x[:, :, -1])


class Patches(nn.Module):
    """A transformer on patches of time with a table of positions and a class token: windows have the patches in common alone."""

    def __init__(self, channels: int = 12, steps: int = 1000, patch: int = 20, width: int = 96, classes: int = 5):
        super().__init__()
        self.patch, self.token = nn.Conv1d(channels, width, patch, patch), nn.Parameter(torch.randn(1, 1, width))
        self.table = nn.Parameter(0.02 * torch.randn(1, 1 + steps // patch, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).transpose(1, 2)
        return self.head(self.encoder(torch.cat((self.token.expand(y.shape[0], -1, -1), y), 1) + self.table)[:, 0])


class Sleep(nn.Module):
    """In the manner of DeepSleepNet: short and long filters side by side, and layers in both directions, of which the last step counts."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.fine = nn.Sequential(
            conv(1, 32, 50, 6), nn.ReLU(), nn.MaxPool1d(8, 8), conv(32, 64, 9), nn.ReLU(), nn.MaxPool1d(4, 4)
        )
        self.coarse = nn.Sequential(conv(1, 32, 400, 48), nn.ReLU(), nn.MaxPool1d(4, 4), conv(32, 64, 7), nn.ReLU())
        self.rnn, self.head = nn.LSTM(64, 64, 2, batch_first=True, bidirectional=True), nn.Linear(128 + 64, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(self.fine(x).transpose(1, 2))[0][:, -1]
        return self.head(torch.cat((y, self.coarse(x).amax(2)), 1))


class Ladder(nn.Module):
    """In the manner of U-Sleep: down and up with connections across, and the mean of the whole."""

    def __init__(self, channels: int = 2, classes: int = 5, width: int = 16):
        super().__init__()
        w = [width, 2 * width, 3 * width]
        self.first = conv(channels, w[0], 9)
        self.down = nn.ModuleList((conv(w[0], w[1], 9), conv(w[1], w[2], 9)))
        self.up = nn.ModuleList((nn.ConvTranspose1d(w[2], w[1], 4, 2, 1), nn.ConvTranspose1d(w[1], w[0], 4, 2, 1)))
        self.mix, self.head = nn.ModuleList((conv(2 * w[1], w[1], 9), conv(2 * w[0], w[0], 9))), nn.Linear(w[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        a = F.elu(self.first(x))
        b = F.elu(self.down[0](F.max_pool1d(a, 2)))
        c = F.elu(self.down[1](F.max_pool1d(b, 2)))
        b = F.elu(self.mix[0](torch.cat((b, self.up[0](c)), 1)))
        return self.head(F.elu(self.mix[1](torch.cat((a, self.up[1](b)), 1))).mean(2))


class Sounds(nn.Module):
    """Convolutions over time and frequency, and a recurrent layer in both directions, of which the last step counts."""

    def __init__(self, bands: int = 64, classes: int = 10):
        super().__init__()
        widths = (1, 32, 64, 64)
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d((1, 4)))
            for a, b in pairwise(widths)
        )
        self.rnn, self.head = nn.GRU(64 * (bands // 64), 64, batch_first=True, bidirectional=True), nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, bands)
        y = x.unsqueeze(1)
        for layer in self.convs:
            y = layer(y)
        return self.head(self.rnn(y.transpose(1, 2).flatten(2))[0][:, -1])


class RawAudio(nn.Module):
    """In the manner of M5: convolutions on samples, with strides of 4 five times."""

    def __init__(self, classes: int = 35, width: int = 64):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(1, width, 80, 4), nn.BatchNorm1d(width))
        self.rest = nn.ModuleList(
            nn.Sequential(nn.Conv1d(a, b, 3), nn.BatchNorm1d(b)) for a, b in pairwise((width, width, 128, 256))
        )
        self.head = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.first(x)), 4)
        for layer in self.rest:
            x = F.max_pool1d(F.relu(layer(x)), 4)
        return self.head(x.mean(2))


class Keywords(nn.Module):
    """In the manner of DS-CNN: separable convolutions over time and frequency."""

    def __init__(self, classes: int = 12, width: int = 64):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(width))
        self.rest = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1)
            )
            for _ in range(4)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, T, bands)
        x = F.relu(self.first(x))
        for layer in self.rest:
            x = F.relu(layer(x))
        return self.head(x.mean((2, 3)))


class Speakers(nn.Module):
    """In the manner of x-vectors: dilated layers, then mean and deviation; or of ECAPA, with gates over the clip."""

    def __init__(self, bands: int = 40, classes: int = 20, width: int = 128, gates: bool = False):
        super().__init__()
        plan = [(bands, width, 5, 1), (width, width, 3, 2), (width, width, 3, 3), (width, width, 1, 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(a, b, k, dilation=d, padding=d * (k // 2)), nn.ReLU(), nn.BatchNorm1d(b))
            for a, b, k, d in plan
        )
        self.gate = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, width), nn.Sigmoid()) if gates else None
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            y = layer(x)
            y = y * self.gate(y.mean(2)).unsqueeze(2) if self.gate is not None and i else y
            x = y + x if i and self.gate is not None else y
        return self.head(torch.cat((x.mean(2), x.std(2)), 1))


class Movements(nn.Module):
    """Convolutions, a GRU of which the last state counts, and a static vector beside it."""

    def __init__(self, channels: int = 6, classes: int = 8):
        super().__init__()
        self.convs = nn.Sequential(conv(channels, 64, 5), nn.ReLU(), nn.MaxPool1d(2), conv(64, 64, 5), nn.ReLU())
        self.rnn, self.person, self.head = nn.GRU(64, 96, batch_first=True), nn.Linear(4, 16), nn.Linear(112, classes)

    def forward(self, x: Tensor, person: Tensor) -> Tensor:
        y = self.rnn(self.convs(x).transpose(1, 2))[1][-1]
        return self.head(torch.cat((y, F.relu(self.person(person))), 1))
