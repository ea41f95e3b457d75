"""Classifiers of clips as people write them, untrained: the networks that exact windows are measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import window_signals as signals
from . import window_videos as videos


class Eeg(nn.Module):
    """In the manner of EEGNet: a long filter over time, one over electrodes, separable ones, and a layer of fixed length."""

    def __init__(self, electrodes: int, steps: int, classes: int = 4):
        super().__init__()
        self.time = nn.Sequential(nn.Conv2d(1, 8, (1, 64), padding=(0, 32), bias=False), nn.BatchNorm2d(8))
        self.space = nn.Sequential(nn.Conv2d(8, 16, (electrodes, 1), groups=8, bias=False), nn.BatchNorm2d(16))
        late = nn.Conv2d(16, 16, (1, 16), padding=(0, 8), groups=16, bias=False)
        self.late = nn.Sequential(late, nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16 * (((steps + 1) // 4 + 1) // 8), classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.elu(self.space(self.time(x))), (1, 4))
        return self.head(F.avg_pool2d(F.elu(self.late(y)), (1, 8)).flatten(1))


class Conformer(nn.Module):
    """Convolutions and a long pool, then a transformer over the clip."""

    def __init__(self, electrodes: int, tokens: int, classes: int = 4):
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(1, 40, (1, 25)),
            nn.Conv2d(40, 40, (electrodes, 1)),
            nn.BatchNorm2d(40),
            nn.ELU(),
            nn.AvgPool2d((1, 75), (1, 15)),
        )
        layer = nn.TransformerEncoderLayer(40, 10, 160, batch_first=True, norm_first=True, activation="gelu")
        self.encoder, self.head = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), nn.Linear(40 * tokens, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).squeeze(2).transpose(1, 2)).flatten(1))


class Block(nn.Module):
    """A residual block, with squeeze-and-excitation or without."""

    def __init__(self, inputs: int, outputs: int, stride: int, gate: bool):
        super().__init__()
        self.a = nn.Sequential(nn.Conv1d(inputs, outputs, 7, stride, 3, bias=False), nn.BatchNorm1d(outputs))
        self.b = nn.Sequential(nn.Conv1d(outputs, outputs, 7, 1, 3, bias=False), nn.BatchNorm1d(outputs))
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else nn.Sequential(nn.Conv1d(inputs, outputs, 1, stride), nn.BatchNorm1d(outputs))
        self.gate = nn.Sequential(nn.Linear(outputs, outputs // 4), nn.ReLU(), nn.Linear(outputs // 4, outputs)) if gate else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(y.mean(2))).unsqueeze(2)
        return F.relu(y + self.short(x))


class Ecg(nn.Module):
    """A residual network for heart beats."""

    def __init__(self, leads: int = 12, width: int = 64, classes: int = 5, gate: bool = False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(leads, width, 15, 2, 7), nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(3, 2, 1))
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(*(Block(widths[k], widths[k + 1], 1 + (k > 0), gate and k > 1) for k in range(4)))
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean(2))


class Inception(nn.Module):
    """In the manner of InceptionTime: six times three lengths of filters and a pool, with residual connections."""

    def __init__(self, channels: int = 3, width: int = 32, classes: int = 4):
        super().__init__()
        before = [channels, *[4 * width] * 5]
        self.narrow = nn.ModuleList(nn.Conv1d(c, width, 1, bias=False) for c in before)
        self.filters = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(width, width, k, padding="same", bias=False) for k in (39, 19, 9)) for _ in before
        )
        self.pooled = nn.ModuleList(nn.Conv1d(c, width, 1, bias=False) for c in before)
        self.norms = nn.ModuleList(nn.BatchNorm1d(4 * width) for _ in before)
        self.short = nn.ModuleList(nn.Conv1d(c, 4 * width, 1) for c in (channels, 4 * width))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for i, norm in enumerate(self.norms):
            y = self.narrow[i](x)
            found = [f(y) for f in self.filters[i]] + [self.pooled[i](F.max_pool1d(x, 3, 1, 1))]  # type: ignore[union-attr]
            x = F.relu(norm(torch.cat(found, 1)))
            if i % 3 == 2:
                x = kept = F.relu(x + self.short[i // 3](kept))
        return self.head(x.mean(2))


class Activity(nn.Module):
    """In the manner of DeepConvLSTM: convolutions over time, and a recurrent network that begins with the window."""

    def __init__(self, channels: int = 9, classes: int = 6):
        super().__init__()
        self.convs = nn.Sequential(*(m for i in range(4) for m in (nn.Conv2d(64 if i else 1, 64, (5, 1)), nn.ReLU())))
        self.rnn, self.head = nn.LSTM(64 * channels, 128, 2, batch_first=True), nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.convs(x.unsqueeze(1)).permute(0, 2, 1, 3).flatten(2))[0][:, -1])


class Frames(nn.Module):
    """An image network for every frame, then a recurrent layer in both directions."""

    def __init__(self, classes: int = 10):
        super().__init__()
        widths = (3, 32, 64, 128)
        self.images = nn.Sequential(*(m for a, b in pairwise(widths) for m in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())))
        self.rnn, self.head = nn.LSTM(128, 64, batch_first=True, bidirectional=True), nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.images(x.flatten(0, 1)).mean((2, 3)).view(*x.shape[:2], -1)
        return self.head(self.rnn(y)[0].mean(1))


class Skeleton(nn.Module):
    """In the manner of ST-GCN: joints mixed by a graph, then convolutions over time."""

    def __init__(self, joints: int = 25, classes: int = 60):
        super().__init__()
        self.register_buffer("graph", torch.rand(3, joints, joints) / joints)
        plan = [(3, 64, 1), (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
        self.inside = nn.ModuleList(nn.Conv2d(a, 3 * b, 1) for a, b, _ in plan)
        self.time = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, (9, 1), (s, 1), (4, 0)), nn.BatchNorm2d(b))
            for _, b, s in plan
        )
        self.short = nn.ModuleList(nn.Identity() if a == b and s == 1 else nn.Conv2d(a, b, 1, (s, 1)) for a, b, s in plan)
        self.head = nn.Conv2d(256, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for inside, time, short in zip(self.inside, self.time, self.short, strict=True):
            n, _, t, v = x.shape
            y = torch.einsum("nkctv,kvw->nctw", inside(x).view(n, 3, -1, t, v), self.graph).contiguous()
            x = F.relu(time(y) + short(x))
        return self.head(F.avg_pool2d(x, x.shape[2:])).flatten(1)


class Positions(nn.Module):
    """A transformer with a learned table of positions at its front: windows have little in common."""

    def __init__(self, steps: int, channels: int = 6, width: int = 64, classes: int = 5):
        super().__init__()
        self.conv, self.table = nn.Conv1d(channels, width, 5, padding=2), nn.Parameter(0.02 * torch.randn(1, steps, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.conv(x).transpose(1, 2) + self.table).mean(1))


class Volumes(nn.Module):
    """3D convolutions on 16 frames."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.a, self.b, self.c = nn.Conv3d(3, 32, 3, padding=1), nn.Conv3d(32, 64, 3, padding=1), nn.Conv3d(64, 128, 3, padding=1)
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool3d(F.relu(self.a(x)), (1, 2, 2))
        y = F.relu(self.c(F.max_pool3d(F.relu(self.b(y)), 2)))
        return self.head(y.mean((2, 3, 4)))


@dataclass(frozen=True)
class Network:
    """A network, a clip of one row (or several inputs), and where time is; ``None`` for an input that is not a stream."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[Any, ...]
    dim: Any = 2
    every: tuple[int | None, ...] = (None,)

    def made(self, rows: int = 1) -> tuple[Any, Any]:
        """The network in eval mode, with norms that are no identities, and a clip."""
        torch.manual_seed(0)
        module = self.make().eval()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(part.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
                nn.init.uniform_(part.running_var, 0.8, 1.2)  # type: ignore[arg-type]
        if isinstance(self.dim, tuple):
            return module, tuple(torch.randn(rows, *s) for s in self.shape)
        return module, torch.randn(rows, *self.shape)


BOTH = (None, 1)
NETWORKS = (
    Network("EEGNet-like, 22×1000", lambda: Eeg(22, 1000), (1, 22, 1000), 3, BOTH),
    Network("EEG conformer, 22×1000", lambda: Conformer(22, 61), (1, 22, 1000), 3, BOTH),
    Network("ShallowFBCSP-like, 22×1000", signals.Shallow, (1, 22, 1000), 3),
    Network("Deep4-like, 22×1000", signals.Deep4, (1, 22, 1000), 3),
    Network("EEG-TCN-like, 22×1000", signals.EegTcn, (1, 22, 1000), 3),
    Network("ECG ResNet, 12×2000", Ecg, (12, 2000), 2, BOTH),
    Network("ECG ResNet with gates, 12×1000", lambda: Ecg(width=32, gate=True), (12, 1000), 2, BOTH),
    Network("xresnet1d-like, 12×1000", signals.XResNet, (12, 1000), 2, BOTH),
    Network("Ribeiro-like, 12×4096", signals.Ribeiro, (12, 4096), 2, BOTH),
    Network("dense blocks, 16×2000", signals.DenseEcg, (16, 2000)),
    Network("patches and a table of positions, 12×1000", signals.Patches, (12, 1000)),
    Network("DeepSleep-like, 1×3000", signals.Sleep, (1, 3000)),
    Network("U-Sleep-like, 2×3072", signals.Ladder, (2, 3072)),
    Network("InceptionTime-like, 3×512", Inception, (3, 512)),
    Network("FCN-like, 3×512", signals.Fcn, (3, 512)),
    Network("LSTM-FCN-like, 3×256", lambda: signals.Fcn(rnn="LSTM"), (3, 256)),
    Network("GRU-FCN-like, 3×256", lambda: signals.Fcn(rnn="GRU"), (3, 256)),
    Network("ResNet of series, 3×512", signals.ResidualSeries, (3, 512)),
    Network("OS-CNN-like, 3×512", signals.OmniScale, (3, 512)),
    Network("XceptionTime-like, 3×512", signals.Separable, (3, 512)),
    Network("TCN, 9×512", signals.Tcn, (9, 512)),
    Network("DeepConvLSTM-like, 9×128", Activity, (128, 9), 1),
    Network("CNN and GRU with a vector, 6×256", signals.Movements, ((6, 256), (4,)), (2, None)),
    Network("CRNN, 256×64 bands", signals.Sounds, (256, 64), 1),
    Network("M5-like, 16,000 samples", signals.RawAudio, (1, 16000)),
    Network("DS-CNN-like, 100×40 bands", signals.Keywords, (1, 100, 40), 2, BOTH),
    Network("x-vector-like, 40×300", signals.Speakers, (40, 300)),
    Network("ECAPA-like with gates, 40×300", lambda: signals.Speakers(gates=True), (40, 300)),
    Network("transformer, table of positions, 6×100", lambda: Positions(100), (6, 100)),
    Network("CNN and BiLSTM, 16×64²", Frames, (16, 3, 64, 64), 1),
    Network("CNN and GRU, 16×64²", videos.FramesThen, (16, 3, 64, 64), 1),
    Network("CNN and TCN, 16×64²", lambda: videos.FramesThen("TCN"), (16, 3, 64, 64), 1),
    Network("CNN and transformer, 16×64²", lambda: videos.FramesThen("transformer"), (16, 3, 64, 64), 1),
    Network("TSM-like, 8×64²", videos.Shift, (8, 3, 64, 64), 1),
    Network("ViViT-like, 16×32²", videos.FrameTokens, (16, 3, 32, 32), 1),
    Network("TimeSformer-like, 8×32²", videos.DividedAttention, (8, 3, 32, 32), 1),
    Network("Video-Swin-like, 16×32²", videos.ShiftedWindows, (3, 16, 32, 32)),
    Network("3D convolutions, 16×56²", Volumes, (3, 16, 56, 56), 2, BOTH),
    Network("C3D-like, 16×32²", videos.C3d, (3, 16, 32, 32)),
    Network("R(2+1)D-like, 16×56²", videos.Factorised, (3, 16, 56, 56)),
    Network("SlowFast-like, 32×56²", videos.SlowAndFast, (3, 32, 56, 56)),
    Network("gated volumes, 13×48²", videos.GatedVolumes, (3, 13, 48, 48)),
    Network("images and flow, 16×56²", videos.TwoStreams, ((3, 16, 56, 56), (2, 16, 56, 56)), (2, 2)),
    Network("sound and images, 64 frames", videos.SoundAndImage, ((40, 64), (128, 64)), (2, 2)),
    Network("ST-GCN-like, 64×25 joints", Skeleton, (3, 64, 25), 2, BOTH),
    Network("AGCN-like, 64×25 joints", videos.Joints, (3, 64, 25)),
    Network("joints and bones, 64×25", lambda: videos.Joints(bones=True), ((3, 64, 25), (3, 64, 25)), (2, 2)),
)
