"""Parts that several builders share, written from the papers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fn(nn.Module):
    """A function, and the modules that it uses: ``Fn(lambda m, x: m.a(x) + x, a=nn.Linear(4, 4))``.

    Tensors become buffers.
    """

    def __init__(self, call: Callable[..., Any], **parts: Any):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *x: Tensor) -> Any:
        return self.call(self, *x)


class Residual(nn.Module):
    """``x`` and a body of it, added; through a second module where they differ in size."""

    def __init__(self, body: nn.Module, short: nn.Module | None = None, after: Callable[[Tensor], Tensor] = torch.relu):
        super().__init__()
        self.body, self.short, self.after = body, short or nn.Identity(), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.short(x) + self.body(x))


class Squeeze(nn.Module):
    """Squeeze-and-excitation: a gate from the mean over all dimensions behind the channels (Hu 2018)."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.down, self.up = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(x.flatten(2).mean(2)))))
        return x * gate.view(*gate.shape, *([1] * (x.ndim - 2)))


class Causal(nn.Conv1d):
    """A convolution over time that sees the past alone: zeros stand before the clip."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


def conv_norm(*args: Any, rank: int = 1, act: bool = True, **kwargs: Any) -> nn.Sequential:
    """A convolution, batch normalisation and a rectifier."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](*args, **kwargs)
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1](conv.out_channels)
    return nn.Sequential(conv, norm, nn.ReLU()) if act else nn.Sequential(conv, norm)


def head(channels: int, classes: int, rank: int = 1) -> nn.Sequential:
    """The mean over the clip, and a layer of scores."""
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1](1)
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(channels, classes))


class Permuted(nn.Module):
    """A module between two permutations of dimensions: the input's, and the output's."""

    def __init__(self, module: nn.Module, before: Sequence[int], after: Sequence[int] | None = None):
        super().__init__()
        self.module, self.before, self.after = module, tuple(before), tuple(after) if after else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x.permute(self.before))
        return y if self.after is None else y.permute(self.after)


class Attention(nn.Module):
    """Attention among the rows of ``(B, N, C)``, written by hand; causal if asked for."""

    def __init__(self, channels: int, heads: int, causal: bool = False):
        super().__init__()
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / (c // self.heads) ** 0.5
        if self.causal:
            scores = scores.masked_fill(torch.triu(torch.ones(n, n, dtype=torch.bool, device=x.device), 1), float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """A transformer's block with norms before its parts; ``mix`` is attention by default."""

    def __init__(self, channels: int, heads: int, causal: bool = False, mix: nn.Module | None = None):
        super().__init__()
        self.one, self.two = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mix = mix or Attention(channels, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.one(x))
        return x + self.mlp(self.two(x))


class ConvGates(nn.Module):
    """The cell of a convolutional LSTM (Shi 2015): ``(x, (h, c)) -> (h, c)``."""

    def __init__(self, inputs: int, hidden: int, kernel: int = 3):
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.conv(torch.cat((x, state[0]), 1)).chunk(4, 1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def zeros(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first state, for frames ``(B, C, H, W)``."""
        h = x.new_zeros(x.shape[0], self.hidden, *x.shape[2:])
        return h, h


class ConvGru(nn.Module):
    """The cell of a convolutional GRU (Ballas 2016)."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(inputs + hidden, 2 * hidden, 3, padding=1)
        self.new = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        r, z = torch.sigmoid(self.gates(torch.cat((x, h), 1))).chunk(2, 1)
        return z * h + (1 - z) * torch.tanh(self.new(torch.cat((x, r * h), 1)))
