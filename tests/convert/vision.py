"""Video networks: torchvision's, and networks for images made into networks for clips ``(B, C, T, H, W)``. No tests are in this file."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.convert.cases import Case, network, noise, seeded
from tests.torchvision_ops import torchvision


def models() -> Any:
    """``torchvision.models``."""
    torchvision()
    return importlib.import_module("torchvision.models")


@network
def r3d_18(frames: int = 16, size: int = 16, batch: int = 2, classes: int = 5) -> Case:
    """Residual network of 3D convolutions, three of them strided in time; global pooling."""
    module = seeded(lambda: models().video.r3d_18(num_classes=classes))
    return Case(module, noise(batch, 3, frames, size, size), out_time=None, any_length=False)


@network
def r2plus1d_18(frames: int = 16, size: int = 16, batch: int = 2, classes: int = 5) -> Case:
    """The same of convolutions over space and over time in turns."""
    module = seeded(lambda: models().video.r2plus1d_18(num_classes=classes))
    return Case(module, noise(batch, 3, frames, size, size), out_time=None, any_length=False)


class PerFrame(nn.Module):
    """A network for images on every frame, and the mean over time."""

    def __init__(self, image_net: nn.Module):
        super().__init__()
        self.image_net = image_net

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        frames = x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w)
        return self.image_net(frames).view(b, t, -1).mean(1)


@network
def resnet18_per_frame(frames: int = 6, size: int = 32, batch: int = 2, classes: int = 5) -> Case:
    """A 2D ResNet-18 on merged batch and time."""
    module = seeded(lambda: PerFrame(models().resnet18(num_classes=classes)))
    return Case(module, noise(batch, 3, frames, size, size), out_time=None, any_length=False)


# ---- shifts in time: some channels look one frame back, some one frame ahead --------------------------------------------


class ShiftByCat(nn.Module):
    """A residual block on ``(B, C, T, H, W)`` with a shift of slices that are put together again."""

    def __init__(self, channels: int, fold: int):
        super().__init__()
        self.fold = fold
        self.conv1 = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        n = self.fold
        empty = torch.zeros_like(x[:, :n, :1])
        ahead = torch.cat([x[:, :n, 1:], empty], dim=2)
        back = torch.cat([empty, x[:, n : 2 * n, :-1]], dim=2)
        shifted = torch.cat([ahead, back, x[:, 2 * n :]], dim=1)
        y = F.relu(self.norm1(self.conv1(shifted)))
        return F.relu(x + self.norm2(self.conv2(y)))


@network
def shift_network(frames: int = 9, size: int = 8, batch: int = 2, channels: int = 8, depth: int = 2) -> Case:
    """A temporal-shift network of slices and cats, with a map of scores for every frame."""

    def make() -> nn.Module:
        stem = nn.Conv3d(3, channels, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        blocks = [ShiftByCat(channels, channels // 4) for _ in range(depth)]
        return nn.Sequential(stem, nn.ReLU(inplace=True), *blocks, nn.Conv3d(channels, 3, 1))

    return Case(seeded(make), noise(batch, 3, frames, size, size))


class ShiftInPlace(nn.Module):
    """A block on merged batch and time ``(B * T, C, H, W)`` that writes the shift into zeros, and knows the clip's length."""

    def __init__(self, channels: int, frames: int, fold: int):
        super().__init__()
        self.frames, self.fold = frames, fold
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        bt, c, h, w = x.shape
        clip = x.view(bt // self.frames, self.frames, c, h, w)
        n = self.fold
        out = torch.zeros_like(clip)
        out[:, :-1, :n] = clip[:, 1:, :n]
        out[:, 1:, n : 2 * n] = clip[:, :-1, n : 2 * n]
        out[:, :, 2 * n :] = clip[:, :, 2 * n :]
        return x + F.relu(self.norm(self.conv(out.view(bt, c, h, w))))


class ShiftNet(nn.Module):
    """Frames ``(B, T, C, H, W)`` to one score for the clip: the mean of those of its frames."""

    def __init__(self, channels: int, frames: int, depth: int, classes: int):
        super().__init__()
        self.frames = frames
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(ShiftInPlace(channels, frames, channels // 4) for _ in range(depth)))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(F.relu(self.stem(x.flatten(0, 1))))
        scores = self.head(y.mean((2, 3)))
        return scores.view(-1, self.frames, scores.shape[-1]).mean(dim=1)


@network
def shift_in_place(frames: int = 8, size: int = 8, batch: int = 2, channels: int = 8, depth: int = 2, classes: int = 4) -> Case:
    """A temporal-shift network in the style that writes into slices, for clips of one length."""
    module = seeded(lambda: ShiftNet(channels, frames, depth, classes))
    return Case(module, noise(batch, frames, 3, size, size), {"time_dim": 1}, out_time=None, any_length=False)


# ---- squeeze and excitation: a mean over the clip in the middle ----------------------------------------------------------


class Excitation(nn.Module):
    """Channels are weighted by what the mean over the clip says of them."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)
        self.squeeze = nn.Conv3d(channels, channels // 2, 1)
        self.expand = nn.Conv3d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        means = x.mean((2, 3, 4), keepdim=True)
        return x * torch.sigmoid(self.expand(F.relu(self.squeeze(means))))


@network
def excitation(frames: int = 8, size: int = 6, batch: int = 2, channels: int = 4) -> Case:
    """Squeeze and excitation, with the mean of each frame alone: the twin is another function than the module."""
    module = seeded(lambda: nn.Sequential(nn.Conv3d(3, channels, 1), Excitation(channels), Excitation(channels)))
    return Case(module, noise(batch, 3, frames, size, size), {"time_pooling": "frame"}, any_length=False)
