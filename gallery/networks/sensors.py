"""Networks for electrocardiograms, accelerometers and other sensors, written from the papers, small."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..parts import Block, Causal, Fn, Permuted, Residual, Squeeze, conv_norm, head


def ribeiro() -> nn.Module:
    """Residual blocks that quarter the rate, with a pooled shortcut."""

    def block(a: int, b: int) -> nn.Module:
        body = nn.Sequential(conv_norm(a, b, 17, padding=8), nn.Conv1d(b, b, 16, stride=4, padding=6))
        return Residual(body, nn.Sequential(nn.MaxPool1d(4), nn.Conv1d(a, b, 1)))

    return nn.Sequential(conv_norm(12, 8, 17, padding=8), block(8, 12), block(12, 16), nn.Flatten(), nn.Linear(16 * 32, 6))


def hannun() -> nn.Module:
    """Residual blocks, and scores every few samples."""

    def block(a: int, b: int, stride: int) -> nn.Module:
        body = nn.Sequential(conv_norm(a, b, 15, stride=stride, padding=7), nn.Conv1d(b, b, 15, padding=7))
        return Residual(body, nn.Conv1d(a, b, 1, stride))

    return nn.Sequential(conv_norm(1, 8, 15, padding=7), block(8, 8, 2), block(8, 12, 2), block(12, 12, 2), nn.Conv1d(12, 4, 1))


def xresnet() -> nn.Module:
    """A stem of three convolutions, bottlenecks, and mean and maximum of the clip."""
    body = lambda: nn.Sequential(conv_norm(12, 6, 1), conv_norm(6, 6, 5, padding=2), nn.Conv1d(6, 12, 1))  # noqa: E731
    return Fn(
        lambda m, x: m.head(torch.cat(((y := m.body(x)).mean(2), y.amax(2)), 1)),
        head=nn.Linear(24, 5),
        body=nn.Sequential(
            conv_norm(12, 8, 5, stride=2, padding=2),
            conv_norm(8, 12, 5, padding=2),
            nn.MaxPool1d(3, 2, 1),
            Residual(body()),
            Residual(body()),
        ),
    )


def squeezed(per_sample: bool = False) -> nn.Module:
    """Residual blocks with squeeze-and-excitation."""
    block = lambda: Residual(nn.Sequential(conv_norm(8, 8, 5, padding=2), nn.Conv1d(8, 8, 5, padding=2), Squeeze(8, 4)))  # noqa: E731
    return nn.Sequential(conv_norm(12, 8, 7, padding=3), block(), block(), nn.Conv1d(8, 3, 1) if per_sample else head(8, 3))


class Unet(nn.Module):
    """A U-Net over samples; what goes up is cropped to what comes across, if asked for."""

    def __init__(self, channels: int = 1, crop: bool = False, up: str = "transposed"):
        super().__init__()
        self.one, self.two, self.low = (conv_norm(a, b, 5, padding=2) for a, b in ((channels, 4), (4, 6), (6, 8)))
        self.up2, self.up1 = nn.ConvTranspose1d(8, 6, 2, 2), nn.ConvTranspose1d(6, 4, 2, 2)
        self.mix2, self.mix1, self.out = conv_norm(12, 6, 3, padding=1), conv_norm(8, 4, 3, padding=1), nn.Conv1d(4, 2, 1)
        self.crop, self.way = crop, up
        self.wide2, self.wide1 = nn.Conv1d(8, 6, 1), nn.Conv1d(6, 4, 1)

    def join(self, across: Tensor, x: Tensor, up: nn.Module, wide: nn.Module) -> Tensor:
        y = up(x) if self.way == "transposed" else wide(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return torch.cat((across[..., : y.shape[-1]] if self.crop else across, y), 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(F.max_pool1d(one, 2))
        low = self.low(F.max_pool1d(two, 2))
        y = self.mix2(self.join(two, low, self.up2, self.wide2))
        return self.out(self.mix1(self.join(one, y, self.up1, self.wide1)))


class ConvRnn(nn.Module):
    """Convolutions over time, a recurrent layer, and scores of a kind: last, frames, mean, attention, states."""

    def __init__(self, kind: str = "last", rnn: str = "LSTM", both: bool = False, inputs: int = 9, layers: int = 1):
        super().__init__()
        self.conv = nn.Sequential(conv_norm(inputs, 12, 5), conv_norm(12, 12, 5))
        self.rnn = getattr(nn, rnn)(12, 8, layers, batch_first=True, bidirectional=both)
        width = 16 if both else 8
        self.score, self.head, self.kind = nn.Linear(width, 1), nn.Linear(width, 6), kind

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C)
        y, state = self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))
        if self.kind == "attention":
            y = (torch.softmax(self.score(torch.tanh(y)), 1) * y).sum(1)
        elif self.kind == "states":
            h = state[0] if isinstance(state, tuple) else state
            y = torch.cat(tuple(h[-2:]), 1) if self.rnn.bidirectional else h[-1]
        elif self.kind != "frames":
            y = y[:, -1] if self.kind == "last" else y.mean(1)
        return self.head(y)


class EachSensor(nn.Module):
    """Convolutions of each channel by itself, then attention among channels and a GRU (Abedin 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 6, (5, 1)), nn.ReLU(), nn.Conv2d(6, 6, (5, 1)), nn.ReLU())
        self.query, self.rnn = nn.Linear(6, 6), nn.GRU(6 * 6, 8, batch_first=True)
        self.score, self.head = nn.Linear(8, 1), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 6)
        y = self.conv(x.unsqueeze(1)).permute(0, 2, 3, 1)
        y = torch.softmax(self.query(y) @ y.transpose(-1, -2), -1) @ y
        y = self.rnn(y.flatten(2))[0]
        return self.head((torch.softmax(self.score(y), 1) * y).sum(1))


class Tokens(nn.Module):
    """Patches, a class token, a table of positions and transformer blocks."""

    def __init__(self, channels: int, frames: int, patch: int, token: bool = True):
        super().__init__()
        count = frames // patch + token
        self.patch, self.table = nn.Conv1d(channels, 8, patch, patch), nn.Parameter(torch.randn(1, count, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 8)) if token else None
        self.blocks, self.head = nn.Sequential(Block(8, 2), Block(8, 2)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).transpose(1, 2)
        if self.token is not None:
            y = torch.cat((self.token.expand(y.shape[0], -1, -1), y), 1)
        y = self.blocks(y + self.table)
        return self.head(y[:, 0] if self.token is not None else y.mean(1))


class Gated(nn.Module):
    """Dilated causal convolutions with gates and skips (van den Oord 2016)."""

    def __init__(self, inputs: int = 3, causal: bool = True):
        super().__init__()
        self.first = nn.Conv1d(inputs, 6, 1)
        make: Any = Causal if causal else nn.Conv1d
        self.pairs = nn.ModuleList(make(6, 12, 3, dilation=2**i, **({} if causal else {"padding": 2**i})) for i in range(3))
        self.skips, self.out = nn.ModuleList(nn.Conv1d(6, 5, 1) for _ in range(3)), nn.Conv1d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), torch.zeros((), dtype=x.dtype)
        for pair, skip in zip(self.pairs, self.skips, strict=True):
            a, b = pair(x).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            x, total = x + y, total + skip(y)
        return self.out(F.relu(total))


def row(name: str, build: Any, source: str, clip: Any, expected: Any = "windows", **more: Any) -> Network:
    """A row of this field."""
    return Network(f"sensors/{name}", build, clip, expected, source, **more)


SE = "Squeeze-and-excitation: the mean of the whole clip scales every sample."
HAR = {"time_dim": 1}
NETWORKS = [
    row("ECG ResNet with flatten", ribeiro, "Ribeiro 2020, Nat. Commun.", (2, 12, 512)),
    row("ECG ResNet, scores along the record", hannun, "Hannun 2019, Nat. Med.", (2, 1, 256), "stream"),
    row("xresnet1d", xresnet, "Strodthoff 2021, IEEE JBHI", (2, 12, 256)),
    row("SE-ResNet of ECG", squeezed, "Zhao 2019, CinC", (2, 12, 128)),
    row("SE-ResNet of ECG, per sample", lambda: squeezed(True), "Zhao 2019, CinC", (2, 12, 128), "refused", why=SE),
    row("ECG U-Net", Unet, "Moskalenko 2020, NeurIPS ML4H", (2, 1, 128), "stream"),
    row("ECG U-Net, interpolated", lambda: Unet(up="nearest"), "Moskalenko 2020, NeurIPS ML4H", (2, 1, 128), "stream"),
    row("ECG U-Net, cropped skips", lambda: Unet(crop=True), "Ronneberger 2015, MICCAI", (2, 1, 128), "stream"),
    row(
        "CNN, BiLSTM and attention",
        lambda: ConvRnn("attention", both=True, inputs=2),
        "Yao 2020, Inf. Fusion",
        (2, 128, 2),
        **HAR,
    ),
    row("ECG transformer", lambda: Tokens(12, 250, 25), "Natarajan 2020, CinC", (2, 12, 250)),
    row("ECG patches without token", lambda: Tokens(12, 250, 25, False), "Natarajan 2020, CinC", (2, 12, 250)),
    row("DeepConvLSTM", ConvRnn, "Ordóñez 2016, Sensors", (2, 48, 9), **HAR),
    row("DeepConvLSTM, per frame", lambda: ConvRnn("frames"), "Ordóñez 2016, Sensors", (2, 48, 9), "stream", **HAR),
    row("DeepConvLSTM, mean", lambda: ConvRnn("mean", layers=2), "Ordóñez 2016, Sensors", (2, 48, 9), **HAR),
    row("CNN and GRU, last states", lambda: ConvRnn("states", "GRU"), "Cho 2014, EMNLP", (2, 48, 9), **HAR),
    row("CNN and BiGRU, last states", lambda: ConvRnn("states", "GRU", True), "Cho 2014, EMNLP", (2, 48, 9), **HAR),
    row(
        "CNN and BiLSTM, per frame",
        lambda: ConvRnn("frames", both=True),
        "Schuster 1997, IEEE TSP",
        (2, 48, 9),
        options={"output": -1},
        **HAR,
    ),
    row("Attend and Discriminate", EachSensor, "Abedin 2021, IMWUT", (2, 32, 6), **HAR),
    row(
        "CNN with flatten",
        lambda: nn.Sequential(
            conv_norm(6, 8, 9), nn.MaxPool1d(2), conv_norm(8, 8, 9), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(80, 6)
        ),
        "Yang 2015, IJCAI",
        (2, 6, 64),
    ),
    row(
        "RoNIN LSTM",
        lambda: Fn(lambda m, x: m.out(m.rnn(x)[0]), rnn=nn.LSTM(6, 10, 3, batch_first=True), out=nn.Linear(10, 2)),
        "Herath 2020, ICRA",
        (2, 40, 6),
        "stream",
        **HAR,
    ),
    row(
        "RoNIN ResNet",
        lambda: nn.Sequential(
            conv_norm(6, 8, 7, stride=2, padding=3),
            nn.MaxPool1d(3, 2, 1),
            Residual(nn.Conv1d(8, 8, 3, padding=1)),
            nn.Flatten(),
            nn.Linear(400, 2),
        ),
        "Herath 2020, ICRA",
        (2, 6, 200),
    ),
    row(
        "RoNIN TCN",
        lambda: Permuted(
            nn.Sequential(Causal(6, 8, 3), nn.ReLU(), Causal(8, 8, 3, dilation=2), nn.ReLU(), nn.Conv1d(8, 2, 1)),
            (0, 2, 1),
            (0, 2, 1),
        ),
        "Herath 2020, ICRA",
        (2, 40, 6),
        "stream",
        **HAR,
    ),
    row(
        "MobileNet of accelerometers",
        lambda: nn.Sequential(
            conv_norm(3, 8, 3, stride=2, padding=1), conv_norm(8, 8, 3, padding=1, groups=8), conv_norm(8, 16, 1), head(16, 4)
        ),
        "Howard 2017, arXiv:1704.04861",
        (2, 3, 64),
    ),
    row("WaveNet", Gated, "van den Oord 2016, arXiv:1609.03499", (2, 3, 40), "stream"),
    row("WaveNet, both directions", lambda: Gated(causal=False), "van den Oord 2016, arXiv:1609.03499", (2, 3, 40), "stream"),
    row(
        "TCN",
        lambda: nn.Sequential(
            *(
                Residual(nn.Sequential(Causal(4, 4, 3, dilation=2**i), nn.ReLU(), Causal(4, 4, 3, dilation=2**i), nn.ReLU()))
                for i in range(3)
            )
        ),
        "Bai 2018, arXiv:1803.01271",
        (2, 4, 64),
        "stream",
    ),
    row(
        "EEGNet by hand",
        lambda: Fn(
            lambda m, x: m.head(m.body(x.unsqueeze(1))),
            body=nn.Sequential(
                nn.Conv2d(1, 4, (1, 16), padding=(0, 8)),
                nn.BatchNorm2d(4),
                nn.Conv2d(4, 8, (8, 1), groups=4),
                nn.ELU(),
                nn.AvgPool2d((1, 4)),
                nn.Conv2d(8, 8, (1, 8), padding=(0, 4), groups=8),
                nn.Conv2d(8, 8, 1),
                nn.ELU(),
                nn.AvgPool2d((1, 8)),
                nn.Flatten(),
            ),
            head=nn.Linear(32, 4),
        ),
        "Lawhern 2018, J. Neural Eng.",
        (2, 8, 128),
    ),
    row(
        "keyword spotting, DS-CNN",
        lambda: nn.Sequential(
            conv_norm(1, 8, (10, 4), rank=2, stride=(2, 2), padding=(5, 1)),
            conv_norm(8, 8, 3, rank=2, padding=1, groups=8),
            conv_norm(8, 8, 1, rank=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 12),
        ),
        "Zhang 2017, arXiv:1711.07128",
        (2, 1, 49, 10),
    ),
    row(
        "sleep stages, sequence of epochs",
        lambda: Fn(
            lambda m, x: m.out(m.rnn(m.cnn(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2]))[0]),
            cnn=nn.Sequential(conv_norm(1, 6, 9, stride=4), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
            rnn=nn.GRU(6, 6, batch_first=True),
            out=nn.Linear(6, 5),
        ),
        "Supratak 2020, EMBC (TinySleepNet)",
        (2, 8, 100),
        "stream",
        **HAR,
    ),
]
