"""Loops over frames of video, written by hand: recurrent cells, and frames one by one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..parts import ConvGates, ConvGru, Fn


def features() -> nn.Sequential:
    """Six features of an image."""
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class ConvLstm(nn.Module):
    """Layers of convolutional LSTMs over ``(B, T, C, H, W)``: the maps of all frames, or of the last."""

    def __init__(self, layers: int = 1, last: bool = False):
        super().__init__()
        self.cells: Any = nn.ModuleList(ConvGates(3 if i == 0 else 4, 4) for i in range(layers))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        states = [cell.zeros(x[:, 0]) for cell in self.cells]
        out = []
        for t in range(x.shape[1]):
            y = x[:, t]
            for i, cell in enumerate(self.cells):
                states[i] = cell(y, states[i])
                y = states[i][0]
            out.append(y)
        return out[-1] if self.last else torch.stack(out, 1)


class Layerwise(nn.Module):
    """The same, layer by layer over the whole clip."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: Any = nn.ModuleList([ConvGates(3, 4), ConvGates(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            state, out = cell.zeros(x[:, 0]), []
            for frame in x.unbind(1):
                state = cell(frame, state)
                out.append(state[0])
            x = torch.stack(out, 1)
        return x


class GruOfMaps(nn.Module):
    """A convolutional GRU and a head on each frame."""

    def __init__(self, last: bool = False):
        super().__init__()
        self.cell, self.out, self.last = ConvGru(3, 4), nn.Conv2d(4, 2, 1), last

    def forward(self, x: Tensor) -> Tensor:
        h, out = x.new_zeros(x.shape[0], 4, *x.shape[3:]), []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            out.append(self.out(h))
        return out[-1] if self.last else torch.stack(out, dim=1)


class FrameLoop(nn.Module):
    """Features of each frame in a loop, gathered in one of several ways."""

    def __init__(self, way: str):
        super().__init__()
        self.cnn, self.way = features(), way
        self.rnn, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unbind(1) if self.way == "unbind" else [x[:, t] for t in range(x.shape[1])]
        if self.way == "write":
            out = x.new_zeros(x.shape[0], x.shape[1], 6)
            for t, frame in enumerate(frames):
                out[:, t] = self.cnn(frame)
            return self.head(out)
        y = torch.stack([self.cnn(frame) for frame in frames], 1)
        if self.way == "mean":
            return self.head(y.mean(1))
        return self.rnn(y)[0] if self.way == "lstm" else self.head(y)


class Flowed(nn.Module):
    """Features carried from frame to frame, after BasicVSR's forward branch (Chan 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.fuse, self.up = (
            nn.Conv2d(6, 2, 3, padding=1),
            nn.Conv2d(7, 4, 3, padding=1),
            nn.Conv2d(4, 12, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 3, H, W)
        h, out = x.new_zeros(x.shape[0], 4, *x.shape[3:]), []
        for t in range(x.shape[1]):
            if t > 0:
                h = h * torch.sigmoid(self.pair(torch.cat((x[:, t - 1], x[:, t]), 1))).mean(1, keepdim=True)
            h = F.leaky_relu(self.fuse(torch.cat((x[:, t], h), 1)), 0.1)
            out.append(F.pixel_shuffle(self.up(h), 2))
        return torch.stack(out, 1)


class SpatioTemporal(nn.Module):
    """Two memories, one of which goes up the layers and on to the next frame, after PredRNN (Wang 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Conv2d(3 + 4 if i == 0 else 8, 12, 3, padding=1) for i in range(2))
        self.memory = nn.ModuleList(nn.Conv2d(3 + 4 if i == 0 else 8, 12, 3, padding=1) for i in range(2))
        self.out = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        zero = x.new_zeros(x.shape[0], 4, *x.shape[3:])
        h, c, m, out = [zero, zero], [zero, zero], zero, []
        for t in range(x.shape[1]):
            y = x[:, t]
            for i in range(2):
                g, a, f = self.gates[i](torch.cat((y, h[i]), 1)).chunk(3, 1)
                c[i] = torch.sigmoid(f) * c[i] + torch.sigmoid(a) * torch.tanh(g)
                g, a, f = self.memory[i](torch.cat((y, m), 1)).chunk(3, 1)
                m = torch.sigmoid(f) * m + torch.sigmoid(a) * torch.tanh(g)
                h[i] = torch.tanh(self.out[i](torch.cat((c[i], m), 1)))
                y = h[i]
            out.append(y)
        return torch.stack(out, 1)


class Matting(nn.Module):
    """An encoder on each frame, recurrent layers at two scales and a decoder, after RVM (Lin 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.low, self.high, self.out = ConvGru(4, 4), ConvGru(8, 4), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 3, H, W)
        b, t = x.shape[:2]
        one = F.relu(self.one(x.flatten(0, 1)))
        two = F.relu(self.two(one)).unflatten(0, (b, t))
        one = one.unflatten(0, (b, t))
        low, high, out = torch.zeros_like(two[:, 0]), torch.zeros_like(one[:, 0]), []
        for a, c in zip(one.unbind(1), two.unbind(1), strict=True):
            low = self.low(c, low)
            high = self.high(torch.cat((a, F.interpolate(low, scale_factor=2, mode="bilinear")), 1), high)
            out.append(torch.sigmoid(self.out(high)))
        return torch.stack(out, 1)


class Online(nn.Module):
    """Action detection online: predictions of the next frames feed the present one, after TRN (Xu 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.ahead, self.score = nn.LSTMCell(12, 8), nn.LSTMCell(4, 8), nn.Linear(8, 4)
        self.future = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 6)
        h, c = x.new_zeros(x.shape[0], 8), x.new_zeros(x.shape[0], 8)
        out = []
        for t in range(x.shape[1]):
            a, b, total = h, c, x.new_zeros(x.shape[0], 6)
            y = self.score(h)
            for _ in range(2):
                a, b = self.ahead(y, (a, b))
                y, total = self.score(a), total + self.future(a)
            h, c = self.cell(torch.cat((x[:, t], total / 2), 1), (h, c))
            out.append(self.score(h))
        return torch.stack(out, 1)


CLIP = (2, 6, 3, 8, 8)


def loop(
    name: str, build: Any, expected: Any = "stream", source: str = "", clip: Any = CLIP, time_dim: int = 1, **more: Any
) -> Network:
    """A row whose time is dimension 1."""
    return Network(f"loops/{name}", build, clip, expected, source or "Shi 2015, NeurIPS", time_dim=time_dim, **more)


def lists(name: str, call: Any, expected: Any = "stream", source: str = "Karpathy 2014, CVPR", **more: Any) -> Network:
    """A loop that is a line, with a convolution over features of frames."""
    return loop(
        name, lambda: Fn(call, cnn=features(), head=nn.Linear(6, 4), gru=nn.GRU(6, 5, batch_first=True)), expected, source, **more
    )


NETWORKS = [
    loop("ConvLSTM, all frames", ConvLstm),
    loop("ConvLSTM of two layers", lambda: ConvLstm(2)),
    loop("ConvLSTM, layer by layer", Layerwise),
    loop("ConvLSTM, last frame", lambda: ConvLstm(last=True), "windows"),
    loop("ConvGRU", GruOfMaps, source="Ballas 2016, ICLR"),
    loop("ConvGRU, last frame", lambda: GruOfMaps(True), "windows", "Ballas 2016, ICLR"),
    loop("PredRNN", SpatioTemporal, source="Wang 2017, NeurIPS"),
    loop("RVM", Matting, source="Lin 2022, WACV"),
    loop("BasicVSR, forward branch", Flowed, source="Chan 2021, CVPR"),
    loop("TRN, online action detection", Online, source="Xu 2019, ICCV", clip=(2, 6, 6)),
    *(
        loop(
            f"CNN on frames: {way}",
            lambda way=way: FrameLoop(way),
            "windows" if way == "mean" else "stream",
            "Donahue 2015, CVPR",
        )
        for way in ("index", "unbind", "write", "lstm", "mean")
    ),
    lists("frames from the second on", lambda m, x: torch.stack([m.cnn(x[:, t] - x[:, t - 1]) for t in range(1, x.shape[1])], 1)),
    lists(
        "frames and their GRU",
        lambda m, x: m.gru(torch.cat([m.cnn(x[:, i : i + 1].squeeze(1))[:, None] for i in range(x.shape[1])], 1))[0],
    ),
    lists("every second frame", lambda m, x: torch.stack([m.cnn(x[:, t]) for t in range(0, x.shape[1], 2)], 1)),
    lists("chunks of two", lambda m, x: torch.stack([m.cnn(c.mean(1)) for c in x[:, : x.shape[1] // 2 * 2].split(2, 1)], 1)),
    lists(
        "half as many chunks",
        lambda m, x: torch.stack([m.cnn(c.mean(1)) for c in x.chunk(x.shape[1] // 2, 1)], 1),
        "refused",
        why="In clips of an odd number of frames all chunks have three frames, in others two.",
    ),
    lists("sliding windows", lambda m, x: torch.stack([m.cnn(x[:, i : i + 3].amax(1)) for i in range(0, x.shape[1] - 2, 2)], 1)),
    lists(
        "sliding windows, a GRU over them",
        lambda m, x: m.gru(torch.stack([m.cnn(x[:, i : i + 3].mean(1)) for i in range(0, x.shape[1] - 2, 2)], 1))[0],
    ),
    lists("splits", lambda m, x: torch.stack([m.head(m.cnn(c.squeeze(1))) for c in x.split(1, 1)], 1)),
    lists(
        "the last three frames",
        lambda m, x: torch.stack([m.cnn(x[:, t]) for t in range(x.shape[1] - 3, x.shape[1])], 1).mean(1),
        "windows",
    ),
    lists("the middle frame", lambda m, x: m.head(m.cnn(x[:, x.shape[1] // 2])), "windows"),
    lists(
        "running mean of frames", lambda m, x: torch.stack([m.cnn(x[:, : t + 1].mean(1)) for t in range(x.shape[1])], 1), "stream"
    ),
    lists("the sum over frames", lambda m, x: m.head(sum(m.cnn(x[:, t]) for t in range(x.shape[1]))), "windows"),
]
