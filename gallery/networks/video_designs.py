"""Networks for video, written from the papers, small: a few frames of 16×16."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..parts import Block, Fn, Residual, Squeeze, conv_norm, head


def c3d() -> nn.Module:
    """Convolutions of 3×3×3 and pools."""
    return nn.Sequential(
        conv_norm(3, 6, 3, rank=3, padding=1),
        nn.MaxPool3d((1, 2, 2)),
        conv_norm(6, 8, 3, rank=3, padding=1),
        nn.MaxPool3d(2),
        conv_norm(8, 8, 3, rank=3, padding=1),
        nn.AdaptiveAvgPool3d((1, 2, 2)),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


def inception() -> nn.Module:
    """Branches of several kernels, joined (Carreira 2017)."""
    return Fn(
        lambda m, x: m.head(torch.cat((m.a(y := m.stem(x)), m.b(y), m.c(F.max_pool3d(y, 3, 1, 1))), 1)),
        stem=conv_norm(3, 8, 5, rank=3, stride=2, padding=2),
        a=conv_norm(8, 4, 1, rank=3),
        b=nn.Sequential(conv_norm(8, 4, 1, rank=3), conv_norm(4, 6, 3, rank=3, padding=1)),
        c=conv_norm(8, 4, 1, rank=3),
        head=head(14, 5, 3),
    )


def factored(per_frame: bool = False) -> nn.Module:
    """Space and time in turn (Tran 2018)."""

    def unit(a: int, b: int) -> nn.Module:
        space, time = (1, 3, 3), (3, 1, 1)
        return nn.Sequential(conv_norm(a, b, space, rank=3, padding=(0, 1, 1)), conv_norm(b, b, time, rank=3, padding=(1, 0, 0)))

    last: nn.Module = Fn(lambda m, x: m.out(x.mean((3, 4))), out=nn.Conv1d(8, 5, 1)) if per_frame else head(8, 5, 3)
    return nn.Sequential(unit(3, 6), Residual(unit(6, 6)), unit(6, 8), last)


class SlowFast(nn.Module):
    """Two paths of different rates, the fast one feeding the slow one (Feichtenhofer 2019)."""

    def __init__(self, slow: str = "slice"):
        super().__init__()
        self.a, self.b = (
            conv_norm(3, 8, (1, 3, 3), rank=3, stride=(1, 2, 2), padding=(0, 1, 1)),
            conv_norm(3, 4, (5, 3, 3), rank=3, stride=(1, 2, 2), padding=(2, 1, 1)),
        )
        self.over, self.c, self.way = (
            nn.Conv3d(4, 4, (5, 1, 1), (4, 1, 1), (2, 0, 0)),
            conv_norm(12, 8, (3, 3, 3), rank=3, padding=1),
            slow,
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor, slow: Tensor | None = None) -> Tensor:
        if slow is None:
            slow = x[:, :, ::4] if self.way == "slice" else x.index_select(2, torch.arange(0, x.shape[2], 4))
        fast = self.b(x)
        y = self.c(torch.cat((self.a(slow), self.over(fast)), 1))
        return self.head(torch.cat((y.mean((2, 3, 4)), fast.mean((2, 3, 4))), 1))


class Tubes(nn.Module):
    """Tubes of two frames, blocks for space then time (Arnab 2021), or for both at a time (Tong 2022)."""

    def __init__(self, joint: bool):
        super().__init__()
        self.tube, self.table = nn.Conv3d(3, 8, (2, 8, 8), (2, 8, 8)), nn.Parameter(torch.randn(1, 4, 4, 8))
        self.space, self.time, self.head, self.joint = Block(8, 2), Block(8, 2), nn.Linear(8, 5), joint

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, T, H, W)
        y = self.tube(x).flatten(3).permute(0, 2, 3, 1) + self.table
        if self.joint:
            return self.head(self.time(self.space(y.flatten(1, 2))).mean(1))
        b, t = y.shape[:2]
        y = self.space(y.flatten(0, 1)).unflatten(0, (b, t))
        return self.head(self.time(y.mean(2)).mean(1))


class Windowed(nn.Module):
    """Attention within windows of two frames and 2×2 places, shifted in every second block (Liu 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.blocks, self.head = (
            nn.Conv3d(3, 8, (1, 4, 4), (1, 4, 4)),
            nn.ModuleList([Block(8, 2), Block(8, 2)]),
            nn.Linear(8, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x).permute(0, 2, 3, 4, 1)
        for i, block in enumerate(self.blocks):
            y = torch.roll(y, (-i, -i, -i), (1, 2, 3))
            b, t, h, w, c = y.shape
            z = y.view(b, t // 2, 2, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
            z = block(z.reshape(-1, 8, c)).view(*z.shape)
            y = torch.roll(z.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, t, h, w, c), (i, i, i), (1, 2, 3))
        return self.head(y.mean((1, 2, 3)))


def unet3d() -> nn.Module:
    """A U-Net whose pools are of space alone."""
    return Fn(
        lambda m, x: m.out(
            torch.cat((one := m.a(x), F.interpolate(m.b(F.max_pool3d(one, (1, 2, 2))), scale_factor=(1.0, 2.0, 2.0))), 1)
        ),
        a=conv_norm(3, 4, 3, rank=3, padding=1),
        b=conv_norm(4, 6, 3, rank=3, padding=1),
        out=nn.Conv3d(10, 2, 1),
    )


def mobile(squeeze: bool) -> nn.Module:
    """An inverted residual block, depthwise over time and space (Kondratyuk 2021)."""
    body = [
        conv_norm(6, 12, 1, rank=3),
        conv_norm(12, 12, (3, 3, 3), rank=3, padding=1, groups=12),
        *([Squeeze(12, 4)] if squeeze else []),
        conv_norm(12, 6, 1, rank=3, act=False),
    ]
    return nn.Sequential(conv_norm(3, 6, (1, 3, 3), rank=3, stride=(1, 2, 2), padding=(0, 1, 1)), Residual(nn.Sequential(*body)))


def row(
    name: str, build: Any, source: str, expected: Any = "windows", clip: Any = (2, 3, 8, 16, 16), time_dim: Any = 2, **more: Any
) -> Network:
    """A row of this field."""
    return Network(f"video/{name}", build, clip, expected, source, time_dim=time_dim, **more)


FRAMES: dict[str, Any] = {"clip": (2, 8, 3, 16, 16), "time_dim": 1}
NETWORKS = [
    row("C3D", c3d, "Tran 2015, ICCV"),
    row("I3D", inception, "Carreira 2017, CVPR"),
    row("R(2+1)D", factored, "Tran 2018, CVPR"),
    row("R(2+1)D, per frame", lambda: factored(True), "Tran 2018, CVPR", "stream"),
    row(
        "P3D",
        lambda: nn.Sequential(
            conv_norm(3, 6, (1, 3, 3), rank=3, padding=(0, 1, 1)),
            Fn(
                lambda m, x: F.relu(m.s(x) + m.t(x)),
                s=nn.Conv3d(6, 6, (1, 3, 3), padding=(0, 1, 1)),
                t=nn.Conv3d(6, 6, (3, 1, 1), padding=(1, 0, 0)),
            ),
            head(6, 5, 3),
        ),
        "Qiu 2017, ICCV",
    ),
    row("MoViNet block", lambda: mobile(False), "Kondratyuk 2021, CVPR", "stream"),
    row(
        "MoViNet block with SE, per frame",
        lambda: mobile(True),
        "Kondratyuk 2021, CVPR",
        "refused",
        why="Squeeze-and-excitation: the mean of the whole clip scales every frame.",
    ),
    row("MoViNet with SE and head", lambda: nn.Sequential(mobile(True), head(6, 5, 3)), "Kondratyuk 2021, CVPR"),
    row(
        "two streams: frames and differences",
        lambda: Fn(
            lambda m, x: m.head(torch.cat((m.a(x[:, :, 1:]), m.b(torch.diff(x, dim=2))), 1)),
            a=nn.Conv3d(3, 4, 3, padding=1),
            b=nn.Conv3d(3, 4, 3, padding=1),
            head=nn.Conv3d(8, 2, 1),
        ),
        "Simonyan 2014, NeurIPS",
        "stream",
    ),
    row(
        "two inputs: frames and flow",
        lambda: Fn(
            lambda m, x, y: m.head((m.a(x) * m.b(y)).mean((3, 4))),
            a=nn.Conv3d(3, 4, 3, padding=1),
            b=nn.Conv3d(2, 4, 3, padding=1),
            head=nn.Conv1d(4, 5, 1),
        ),
        "Simonyan 2014, NeurIPS",
        "stream",
        [(2, 3, 8, 16, 16), (2, 2, 8, 16, 16)],
    ),
    row("SlowFast, by a slice", SlowFast, "Feichtenhofer 2019, ICCV"),
    row("SlowFast, by indices", lambda: SlowFast("index"), "Feichtenhofer 2019, ICCV"),
    row("SlowFast, two inputs", SlowFast, "Feichtenhofer 2019, ICCV", clip=[(2, 3, 8, 16, 16), (2, 3, 2, 16, 16)]),
    row(
        "non-local block",
        lambda: Fn(
            lambda m, x: m.head(
                y
                + m.out((m.q(y).flatten(2).transpose(1, 2) @ m.k(y).flatten(2)).softmax(-1) @ m.v(y).flatten(2).transpose(1, 2))
                .transpose(1, 2)
                .view_as(y)
                if (y := m.stem(x)) is not None
                else y
            ),
            stem=nn.Conv3d(3, 6, (1, 4, 4), (1, 4, 4)),
            q=nn.Conv3d(6, 4, 1),
            k=nn.Conv3d(6, 4, 1),
            v=nn.Conv3d(6, 4, 1),
            out=nn.Linear(4, 6),
            head=head(6, 5, 3),
        ),
        "Wang 2018, CVPR",
    ),
    row("ViViT, factored", lambda: Tubes(False), "Arnab 2021, ICCV"),
    row("tubes, joint attention", lambda: Tubes(True), "Tong 2022, NeurIPS"),
    row("Video Swin", Windowed, "Liu 2022, CVPR"),
    row(
        "PhysNet",
        lambda: nn.Sequential(
            conv_norm(3, 6, 3, rank=3, padding=1),
            nn.MaxPool3d((1, 2, 2)),
            conv_norm(6, 8, 3, rank=3, padding=1),
            nn.MaxPool3d(2),
            nn.ConvTranspose3d(8, 8, (4, 1, 1), (2, 1, 1), (1, 0, 0)),
            nn.ELU(),
            Fn(lambda m, x: m.out(x.mean((3, 4))), out=nn.Conv1d(8, 1, 1)),
        ),
        "Yu 2019, BMVC",
        "stream",
    ),
    row("3D U-Net", unet3d, "Çiçek 2016, MICCAI", "stream"),
    row(
        "frame rate doubled",
        lambda: nn.Sequential(conv_norm(3, 4, 3, rank=3, padding=1), nn.ConvTranspose3d(4, 3, (2, 1, 1), (2, 1, 1))),
        "Kalluri 2023, WACV (FLAVR)",
        "stream",
    ),
    row(
        "pixel shuffle over time",
        lambda: Fn(
            lambda m, x: m.conv(x).unflatten(1, (3, 2)).permute(0, 1, 3, 2, 4, 5).flatten(2, 3),
            conv=nn.Conv3d(3, 6, 3, padding=1),
        ),
        "Shi 2016, CVPR",
        "stream",
    ),
    row(
        "background by a running mean",
        lambda: Fn(lambda m, x: x - torch.cumsum(x, 2) / torch.arange(1, x.shape[2] + 1, dtype=x.dtype)[:, None, None]),
        "Stauffer 1999, CVPR",
        "stream",
    ),
    row(
        "max over frames",
        lambda: Fn(lambda m, x: m.head(m.cnn(x).amax((2, 3, 4))), cnn=nn.Conv3d(3, 6, 3), head=nn.Linear(6, 5)),
        "Karpathy 2014, CVPR",
    ),
]
