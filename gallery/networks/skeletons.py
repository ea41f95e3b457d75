"""Networks for skeletons and poses, written from the papers, small: nine joints, a few channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..parts import Attention, Block, Fn, Permuted, conv_norm

JOINTS = 9


def graph(parts: int = 3) -> Tensor:
    """Adjacency matrices of a chain of joints, normalised, by direction."""
    a = torch.eye(JOINTS)[None].repeat(parts, 1, 1)
    for i in range(1, JOINTS):
        a[1 % parts, i - 1, i] = a[2 % parts, i, i - 1] = 0.5
    return a / a.sum(1, keepdim=True).clamp(min=1e-3)


class GraphConv(nn.Module):
    """Channels of each part of the graph, summed over joints; the graph is fixed, learned beside, or attended to."""

    a: Tensor

    def __init__(self, inputs: int, outputs: int, kind: str = "fixed"):
        super().__init__()
        self.register_buffer("a", graph())
        self.kind, self.outputs = kind, outputs
        self.conv = nn.Conv2d(inputs, 3 * outputs, 1)
        if kind == "learned":
            self.more = nn.Parameter(0.1 * torch.randn(3, JOINTS, JOINTS))
        if kind == "clip":  # 2s-AGCN: similarity of joints over the whole clip
            self.q, self.k = nn.Conv2d(inputs, 4, 1), nn.Conv2d(inputs, 4, 1)
        if kind == "refined":  # CTR-GCN: a graph for each channel, from the mean over the clip
            self.q, self.k, self.up = nn.Conv2d(inputs, 4, 1), nn.Conv2d(inputs, 4, 1), nn.Conv2d(4, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, V)
        b, _, t, v = x.shape
        y = self.conv(x).view(b, 3, self.outputs, t, v)
        if self.kind == "refined":
            pair = torch.tanh(self.q(x).mean(2)[..., None] - self.k(x).mean(2)[..., None, :])
            return torch.einsum("bctv,bcvw->bctw", y.sum(1), self.up(pair) + self.a.sum(0)).contiguous()
        a = self.a + self.more if self.kind == "learned" else self.a
        if self.kind == "clip":
            q, k = self.q(x).permute(0, 3, 1, 2).reshape(b, v, -1), self.k(x).reshape(b, -1, v)
            a = a + torch.softmax(q @ k / q.shape[-1], -2)[:, None]
            return torch.einsum("bkctv,bkvw->bctw", y, a).contiguous()
        return torch.einsum("bkctv,kvw->bctw", y, a).contiguous()


class Unit(nn.Module):
    """A graph convolution, one over time, and a residual (Yan 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kind: str = "fixed", time: nn.Module | None = None):
        super().__init__()
        self.space = GraphConv(inputs, outputs, kind)
        self.time = time or nn.Conv2d(outputs, outputs, (9, 1), (stride, 1), (4, 0))
        self.one, self.two = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.short = nn.Identity() if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, (stride, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(self.time(F.relu(self.one(self.space(x))))) + self.short(x))


class MultiScaleTime(nn.Module):
    """Branches over time of several dilations, a pool and a plain one, joined (Liu 2020; Chen 2021)."""

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        part = channels // 4
        dilated = [nn.Conv2d(part, part, (3, 1), (stride, 1), (d, 0), (d, 1)) for d in (1, 2)]
        self.branches = nn.ModuleList(
            [nn.Sequential(conv_norm(channels, part, 1, rank=2), conv) for conv in dilated]
            + [nn.Sequential(conv_norm(channels, part, 1, rank=2), nn.MaxPool2d((3, 1), (stride, 1), (1, 0)))]
            + [nn.Conv2d(channels, part, 1, (stride, 1))]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Skeletons(nn.Module):
    """Units, and scores of the clip or of each frame. Persons are rows, if there are any: ``(B, C, T, V, M)``."""

    def __init__(self, kind: str = "fixed", per_frame: bool = False, multi: bool = False, units: int = 2):
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * JOINTS)
        sizes = [(3, 8), (8, 16), (16, 16)][:units]
        self.units = nn.ModuleList(
            Unit(a, b, 1 + (i == 1), kind, MultiScaleTime(b, 1 + (i == 1)) if multi else None) for i, (a, b) in enumerate(sizes)
        )
        self.head, self.per_frame = nn.Linear(sizes[-1][1], 5), per_frame

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, v = x.shape[:4]
        people = x.shape[4] if x.ndim == 5 else 1
        y = x.reshape(b, c, t, v, people).permute(0, 4, 3, 1, 2).reshape(b * people, v * c, t)
        y = self.norm(y).view(b * people, v, c, t).permute(0, 2, 3, 1)
        for unit in self.units:
            y = unit(y)
        if self.per_frame:
            return self.head(y.mean(3).transpose(1, 2)).transpose(1, 2)
        return self.head(y.mean((2, 3)).view(b, people, -1).mean(1))


class ShiftUnit(nn.Module):
    """Channels shifted among joints and frames, by whole frames or by learned amounts (Cheng 2020)."""

    index: Tensor

    def __init__(self, channels: int, learned: bool):
        super().__init__()
        self.inside, self.out = nn.Linear(channels, channels), nn.Conv2d(channels, channels, 1)
        joint = (torch.arange(JOINTS)[:, None] + torch.arange(channels)) % JOINTS
        self.register_buffer("index", (joint * channels + torch.arange(channels)).flatten())
        self.shift = nn.Parameter(torch.rand(channels) * 2 - 1) if learned else None

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, V)
        b, c, t, v = x.shape
        y = x.permute(0, 2, 3, 1).reshape(b, t, v * c).index_select(2, self.index).view(b, t, v, c)
        y = self.inside(y).permute(0, 3, 1, 2)
        if self.shift is None:
            third = c // 3
            up, down = F.pad(y[:, :third], (0, 0, 1, -1)), F.pad(y[:, third : 2 * third], (0, 0, -1, 1))
            y = torch.cat((up, down, y[:, 2 * third :]), 1)
        else:
            at = torch.arange(t, device=x.device)[:, None] + self.shift
            low = at.floor()
            take = lambda i: torch.gather(F.pad(y, (0, 0, 2, 2)), 2, (i.long() + 2).t()[None, :, :, None].expand(b, c, t, v))  # noqa: E731
            y = take(low) * (1 - (at - low)).t()[None, :, :, None] + take(low + 1) * (at - low).t()[None, :, :, None]
        return F.relu(self.out(y) + x)


class Lifter(nn.Module):
    """Dilated convolutions from 2D to 3D joints (Pavllo 2019): symmetric, causal, or strided for one frame of a window."""

    def __init__(self, kind: str = "symmetric"):
        super().__init__()
        self.kind = kind
        widths = [3, 3, 3]
        self.first, self.out = conv_norm(JOINTS * 2, 16, 3, stride=3 if kind == "strided" else 1), nn.Conv1d(16, JOINTS * 3, 1)
        self.convs = nn.ModuleList(
            conv_norm(16, 16, w, stride=3) if kind == "strided" else conv_norm(16, 16, w, dilation=3 ** (i + 1))
            for i, w in enumerate(widths[1:])
        )
        self.ones = nn.ModuleList(conv_norm(16, 16, 1) for _ in widths[1:])

    def forward(self, x: Tensor) -> Tensor:  # (B, T, V, 2)
        y = self.first(x.flatten(2).transpose(1, 2))
        for i, (conv, one) in enumerate(zip(self.convs, self.ones, strict=True)):
            edge = 3 ** (i + 1)
            kept = (
                y[:, :, 1::3] if self.kind == "strided" else y[:, :, 2 * edge :] if self.kind == "causal" else y[:, :, edge:-edge]
            )
            y = kept + one(conv(y))
        return self.out(y).transpose(1, 2).reshape(x.shape[0], -1, JOINTS, 3)


class PoseTransformer(nn.Module):
    """Attention among joints, then among frames, with tables of positions (Zheng 2021)."""

    def __init__(self, frames: int = 27):
        super().__init__()
        self.joint, self.space, self.time = nn.Linear(2, 4), Block(4, 2), Block(4 * JOINTS, 2)
        self.places, self.times = nn.Parameter(torch.randn(1, JOINTS, 4)), nn.Parameter(torch.randn(1, frames, 4 * JOINTS))
        self.mean, self.head = nn.Conv1d(frames, 1, 1), nn.Linear(4 * JOINTS, JOINTS * 3)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        y = self.space(self.joint(x).flatten(0, 1) + self.places).reshape(b, t, -1)
        return self.head(self.mean(self.time(y + self.times))).view(b, 1, JOINTS, 3)


class Stages(nn.Module):
    """Stages of dilated residual layers over features of frames (Farha 2019): one output, all as a list, or stacked."""

    def __init__(self, kind: str = "last", causal: bool = False):
        super().__init__()
        self.kind, self.causal = kind, causal
        self.first = nn.ModuleList([nn.Conv1d(10, 8, 1), nn.Conv1d(4, 8, 1)])
        self.layers: Any = nn.ModuleList(nn.ModuleList(nn.Conv1d(8, 8, 3, dilation=2**i) for i in range(3)) for _ in range(2))
        self.ones: Any = nn.ModuleList(nn.ModuleList(nn.Conv1d(8, 8, 1) for i in range(3)) for _ in range(2))
        self.outs = nn.ModuleList(nn.Conv1d(8, 4, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Any:  # (B, 10, T)
        found = []
        for s in range(2):
            y = self.first[s](x)
            for i, (conv, one) in enumerate(zip(self.layers[s], self.ones[s], strict=True)):
                edges = (2 * 2**i, 0) if self.causal else (2**i, 2**i)
                y = y + one(F.relu(conv(F.pad(y, edges))))
            x = self.outs[s](y)
            found.append(x)
            x = F.softmax(x, 1)
        return found[-1] if self.kind == "last" else found if self.kind == "list" else torch.stack(found)


class Blocks(nn.Module):
    """Attention within blocks of frames, dilated convolutions, and instance norms if asked for, after ASFormer (Yi 2021)."""

    def __init__(self, norm: bool):
        super().__init__()
        self.first, self.out = nn.Conv1d(10, 8, 1), nn.Conv1d(8, 4, 1)
        self.convs = nn.ModuleList(nn.Conv1d(8, 8, 3, padding=2**i, dilation=2**i) for i in range(2))
        self.norms = nn.ModuleList(nn.InstanceNorm1d(8) if norm else nn.Identity() for _ in range(2))
        self.mix = nn.ModuleList(Attention(8, 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for conv, norm, mix in zip(self.convs, self.norms, self.mix, strict=True):
            y = F.relu(conv(y))
            z = norm(y).unflatten(2, (-1, 4)).permute(0, 2, 3, 1)
            y = y + mix(z.flatten(0, 1)).unflatten(0, z.shape[:2]).permute(0, 3, 1, 2).flatten(2)
        return self.out(y)


def martinez() -> nn.Module:
    """A lifter of single frames."""
    body = lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())  # noqa: E731
    return Fn(
        lambda m, x: m.out((y := m.first(x.flatten(2))) + m.body(y)).unflatten(2, (JOINTS, 3)),
        first=nn.Linear(2 * JOINTS, 16),
        body=body(),
        out=nn.Linear(16, 3 * JOINTS),
    )


CLIP = (2, 3, 32, JOINTS)
WHY_CLIP = "The graph of each layer is made of the mean or the similarity of joints over the whole clip."


def row(name: str, build: Any, source: str, expected: Any = "windows", clip: Any = CLIP, **more: Any) -> Network:
    """A row of this field."""
    return Network(f"skeletons/{name}", build, clip, expected, source, **more)


NETWORKS = [
    row("ST-GCN", Skeletons, "Yan 2018, AAAI"),
    row("ST-GCN, two persons", Skeletons, "Yan 2018, AAAI", clip=(2, 3, 32, JOINTS, 2)),
    row("ST-GCN, per frame", lambda: Skeletons(per_frame=True), "Yan 2018, AAAI", "stream"),
    row("ST-GCN, learned graph", lambda: Skeletons("learned", units=3), "Shi 2019, CVPR"),
    row("2s-AGCN", lambda: Skeletons("clip"), "Shi 2019, CVPR"),
    row("2s-AGCN, per frame", lambda: Skeletons("clip", per_frame=True), "Shi 2019, CVPR", "windows", options={"output": -1}),
    row("CTR-GCN", lambda: Skeletons("refined", multi=True), "Chen 2021, ICCV"),
    row("MS-TCN of skeletons", lambda: Skeletons("learned", multi=True), "Liu 2020, CVPR"),
    row("MS-TCN of skeletons, per frame", lambda: Skeletons("learned", True, True), "Liu 2020, CVPR", "stream"),
    row(
        "Shift-GCN, whole frames",
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), ShiftUnit(6, False), ShiftUnit(6, False)),
        "Cheng 2020, CVPR",
        "stream",
    ),
    row("Shift-GCN, learned shifts", lambda: nn.Sequential(nn.Conv2d(3, 6, 1), ShiftUnit(6, True)), "Cheng 2020, CVPR", "stream"),
    row(
        "MS-G3D, unfolded windows",
        lambda: Fn(
            lambda m, x: torch.einsum(
                "bctwv,vu->bctu",
                F.unfold(F.pad(m.first(x), (0, 0, 1, 1)), (3, JOINTS)).unflatten(1, (8, 3, JOINTS)).permute(0, 1, 4, 2, 3),
                m.a,
            ),
            first=nn.Conv2d(3, 8, 1),
            a=torch.rand(JOINTS, JOINTS),
        ),
        "Liu 2020, CVPR",
        "stream",
    ),
    row(
        "CNN of joint maps",
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        ),
        "Li 2018, IJCAI (HCN)",
    ),
    row(
        "P-LSTM",
        lambda: Permuted(
            Fn(lambda m, x: m.head(m.rnn(x.flatten(2))[0]), rnn=nn.LSTM(27, 12, 2, batch_first=True), head=nn.Linear(12, 5)),
            (0, 2, 3, 1),
        ),
        "Shahroudy 2016, CVPR",
        "stream",
    ),
    row("VideoPose3D", Lifter, "Pavllo 2019, CVPR", "stream", (2, 40, JOINTS, 2), time_dim=1),
    row("VideoPose3D, causal", lambda: Lifter("causal"), "Pavllo 2019, CVPR", "stream", (2, 40, JOINTS, 2), time_dim=1),
    row("VideoPose3D, one frame of 27", lambda: Lifter("strided"), "Pavllo 2019, CVPR", "stream", (2, 27, JOINTS, 2), time_dim=1),
    row("VideoPose3D, strided on 81", lambda: Lifter("strided"), "Pavllo 2019, CVPR", "stream", (2, 81, JOINTS, 2), time_dim=1),
    row("PoseFormer", PoseTransformer, "Zheng 2021, ICCV", "windows", (2, 27, JOINTS, 2), time_dim=1),
    row("lifting of single frames", martinez, "Martinez 2017, ICCV", "stream", (2, 12, JOINTS, 2), time_dim=1),
    row("MS-TCN", Stages, "Farha 2019, CVPR", "stream", (2, 10, 40)),
    row("MS-TCN, causal", lambda: Stages(causal=True), "Farha 2019, CVPR", "stream", (2, 10, 40)),
    row("MS-TCN, list of stages", lambda: Stages("list"), "Farha 2019, CVPR", "stream", (2, 10, 40)),
    row("MS-TCN, stages stacked", lambda: Stages("stacked"), "Farha 2019, CVPR", "stream", (2, 10, 40)),
    row(
        "ASFormer",
        lambda: Blocks(True),
        "Yi 2021, BMVC",
        "refused",
        (2, 10, 40),
        why="Instance norms take mean and variance over the whole clip.",
    ),
    row("ASFormer without norms", lambda: Blocks(False), "Yi 2021, BMVC", "stream", (2, 10, 40)),
]
