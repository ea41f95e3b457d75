"""Classifiers of videos and skeletons as people write them, untrained; some take two streams. More networks for exact windows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Factorised(nn.Module):
    """In the manner of R(2+1)D: a convolution over space, then one over time."""

    def __init__(self, classes: int = 10, width: int = 32):
        super().__init__()
        widths = [(3, width, 1), (width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
        self.space = nn.ModuleList(nn.Conv3d(a, b, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False) for a, b, _ in widths)
        self.time = nn.ModuleList(nn.Conv3d(b, b, (3, 1, 1), (s, 1, 1), (1, 0, 0), bias=False) for _, b, s in widths)
        self.norms, self.head = nn.ModuleList(nn.BatchNorm3d(b) for _, b, _ in widths), nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for space, time, norm in zip(self.space, self.time, self.norms, strict=True):
            x = F.relu(norm(time(F.relu(space(x)))))
        return self.head(x.mean((2, 3, 4)))


class Shift(nn.Module):
    """In the manner of TSM: an image network in which some channels are shifted by a frame."""

    def __init__(self, frames: int = 8, classes: int = 10, width: int = 32):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 2, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)) for _ in range(3))
        self.head, self.frames = nn.Linear(width, classes), frames

    def shifted(self, x: Tensor) -> Tensor:
        y = x.view(-1, self.frames, *x.shape[1:])
        fold, out = x.shape[1] // 8, torch.zeros_like(y)
        out[:, :-1, :fold] = y[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = y[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = y[:, :, 2 * fold :]
        return out.view(x.shape)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        y = self.stem(x.flatten(0, 1))
        for block in self.blocks:
            y = F.relu(y + block(self.shifted(y)))
        return self.head(y.mean((2, 3))).view(x.shape[0], self.frames, -1).mean(1)


class C3d(nn.Module):
    """In the manner of C3D: volumes, pools of 2, and a layer of fixed length."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1) for a, b in pairwise((3, 16, 32, 64)))
        self.head = nn.Linear(64 * 4 * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.convs):
            x = F.max_pool3d(F.relu(layer(x)), (1 if i == 0 else 2, 2, 2))
        return self.head(x.flatten(1))


class SlowAndFast(nn.Module):
    """In the manner of SlowFast: every fourth frame with many channels, all frames with few, joined on the way and at the end."""

    def __init__(self, classes: int = 10, width: int = 32):
        super().__init__()
        few = width // 4
        self.slow, self.fast = nn.Conv3d(3, width, (1, 5, 5), (1, 4, 4), (0, 2, 2)), nn.Conv3d(3, few, 5, (1, 4, 4), 2)
        self.across = nn.Conv3d(few, 2 * few, (5, 1, 1), (4, 1, 1), (2, 0, 0))
        self.late, self.lean = nn.Conv3d(width + 2 * few, 2 * width, 3, padding=1), nn.Conv3d(few, 2 * few, 3, padding=1)
        self.head = nn.Linear(2 * width + 2 * few, classes)

    def forward(self, x: Tensor) -> Tensor:
        slow, fast = F.relu(self.slow(x[:, :, ::4])), F.relu(self.fast(x))
        slow = F.relu(self.late(torch.cat((slow, self.across(fast)), 1)))
        return self.head(torch.cat((slow.mean((2, 3, 4)), F.relu(self.lean(fast)).mean((2, 3, 4))), 1))


class FrameTokens(nn.Module):
    """In the manner of the factorised ViViT: a transformer among the patches of each frame, then one over frames."""

    def __init__(self, classes: int = 10, width: int = 64, patch: int = 8, size: int = 32):
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, width, patch, patch), nn.Parameter(torch.randn(1, 1, width))
        self.table = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width))
        make = lambda: nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)  # noqa: E731
        self.space = nn.TransformerEncoder(make(), 3, enable_nested_tensor=False)
        self.time, self.clip, self.head = make(), nn.Parameter(torch.randn(1, 1, width)), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        b, t = x.shape[:2]
        y = self.patch(x.flatten(0, 1)).flatten(2).transpose(1, 2)
        y = self.space(torch.cat((self.token.expand(b * t, -1, -1), y), 1) + self.table)[:, 0].view(b, t, -1)
        return self.head(self.time(torch.cat((self.clip.expand(b, -1, -1), y), 1))[:, 0])


class DividedAttention(nn.Module):
    """In the manner of TimeSformer: a table of frames at the front, then attention over time and over space in turns."""

    def __init__(self, frames: int = 8, classes: int = 10, width: int = 64, patches: int = 16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.places, self.frames = nn.Parameter(torch.randn(1, patches, width)), nn.Parameter(torch.randn(1, frames, 1, width))
        make = lambda: nn.MultiheadAttention(width, 4, batch_first=True)  # noqa: E731
        self.time, self.space = nn.ModuleList(make() for _ in range(2)), nn.ModuleList(make() for _ in range(2))
        self.norms, self.head = nn.ModuleList(nn.LayerNorm(width) for _ in range(4)), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        b, t = x.shape[:2]
        y = (self.patch(x.flatten(0, 1)).flatten(2).transpose(1, 2) + self.places).view(
            b, t, -1, self.places.shape[2]
        ) + self.frames
        for i, (time, space) in enumerate(zip(self.time, self.space, strict=True)):
            z = self.norms[2 * i](y).transpose(1, 2).flatten(0, 1)
            y = y + time(z, z, z)[0].unflatten(0, (b, -1)).transpose(1, 2)
            z = self.norms[2 * i + 1](y).flatten(0, 1)
            y = y + space(z, z, z)[0].unflatten(0, (b, t))
        return self.head(y.mean((1, 2)))


class ShiftedWindows(nn.Module):
    """In the manner of Video Swin: attention in blocks of frames and patches, shifted in every other layer."""

    def __init__(self, classes: int = 10, width: int = 48):
        super().__init__()
        self.patch, self.head = nn.Conv3d(3, width, (2, 4, 4), (2, 4, 4)), nn.Linear(width, classes)
        self.qkv, self.mlp = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(4)), nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(4)
        )  # fmt: skip

    def attended(self, layer: nn.Module, x: Tensor) -> Tensor:
        b, d, h, w, c = x.shape
        y = x.view(b, d // 2, 2, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, 32, c)
        q, k, v = layer(y).unflatten(-1, (3, 4, c // 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, d // 2, h // 4, w // 4, 2, 4, 4, c)
        return y.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, d, h, w, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).permute(0, 2, 3, 4, 1)
        for i, (qkv, mlp) in enumerate(zip(self.qkv, self.mlp, strict=True)):
            z = torch.roll(y, (-1, -2, -2), (1, 2, 3)) if i % 2 else y
            z = self.attended(qkv, z)
            y = y + (torch.roll(z, (1, 2, 2), (1, 2, 3)) if i % 2 else z)
            y = y + mlp(y)
        return self.head(y.mean((1, 2, 3)))


class FramesThen(nn.Module):
    """An image network for every frame, then a recurrent layer, dilated convolutions, or a transformer."""

    def __init__(self, then: str = "GRU", classes: int = 10, width: int = 96):
        super().__init__()
        self.images = nn.Sequential(*(m for a, b in pairwise((3, 32, 64, width)) for m in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())))
        self.then, self.head = then, nn.Linear(width, classes)
        self.rnn = nn.GRU(width, width, batch_first=True) if then == "GRU" else None
        self.convs = (
            nn.ModuleList(nn.Conv1d(width, width, 3, padding=2**i, dilation=2**i) for i in range(3)) if then == "TCN" else None
        )
        self.encoder = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True) if then == "transformer" else None

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        y = self.images(x.flatten(0, 1)).mean((2, 3)).view(*x.shape[:2], -1)
        if self.rnn is not None:
            return self.head(self.rnn(y)[1][-1])
        if self.encoder is not None:
            return self.head(self.encoder(y).mean(1))
        y = y.transpose(1, 2)
        for layer in self.convs or ():
            y = y + F.relu(layer(y))
        return self.head(y.amax(2))


class TwoStreams(nn.Module):
    """Images and flow, each with a network of its own, joined in the middle and at the end."""

    def __init__(self, classes: int = 10, width: int = 24):
        super().__init__()
        make = lambda a: nn.Conv3d(a, width, (3, 5, 5), (1, 4, 4), (1, 2, 2))  # noqa: E731
        self.images, self.flow = make(3), make(2)
        self.late, self.own = nn.Conv3d(width, 2 * width, 3, padding=1), nn.Conv3d(width, 2 * width, 3, padding=1)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor, flow: Tensor) -> Tensor:
        a, b = F.relu(self.images(x)), F.relu(self.flow(flow))
        return self.head(torch.cat((F.relu(self.late(a * (1 + b))).mean((2, 3, 4)), F.relu(self.own(b)).mean((2, 3, 4))), 1))


class SoundAndImage(nn.Module):
    """Features of sound and images of one rate, each of which looks at all of the other's."""

    def __init__(self, classes: int = 10, width: int = 64):
        super().__init__()
        self.sound = nn.Sequential(nn.Conv1d(40, width, 5, padding=2), nn.ReLU(), nn.Conv1d(width, width, 5, padding=2))
        self.image = nn.Sequential(nn.Conv1d(128, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, width, 3, padding=1))
        self.a, self.b = nn.MultiheadAttention(width, 4, batch_first=True), nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, sound: Tensor, image: Tensor) -> Tensor:
        a, b = self.sound(sound).transpose(1, 2), self.image(image).transpose(1, 2)
        return self.head(torch.cat((self.a(a, b, b)[0].mean(1), self.b(b, a, a)[0].mean(1)), 1))


class GatedVolumes(nn.Module):
    """In the manner of X3D and MoViNet: convolutions channel by channel, with gates over the clip in every other block."""

    def __init__(self, classes: int = 10, width: int = 32):
        super().__init__()
        self.stem = nn.Conv3d(3, width, (3, 3, 3), (1, 2, 2), 1)
        self.inner = nn.ModuleList(nn.Conv3d(width, 2 * width, 1) for _ in range(4))
        self.own = nn.ModuleList(
            nn.Conv3d(2 * width, 2 * width, 3, (1, 1 + i % 2, 1 + i % 2), 1, groups=2 * width) for i in range(4)
        )
        self.gates = nn.ModuleList(nn.Linear(2 * width, 2 * width) for _ in range(2))
        self.outer, self.head = nn.ModuleList(nn.Conv3d(2 * width, width, 1) for _ in range(4)), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for i, (inner, own, outer) in enumerate(zip(self.inner, self.own, self.outer, strict=True)):
            y = own(F.silu(inner(x)))
            y = y if i % 2 == 0 else y * torch.sigmoid(self.gates[i // 2](y.mean((2, 3, 4))))[:, :, None, None, None]
            y = outer(F.silu(y))
            x = x + y if y.shape == x.shape else y
        return self.head(x.mean((2, 3, 4)))


class Joints(nn.Module):
    """In the manner of AGCN: joints mixed by learned graphs, convolutions of several dilations; perhaps bones as a second stream."""

    def __init__(self, joints: int = 25, classes: int = 60, bones: bool = False, width: int = 32):
        super().__init__()
        self.graph = nn.Parameter(torch.rand(3, joints, joints) / joints)
        plan: list[tuple[int, int, int]] = [(6 if bones else 3, width, 1), (width, width, 1), (width, 2 * width, 2)]
        self.inside = nn.ModuleList(nn.Conv2d(a, 3 * b, 1) for a, b, _ in plan)
        self.time = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(b, b // 2, (5, 1), (s, 1), (2 * d, 0), (d, 1)) for d in (1, 2)) for _, b, s in plan
        )
        self.short = nn.ModuleList(nn.Conv2d(a, b, 1, (s, 1)) for a, b, s in plan)
        self.norms, self.head = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _ in plan), nn.Linear(2 * width, classes)

    def forward(self, x: Tensor, *bones: Any) -> Tensor:
        x = torch.cat((x, *bones), 1)
        for inside, time, short, norm in zip(self.inside, self.time, self.short, self.norms, strict=True):
            n, _, t, v = x.shape
            y = F.relu(torch.einsum("nkctv,kvw->nctw", inside(x).view(n, 3, -1, t, v), self.graph).contiguous())
            x = F.relu(norm(torch.cat([f(y) for f in time], 1)) + short(x))  # type: ignore[union-attr]
        return self.head(x.mean((2, 3)))
