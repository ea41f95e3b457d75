"""Networks that look at where a clip began, hide and choose elements, or attend in chunks, written from the papers, small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..parts import Fn

C, HEADS, FRAMES = 8, 2, 22


def row(
    name: str, build: Callable[[], nn.Module], source: str, *, clip: Any = (2, FRAMES, C), time_dim: Any = 1, **known: Any
) -> Network:
    """A row that streams."""
    return Network(f"beginnings/{name}", build, clip, "stream", source, time_dim=time_dim, **known)


# ---- states that begin with the first frame ---------------------------------------------------------------------------------


class ControlledDifferential(nn.Module):
    """A neural controlled differential equation by Euler's steps, or by the midpoint rule."""

    def __init__(self, midpoint: bool = False):
        super().__init__()
        self.begin, self.field, self.midpoint = nn.Linear(C, 6), nn.Sequential(nn.Linear(6, 6 * C), nn.Tanh()), midpoint

    def forward(self, x: Tensor) -> Tensor:
        h, changes, outs = self.begin(x[:, 0]), x[:, 1:] - x[:, :-1], []
        for t in range(changes.shape[1]):
            step = self.change(h, changes[:, t])
            h = h + (self.change(h + step / 2, changes[:, t]) if self.midpoint else step)
            outs.append(h)
        return torch.stack(outs, 1)

    def change(self, h: Tensor, dx: Tensor) -> Tensor:
        """The field, times a change of the path."""
        return (self.field(h).view(-1, 6, C) @ dx[..., None]).squeeze(-1)


class Tracker(nn.Module):
    """The target's appearance in the first image is where a recurrent network begins."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(6)
        )
        self.frame = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.over_time, self.box = nn.GRU(16, 6, batch_first=True), nn.Linear(6, 4)
        self.image(torch.zeros(1, 3, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        features = self.frame(x.flatten(0, 1)).view(b, t, -1)
        return self.box(self.over_time(features, self.image(x[:, 0])[None])[0])


class Memory(nn.Module):
    """Slots are made of the first frame, and each frame updates them by attention to its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.slots, self.q, self.kv, self.cell = nn.Linear(C, 3 * 6), nn.Linear(6, 6), nn.Linear(C, 12), nn.GRUCell(6, 6)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, parts, C)
        b = x.shape[0]
        y, slots, outs = self.kv(x), self.slots(x[:, 0].mean(1)).view(b, 3, 6), []
        for t in range(x.shape[1]):
            k, v = y[:, t].chunk(2, -1)
            weights = torch.softmax(self.q(slots) @ k.mT / 6**0.5, 1)
            seen = (weights / weights.sum(-1, keepdim=True)) @ v
            slots = self.cell(seen.flatten(0, 1), slots.flatten(0, 1)).view(b, 3, 6)
            outs.append(slots)
        return torch.stack(outs, 1)


def both_states(m: Any, x: Tensor) -> Tensor:
    return m.rnn(x, (m.h(x[:, 0])[None].tanh(), m.c(x[:, 0])[None]))[0]


def smoothed(m: Any, x: Tensor) -> Tensor:
    """An exponential mean of features that begins with the first of them."""
    y = m.f(x)
    level, outs = y[:, 0], []
    for t in range(x.shape[1]):
        level = torch.lerp(level, y[:, t], torch.sigmoid(m.rate))
        outs.append(y[:, t] - level)
    return torch.stack(outs, 1)


def rate() -> nn.Parameter:
    return nn.Parameter(torch.zeros(6))


BEGINNINGS = [
    row("neural CDE, Euler", ControlledDifferential, "Kidger 2020, NeurIPS"),
    row("neural CDE, midpoint", lambda: ControlledDifferential(True), "Kidger 2020, NeurIPS"),
    row("tracker that begins with an image", Tracker, "Gordon 2018, RA-L (Re3)", clip=(2, 9, 3, 9, 9)),
    row("slots made of the first frame", Memory, "Kipf 2022, ICLR (SAVi)", clip=(2, 9, 5, C)),
    row(
        "LSTM, both states of the first frame",
        lambda: Fn(both_states, rnn=nn.LSTM(C, 6, batch_first=True), h=nn.Linear(C, 6), c=nn.Linear(C, 6)),
        "Xu 2015, ICML (Show, Attend and Tell: states of the image)",
    ),
    row(
        "two layers of GRU, states of the first frame",
        lambda: Fn(
            lambda m, x: m.rnn(x, m.h(x[:, :1]).view(x.shape[0], 2, 6).transpose(0, 1).contiguous())[0],
            rnn=nn.GRU(C, 6, num_layers=2, batch_first=True),
            h=nn.Linear(C, 12),
        ),
        "Martinez 2017, CVPR (residual recurrent prediction of poses)",
    ),
    row(
        "exponential mean from the first frame", lambda: Fn(smoothed, f=nn.Linear(C, 6), rate=rate()), "Wang 2017, ICASSP (PCEN)"
    ),
    row(
        "skeleton relative to its first root",
        lambda: Fn(
            lambda m, x: m.f((x - x[:, :1, :1]).flatten(2)),
            f=nn.Linear(15, 6),
        ),
        "Shahroudy 2016, CVPR (NTU RGB+D, the body's own frame)",
        clip=(2, 11, 5, 3),
    ),
    row(
        "change since the first frame beside the frame",
        lambda: Fn(lambda m, x: m.f(torch.cat((x, x - x[:, :1].expand_as(x)), -1)), f=nn.Linear(2 * C, 6)),
        "Li 2018, IJCAI (HCN: motion beside positions)",
    ),
]

# ---- masks ------------------------------------------------------------------------------------------------------------------


def chunks(frames: int, size: int, behind: int) -> Tensor:
    """Which frames each one sees: its chunk, and some chunks before."""
    i = torch.arange(frames)
    own = i // size
    return (i[None] < (own[:, None] + 1) * size) & (i[None] >= ((own - behind).clamp(min=0) * size)[:, None])


class ChunkLayer(nn.Module):
    """A layer of a streaming recogniser's encoder, with its mask as WeNet applies it."""

    def __init__(self, size: int, behind: int, kernel: int = 0):
        super().__init__()
        self.size, self.behind, self.kernel = size, behind, kernel
        self.norms = nn.ModuleList(nn.LayerNorm(C) for _ in range(3))
        self.q, self.k, self.v, self.out = (nn.Linear(C, C) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(C, 16), nn.SiLU(), nn.Linear(16, C))
        self.gate, self.conv = nn.Linear(C, 2 * C), nn.Conv1d(C, C, max(kernel, 1), groups=C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        q, k, v = (f(y).unflatten(2, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        hidden = chunks(x.shape[1], self.size, self.behind)[None, None].eq(0)
        scores = (q @ k.transpose(-2, -1) / (C // HEADS) ** 0.5).masked_fill(hidden, -float("inf"))
        weights = torch.softmax(scores, -1).masked_fill(hidden, 0.0)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        if self.kernel:
            z = F.pad(F.glu(self.gate(self.norms[1](x)), -1).transpose(1, 2), (self.kernel - 1, 0))
            x = x + self.conv(z).transpose(1, 2)
        return x + self.feed(self.norms[2](x))


def shifted(m: Any, x: Tensor) -> Tensor:
    """Token shift: half of the channels are those of the frame before."""
    y = torch.zeros_like(x)
    y[:, 1:, : C // 2] = x[:, :-1, : C // 2]
    y[:, :, C // 2 :] = x[:, :, C // 2 :]
    return m.f(torch.relu(m.mix * y + (1 - m.mix) * x).square())


def masked_sound(m: Any, x: Tensor) -> Tensor:
    """A mask network: weak bins are set to zero, strong masks are cut off."""
    mask = m.f(x.transpose(1, 2)).transpose(1, 2)
    mask[mask > 1] = 1.0
    mask[mask < 0] = 0.0
    return x * mask


def chosen_frames(m: Any, x: Tensor) -> Tensor:
    """Frames with a voice go through a network of their own."""
    y, voiced = torch.zeros_like(x), x.square().mean(-1) > 0.8
    y[voiced] = m.f(x[voiced])
    return y


class FullSub(nn.Module):
    """FullSubNet: a network of the whole band, then one of each band with its neighbours."""

    def __init__(self, beside: int = 1):
        super().__init__()
        self.beside, self.full, self.to_full = beside, nn.LSTM(C, 6, batch_first=True), nn.Linear(6, C)
        self.sub, self.to_sub = nn.LSTM(2 * beside + 2, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, F, T)
        b, _, f, t = x.shape
        whole = torch.relu(self.to_full(self.full(x.squeeze(1).transpose(1, 2))[0])).transpose(1, 2)
        around = F.unfold(F.pad(x, (0, 0, self.beside, self.beside), mode="reflect"), (2 * self.beside + 1, t))
        around = around.view(b, 2 * self.beside + 1, t, f).permute(0, 3, 1, 2)
        y = torch.cat((around, whole[:, :, None]), 2).flatten(0, 1).transpose(1, 2)
        return self.to_sub(self.sub(y)[0]).view(b, f, t, 2).permute(0, 3, 1, 2)


def running_max(m: Any, x: Tensor) -> Tensor:
    """Each frame beside the largest so far, by slices that grow."""
    y = m.f(x)
    return torch.stack([y[:, t] - y[:, : t + 1].amax(1) for t in range(x.shape[1])], 1)


def running_mean(m: Any, x: Tensor) -> Tensor:
    y = m.f(x)
    sizes = y.abs()
    return torch.stack([y[:, t] / (sizes[:, : t + 1].mean(1) + 1e-3) for t in range(x.shape[1])], 1)


class Steps(nn.Module):
    """Steps under decorators, as libraries for forecasting write them."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(C, 6), nn.Linear(6, 3)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 6)
        outs = []
        for frame in x.unbind(1):
            h, c = self.step(frame, h, c)
            outs.append(self.out(h))
        return torch.stack(outs, 1)

    @torch.autocast("cpu", enabled=False)
    def step(self, frame: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One frame."""
        new: tuple[Tensor, Tensor] = self.cell(frame, (h, c))
        return new


MASKS = [
    row("WeNet encoder, chunk of 4 and one before", lambda: ChunkLayer(4, 1), "Zhang 2020, arXiv:2012.05481 (U2)"),
    row("WeNet encoder, two layers", lambda: nn.Sequential(ChunkLayer(4, 1), ChunkLayer(4, 1)), "Yao 2021, Interspeech (WeNet)"),
    row("Conformer in chunks, causal convolution", lambda: ChunkLayer(5, 2, 3), "Chen 2021, ICASSP"),
    row("Emformer, chunks alone", lambda: ChunkLayer(3, 0), "Shi 2021, ICASSP"),
    row("token shift", lambda: Fn(shifted, f=nn.Linear(C, 6), mix=torch.rand(C)), "Peng 2023, EMNLP (RWKV)"),
    row(
        "mask network with boolean masks",
        lambda: Fn(masked_sound, f=nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(C, C, 5))),
        "Wang 2018, TASLP",
    ),
    row(
        "frames that a mask chooses",
        lambda: Fn(chosen_frames, f=nn.Sequential(nn.Linear(C, 6), nn.ReLU(), nn.Linear(6, C))),
        "Ravanelli 2021, arXiv:2106.04624",
    ),
    row("FullSubNet", FullSub, "Hao 2021, ICASSP", clip=(2, 1, C, 17), time_dim=3),
    row(
        "running maximum by growing slices",
        lambda: Fn(running_max, f=nn.Linear(C, 6)),
        "Zaheer 2017, NeurIPS (Deep Sets: the maximum so far)",
    ),
    row("running mean by growing slices", lambda: Fn(running_mean, f=nn.Linear(C, 6)), "Hao 2021, ICASSP (cumulative norm)"),
    row("steps under decorators", Steps, "Hochreiter 1997, Neural Computation"),
]

NETWORKS = [*BEGINNINGS, *MASKS]
