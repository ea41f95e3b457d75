"""Networks whose code computes with the clip's length: padding to strides, crops to the clip, skips of other lengths. No tests are here.

Written from the papers, small.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PaddedConv(nn.Module):
    """A causal convolution whose last window is full: EnCodec's (Défossez et al. 2022)."""

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, dilation: int = 1, mode: str = "reflect"):
        super().__init__()
        self.conv = nn.Conv1d(into, out, kernel, stride=stride, dilation=dilation)
        self.extent, self.stride, self.mode = (kernel - 1) * dilation + 1, stride, mode

    def forward(self, x: Tensor) -> Tensor:
        before = self.extent - self.stride
        windows = (x.shape[-1] - self.extent + before) / self.stride + 1
        whole = (math.ceil(windows) - 1) * self.stride + (self.extent - before)
        return self.conv(F.pad(x, (before, whole - x.shape[-1]), self.mode))


class TrimmedUp(nn.Module):
    """A transposed convolution without the frames that only its last window has."""

    def __init__(self, into: int, out: int, kernel: int, stride: int):
        super().__init__()
        self.conv, self.more = nn.ConvTranspose1d(into, out, kernel, stride=stride), kernel - stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y[..., : y.shape[-1] - self.more]


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, dilation: int, mode: str):
        super().__init__()
        self.block = nn.Sequential(
            nn.ELU(), PaddedConv(width, width // 2, 3, dilation=dilation, mode=mode), nn.ELU(), nn.Conv1d(width // 2, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Recurrent(nn.Module):
    """An LSTM beside a shortcut, on ``(B, C, T)``."""

    def __init__(self, width: int):
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lstm(x.transpose(1, 2))[0].transpose(1, 2)


class SEANet(nn.Module):
    """EnCodec's encoder and decoder, without the quantiser."""

    def __init__(self, width: int = 4, strides: tuple[int, ...] = (2, 3), mode: str = "reflect"):
        super().__init__()
        down: list[nn.Module] = [PaddedConv(1, width, 5, mode=mode)]
        for s in strides:
            down += [Residual(width, 2, mode), nn.ELU(), PaddedConv(width, 2 * width, 2 * s, s, mode=mode)]
            width *= 2
        down.append(Recurrent(width))
        up: list[nn.Module] = []
        for s in reversed(strides):
            up += [nn.ELU(), TrimmedUp(width, width // 2, 2 * s, s), Residual(width // 2, 1, mode)]
            width //= 2
        self.down, self.up = nn.Sequential(*down), nn.Sequential(*up, PaddedConv(width, 1, 5, mode=mode))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))[..., : x.shape[-1]]


class Demucs(nn.Module):
    """Speech enhancement on waveforms (Défossez et al. 2020): a U-Net with an LSTM, padded to a length that it gives back."""

    def __init__(self, width: int = 4, depth: int = 2, kernel: int = 4, stride: int = 2):
        super().__init__()
        self.kernel, self.stride, self.depth = kernel, stride, depth
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        into = 1
        for i in range(depth):
            out = width << i
            self.encoder.append(
                nn.Sequential(nn.Conv1d(into, out, kernel, stride), nn.ReLU(), nn.Conv1d(out, 2 * out, 1), nn.GLU(1))
            )
            up = [nn.Conv1d(out, 2 * out, 1), nn.GLU(1), nn.ConvTranspose1d(out, into, kernel, stride)]
            self.decoder.insert(0, nn.Sequential(*up, *([nn.ReLU()] if i else [])))
            into = out
        self.lstm = Recurrent(into)

    def valid_length(self, length: int) -> int:
        """The next length at which no frame is left over on the way down."""
        for _ in range(self.depth):
            length = max(math.ceil((length - self.kernel) / self.stride) + 1, 1)
        for _ in range(self.depth):
            length = (length - 1) * self.stride + self.kernel
        return int(length)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        x, skips = F.pad(x, (0, self.valid_length(length) - length)), []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        x = self.lstm(x)
        for decode in self.decoder:
            x = decode(x + skips.pop()[..., : x.shape[-1]])
        return x[..., :length]


class CumulativeNorm(nn.Module):
    """Normalisation by the statistics of all frames so far."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width, 1)), nn.Parameter(torch.zeros(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.shape[2] + 1, device=x.device, dtype=x.dtype) * x.shape[1]
        mean = x.sum(1).cumsum(1) / count
        power = x.square().sum(1).cumsum(1) / count
        scale = (power - mean.square() + 1e-5).rsqrt()
        return (x - mean.unsqueeze(1)) * scale.unsqueeze(1) * self.weight + self.bias


class ConvTasNet(nn.Module):
    """Separation by masks on a learned transform (Luo and Mesgarani 2019), causal; the result is padded to the mixture's length."""

    def __init__(self, width: int = 6, kernel: int = 4, sources: int = 2):
        super().__init__()
        self.encoder = nn.Conv1d(1, width, kernel, stride=kernel // 2, bias=False)
        self.decoder = nn.ConvTranspose1d(width, 1, kernel, stride=kernel // 2, bias=False)
        self.norm, self.into = CumulativeNorm(width), nn.Conv1d(width, width, 1)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=d, padding=2 * d, groups=width) for d in (1, 2))
        self.norms = nn.ModuleList(CumulativeNorm(width) for _ in self.blocks)
        self.masks, self.sources = nn.Conv1d(width, sources * width, 1), sources

    def forward(self, x: Tensor) -> Tensor:
        spectrum = self.encoder(x)
        y = self.into(self.norm(spectrum))
        for conv, norm in zip(self.blocks, self.norms, strict=True):
            y = y + norm(F.relu(conv(y)[..., : y.shape[-1]]))
        masks = self.masks(y).sigmoid().unflatten(1, (self.sources, -1))
        masked = (masks * spectrum.unsqueeze(1)).flatten(0, 1)
        found = self.decoder(masked).unflatten(0, (-1, self.sources)).squeeze(2)
        return F.pad(found, (0, x.shape[-1] - found.shape[-1]))


class ComplexUNet(nn.Module):
    """Strided convolutions over frequency with a look-ahead over time, as DCCRN's (Hu et al. 2020): crops bring both ends together."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.down = nn.Conv2d(2, width, (5, 2), (2, 1), (2, 1))
        self.deep = nn.Conv2d(width, width, (5, 2), (2, 1), (2, 1))
        self.up = nn.ConvTranspose2d(2 * width, width, (5, 2), (2, 1), (2, 0))
        self.out = nn.ConvTranspose2d(2 * width, 2, (5, 2), (2, 1), (2, 0))

    def forward(self, x: Tensor) -> Tensor:  # (B, 2, F, T)
        first = F.leaky_relu(self.down(x))[..., :-1]
        deep = F.leaky_relu(self.deep(first))[..., :-1]
        y = F.leaky_relu(self.up(torch.cat((deep, deep.tanh()), 1)))[..., 1:]
        frames = min(y.shape[-1], first.shape[-1])
        mask = self.out(torch.cat((y[..., :frames], first[..., :frames]), 1))[..., 1:]
        mask = F.pad(mask, (0, x.shape[-1] - mask.shape[-1]))
        return x * mask.tanh()


class Squeezed(nn.Module):
    """Frames squeezed, encoded and stretched again, as SEW does (Wu et al. 2022), with a causal encoder."""

    def __init__(self, width: int = 4, squeeze: int = 2):
        super().__init__()
        self.features = nn.Conv1d(1, width, 5, stride=2)
        self.position = nn.Conv1d(width, width, 5, stride=squeeze, padding=2)
        self.pool, self.encoder = nn.AvgPool1d(squeeze, squeeze), nn.GRU(width, width, batch_first=True)
        self.stretch, self.squeeze = nn.Linear(width, squeeze * width), squeeze

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        frames = x.shape[-1]
        pooled, position = self.pool(x), F.gelu(self.position(x))
        shortest = min(pooled.shape[-1], position.shape[-1])
        y = self.encoder((pooled[..., :shortest] + position[..., :shortest]).transpose(1, 2))[0].transpose(1, 2)
        y = F.interpolate(y, scale_factor=self.squeeze, mode="nearest")
        y = F.pad(y, (0, frames - y.shape[-1]))
        return x + y
