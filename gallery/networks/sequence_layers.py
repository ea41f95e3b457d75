"""Layers of sequence models, written from the papers: attention of all kinds, state-space models in parallel form, and their kin."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..parts import Causal, Fn

C, HEADS = 8, 2


class LongConv(nn.Module):
    """A state-space model as one long causal convolution, by FFT or directly (Gu 2022)."""

    def __init__(self, fft: bool):
        super().__init__()
        self.decay, self.gain, self.fft = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.randn(4, 3)), fft

    def forward(self, x: Tensor) -> Tensor:  # (B, 4, T)
        n = x.shape[2]
        steps = torch.arange(n, device=x.device, dtype=x.dtype)
        kernel = (self.gain[..., None] * torch.exp(-self.decay[..., None] * steps)).sum(1)
        if self.fft:
            return torch.fft.irfft(torch.fft.rfft(x, n=2 * n) * torch.fft.rfft(kernel, n=2 * n), n=2 * n)[..., :n]
        return F.conv1d(F.pad(x, (n - 1, 0)), kernel.flip(1)[:, None], groups=4)


class Doubling(nn.Module):
    """A linear recurrence in log-many shifts, over pairs of steps (Blelloch 1990)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.inner = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        a, h, shift = torch.sigmoid(self.gate(x)), self.inner(x), 1
        while shift < x.shape[1]:
            h = h + a * F.pad(h, (0, 0, shift, -shift))
            a = a * F.pad(a, (0, 0, shift, -shift), value=1.0)
            shift *= 2
        return h


class LogSpace(nn.Module):
    """A gated recurrence without its state in the gates, as sums in log space (Feng 2024)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.inner = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        decay = torch.cumsum(-F.softplus(gate), 1)
        return torch.exp(decay + torch.logcumsumexp(-F.softplus(-gate) + torch.log(F.softplus(self.inner(x)) + 1e-3) - decay, 1))


class Hyena(nn.Module):
    """Short convolutions, gates and a long filter of fixed length (Poli 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.short, self.long, self.out = (
            nn.Linear(C, 3 * C),
            Causal(3 * C, 3 * C, 3, groups=3 * C),
            Causal(C, C, 16, groups=C),
            nn.Linear(C, C),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b, v = self.short(self.inner(x).transpose(1, 2)).chunk(3, 1)
        return self.out((a * self.long(b * v)).transpose(1, 2))


def row(
    name: str, build: Any, source: str, expected: Any = "stream", clip: Any = (2, 16, C), time_dim: Any = 1, **more: Any
) -> Network:
    """A row of this field."""
    return Network(f"sequences/{name}", build, clip, expected, source, time_dim=time_dim, **more)


LONG = "Its kernel is as long as the clip, so an output needs all frames before it; its recurrence is a stream (co.S4D)."
LAST: dict[str, Any] = {"options": {"output": -1}}
NETWORKS = [
    row("S4D by FFT", lambda: LongConv(True), "Gu 2022, NeurIPS", "refused", (2, 4, 32), 2, why=LONG),
    row("S4D by convolution", lambda: LongConv(False), "Gu 2022, NeurIPS", "refused", (2, 4, 32), 2, why=LONG),
    row("parallel scan by doubling", Doubling, "Blelloch 1990"),
    row("minGRU in log space", LogSpace, "Feng 2024, arXiv:2410.01201"),
    row("Hyena, filter of 16", Hyena, "Poli 2023, ICML"),
    row(
        "MLP-Mixer over time",
        lambda: Fn(
            lambda m, x: x + m.time(m.norm(x).transpose(1, 2)).transpose(1, 2), norm=nn.LayerNorm(C), time=nn.Linear(16, 16)
        ),
        "Tolstikhin 2021, NeurIPS",
        "windows",
    ),
    row(
        "AFT with a local window",
        lambda: Fn(
            lambda m, x: (
                torch.sigmoid(m.q(x))
                * (
                    m.mix(torch.exp(m.k(x)).transpose(1, 2) * m.v(x).transpose(1, 2))
                    / (m.mix(torch.exp(m.k(x)).transpose(1, 2)).abs() + 1)
                ).transpose(1, 2)
            ),
            q=nn.Linear(C, C),
            k=nn.Linear(C, C),
            v=nn.Linear(C, C),
            mix=Causal(C, C, 5, groups=C),
        ),
        "Zhai 2021, arXiv:2105.14103",
    ),
    row(
        "token shift",
        lambda: Fn(
            lambda m, x: m.b(F.relu(m.a(x * 0.3 + F.pad(x, (0, 0, 1, -1)) * 0.7)) ** 2), a=nn.Linear(C, C), b=nn.Linear(C, C)
        ),
        "Peng 2023, EMNLP",
    ),
    row(
        "vector quantisation",
        lambda: Fn(
            lambda m, x: m.book(torch.cdist(m.inner(x).flatten(0, 1), m.book.weight).argmin(1)).unflatten(0, x.shape[:2]),
            inner=nn.Linear(C, 4),
            book=nn.Embedding(16, 4),
        ),
        "van den Oord 2017, NeurIPS",
    ),
    row(
        "QRNN",
        lambda: Fn(
            lambda m, x: torch.cumsum(torch.tanh(m.z(x.transpose(1, 2))) * torch.sigmoid(m.f(x.transpose(1, 2))), 2),
            z=Causal(C, C, 2),
            f=Causal(C, C, 2),
        ),
        "Bradbury 2017, ICLR",
    ),
    row(
        "bidirectional LSTM",
        lambda: Fn(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(C, 6, bidirectional=True, batch_first=True)),
        "Schuster 1997, IEEE TSP",
        "windows",
        **LAST,
    ),
    row(
        "LSTM with its last state",
        lambda: Fn(lambda m, x: m.rnn(x), rnn=nn.LSTM(C, 6, batch_first=True)),
        "Hochreiter 1997, Neural Comput.",
    ),
    row(
        "stacked frames and LSTM",
        lambda: Fn(lambda m, x: m.rnn(x.reshape(x.shape[0], x.shape[1] // 4, 4 * C))[0], rnn=nn.LSTM(4 * C, 6, batch_first=True)),
        "Sak 2015, Interspeech",
    ),
    row(
        "pyramidal LSTM",
        lambda: Fn(
            lambda m, x: m.two(m.one(x)[0].reshape(x.shape[0], x.shape[1] // 2, 12))[0],
            one=nn.LSTM(C, 6, batch_first=True),
            two=nn.LSTM(12, 6, batch_first=True),
        ),
        "Chan 2016, ICASSP (LAS)",
    ),
]
