"""Small modules with faults that hide each other, or whose consequences are easier to see than they are. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.convert.cases import noise

FRAMES = 20


class Fault(nn.Module):
    """A function of itself and the clip ``(B, 4, 20)``, with layers that it may use."""

    def __init__(self, body: Callable[..., Tensor]):
        super().__init__()
        self.body = body
        self.norm, self.mix, self.qkv = nn.GroupNorm(2, 4), nn.Linear(FRAMES, FRAMES), nn.Linear(4, 12)
        self.register_buffer("table", noise(FRAMES, 4))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.body(self, *inputs)


class Behind(nn.Module):
    """A fault behind a convolution, as the child ``fault``."""

    def __init__(self, body: Callable[..., Tensor]):
        super().__init__()
        self.conv, self.fault = nn.Conv1d(4, 4, 3, padding=1), Fault(body)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.fault(self.conv(x), *others)


@dataclass(frozen=True)
class Several:
    """A body, and what is to be refused in it: operations and patterns of reasons, in order; nothing else is."""

    body: Callable[..., Tensor]
    refused: tuple[tuple[str, str], ...]
    inputs: tuple[Tensor, ...] = (noise(2, 4, FRAMES),)


def heads(s: Fault, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = s.qkv(x.transpose(1, 2)).unsqueeze(1).chunk(3, -1)
    return q, k, v


def pre_emphasis(s: Fault, x: Tensor) -> Tensor:
    y = torch.cat((x[:, :, :1].abs(), x[:, :, 1:] - 0.97 * x[:, :, :-1]), 2)
    return y - y.mean(2, keepdim=True)


def pre_emphasis_and_three(s: Fault, x: Tensor) -> Tensor:
    y = s.norm(torch.cat((x[:, :, :1].abs(), x[:, :, 1:] - 0.97 * x[:, :, :-1]), 2))
    return (y.flip(2) / y.std(2, keepdim=True)).sort(2).values


def standardised(s: Fault, x: Tensor) -> Tensor:
    """The mean meets the frames at two places, and is one cause."""
    mean, spread = x.mean(2, keepdim=True), x.std(2, keepdim=True)
    return F.relu((x - mean) / spread) * spread + mean


def extremes(s: Fault, x: Tensor) -> Tensor:
    """Two reductions of one timing."""
    low, high = x.amin(2, keepdim=True), x.amax(2, keepdim=True)
    return (x - low) / (high - low + 1)


def cells(s: Fault, x: Tensor) -> Tensor:
    h, out = torch.zeros_like(x[:, :, 0]), []
    for t in range(x.shape[2]):
        h = torch.tanh(h + x[:, :, t] * float(t * t))
        out.append(h)
    return s.norm(torch.stack(out, 2))


def patches(s: Fault, x: Tensor) -> Tensor:
    b, c, t = x.shape
    return x.reshape(b, c, 4, t // 4).relu().flatten(2).softmax(2)


def halves(s: Fault, x: Tensor) -> Tensor:
    """The halves do not fit the clip any more, which is a consequence."""
    early, _ = x.chunk(2, 2)
    return F.relu(early.repeat_interleave(2, 2) + x) + s.table.T


def rates(s: Fault, x: Tensor) -> Tensor:
    """What is guessed of a half meets what is as long."""
    early, _ = x.chunk(2, 2)
    return (early + F.avg_pool1d(x, 11, 1)).flip(2)


def written(s: Fault, x: Tensor) -> Tensor:
    """What is written into depends on the stream, although the write is refused."""
    y = torch.linspace(0, 1, x.shape[2]).expand(x.shape[0], 4, -1).clone()
    y[:, :, 1:] = x[:, :, :-1]
    return y


def spread_out(s: Fault, x: Tensor) -> Tensor:
    """Zeros between frames: they are as long as the clip, and what is written is not."""
    y = torch.zeros(x.shape[0], 4, x.shape[2])
    y[:, :, ::2] = F.relu(x[:, :, ::2])
    return y


def adjacency(s: Fault, x: Tensor) -> Tensor:
    """Who moves like whom, over the clip; what comes of it has no time, and meets the frames again."""
    return (x.transpose(1, 2) @ (x @ x.transpose(1, 2)).softmax(-1)).transpose(1, 2).flip(2)


def spectrum(s: Fault, x: Tensor) -> Tensor:
    """A filter by the clip's spectrum; its weights and the way back are no faults of their own."""
    y = torch.fft.irfft(torch.fft.rfft(x, dim=2) * s.table.flatten()[:11], n=x.shape[2], dim=2)
    return y - y.mean(2, keepdim=True)


def pairs(s: Fault, x: Tensor) -> Tensor:
    """Distances of all frames; what is made of these is a consequence."""
    far = (x.unsqueeze(3) - x.unsqueeze(2)).abs().sum(1)
    return s.norm(x * (far.softmax(-1) @ x.transpose(1, 2)).transpose(1, 2))


def twice(s: Fault, x: Tensor) -> Tensor:
    """One constant part of the clip, used at three places."""
    first = x[:, :, 1:2]
    return torch.tanh((x - first) * first).flip(2) + first


def cat_of_halves(s: Fault, x: Tensor) -> Tensor:
    return s.norm(torch.cat((x.flip(2), x), 2))


def class_token(s: Fault, x: Tensor) -> Tensor:
    """Tokens of space and time, and one of no frame before them."""
    y = x.unsqueeze(1).expand(-1, 3, -1, -1).permute(0, 1, 3, 2).flatten(1, 2)
    y = torch.cat((s.table[:1].expand(y.shape[0], -1, -1), y), 1)
    q, k, v = s.qkv(y).unsqueeze(1).chunk(3, -1)
    return F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)


SEVERAL: dict[str, Several] = {
    "pre-emphasis, then the clip's mean": Several(pre_emphasis, (("slice", "the first frame"), ("mean", "whole clip"))),
    "five at once": Several(
        pre_emphasis_and_three,
        (("slice", "the first frame"), ("group_norm", "statistics"), ("flip", "flips"), ("std", "whole clip"), ("sort", "orders")),
    ),
    "one cause, two places": Several(standardised, (("mean", "`mean` of the whole clip"), ("std", "`std` of the whole clip"))),
    "two reductions of one timing": Several(extremes, (("amin", "`amin` of the"), ("amax", "`amax` of the"))),
    "a loop, then a norm": Several(cells, (("loop over frames", "depends on the iteration"), ("group_norm", "statistics"))),
    "patches, then softmax": Several(patches, (("reshape", "splits time"), ("softmax", "softmax over time"))),
    "halves, then a table": Several(halves, (("chunk", "splits the clip"), ("add", r"each of 20 frames"))),
    "halves, then what is as long": Several(rates, (("chunk", "splits the clip"), ("flip", "flips"))),
    "frames that are written into a table": Several(written, (("copy", "writes frames into a part of a table"),)),
    "zeros between frames": Several(spread_out, (("copy", "writes every other frame"),)),
    "an adjacency of the clip": Several(adjacency, (("matmul", "sums over the frames"), ("flip", "flips"))),
    "a spectrum, then a mean": Several(spectrum, (("fft_rfft", "spectrum"), ("mean", "whole clip"))),
    "all pairs, then a norm": Several(pairs, (("sub", "with each other"), ("group_norm", "statistics"))),
    "the second frame, three times": Several(twice, (("slice", "frame 1 of the clip"), ("flip", "flips"))),
    "twice as long": Several(cat_of_halves, (("flip", "flips"), ("cat", "behind the other"), ("group_norm", "statistics"))),
    "a token before merged ones": Several(class_token, (("cat", "merged"), ("scaled_dot_product_attention", "bidirectional"))),
}  # fmt: skip

Build = Callable[[], Any]
