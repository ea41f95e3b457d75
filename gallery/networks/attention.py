"""Attention of all kinds, written from the papers: masks, positions, chunks and kernels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parts import Attention, Block, Causal, Fn
from .sequence_layers import HEADS, LAST, C, row


def split(x: Tensor) -> Tensor:
    """Heads as rows: ``(B, T, C)`` to ``(B, H, T, C / H)``."""
    return x.unflatten(2, (HEADS, -1)).transpose(1, 2)


class Mixed(nn.Module):
    """Attention whose scores a function changes, given ``(module, scores)`` and the positions; rotary if asked for."""

    def __init__(self, change: Any, rotary: bool = False, grouped: bool = False, softmax: bool = True, **parts: Any):
        super().__init__()
        self.q, self.k, self.v = (
            nn.Linear(C, C),
            nn.Linear(C, C // (2 if grouped else 1)),
            nn.Linear(C, C // (2 if grouped else 1)),
        )
        self.out, self.change, self.rotary, self.grouped, self.softmax = (
            nn.Linear(C, C),
            Fn(change, **parts),
            rotary,
            grouped,
            softmax,
        )

    def turn(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)[:, None] / 100.0 ** (
            torch.arange(half, dtype=x.dtype) / half
        )
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)

    def forward(self, x: Tensor) -> Tensor:
        q = split(self.q(x))
        k, v = ((f(x)[:, None].expand(-1, HEADS, -1, -1) if self.grouped else split(f(x))) for f in (self.k, self.v))
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        scores = self.change(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
        y = (scores.softmax(-1) if self.softmax else scores) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def distance(n: int, device: Any = None) -> Tensor:
    """How far each key is in the past of each query."""
    at = torch.arange(n, device=device)
    return at[:, None] - at


def masked(scores: Tensor, far: int | None = None) -> Tensor:
    """Without the future, and without what is too far in the past."""
    d = distance(scores.shape[-1])
    hidden = d < 0 if far is None else (d < 0) | (d >= far)
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


class Padded(nn.Module):
    """A causal model with a mask of four dimensions, made of ``torch.where`` and ``cumsum``, as libraries make it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        keep = torch.tril(torch.ones(n, n, dtype=torch.bool, device=x.device))[None, None].expand(x.shape[0], 1, n, n)
        mask = torch.where(keep, 0.0, torch.finfo(x.dtype).min).to(x.dtype)
        at = torch.ones(x.shape[:2], dtype=torch.long, device=x.device).cumsum(1) - 1
        x = x + torch.sin(at.to(x.dtype))[..., None]
        q, k, v = (split(f(x)) for f in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class LinearAttention(nn.Module):
    """Attention as running sums of keys and values (Katharopoulos 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(C, 4), nn.Linear(C, 4), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        pairs = torch.cumsum(k[..., None] * v[:, :, None], 1)
        return (q[..., None] * pairs).sum(2) / (q * torch.cumsum(k, 1)).sum(-1, keepdim=True)


class Chunked(nn.Module):
    """Attention within chunks of four frames and to the chunk before, causal (Dai 2019; Roy 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(1, (-1, 4)) for f in (self.q, self.k, self.v))
        k, v = (torch.cat((F.pad(y, (0, 0, 0, 0, 1, -1)), y), 2) for y in (k, v))
        hidden = torch.arange(8) > torch.arange(4)[:, None] + 4
        return ((q @ k.transpose(-1, -2)).masked_fill(hidden, -1e9).softmax(-1) @ v).flatten(1, 2)


class Conformer(nn.Module):
    """Half steps of feed-forward, attention and a convolution with a gate (Gulati 2020)."""

    def __init__(self, causal: bool):
        super().__init__()
        self.one, self.two, self.mix = (
            nn.Sequential(nn.LayerNorm(C), nn.Linear(C, 16), nn.SiLU(), nn.Linear(16, C)),
            nn.LayerNorm(C),
            Attention(C, HEADS, causal),
        )
        self.norm, self.inner, self.out = nn.LayerNorm(C), nn.Conv1d(C, 2 * C, 1), nn.Conv1d(C, C, 1)
        self.deep: nn.Module = Causal(C, C, 7, groups=C) if causal else nn.Conv1d(C, C, 7, padding=3, groups=C)
        self.batch, self.last = nn.BatchNorm1d(C), nn.LayerNorm(C)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.one(x)
        x = x + self.mix(self.two(x))
        y = F.glu(self.inner(self.norm(x).transpose(1, 2)), 1)
        return self.last(x + self.out(F.silu(self.batch(self.deep(y)))).transpose(1, 2))


class Retentive(nn.Module):
    """Retention in parallel form: scores times powers of a decay (Sun 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = Mixed(
            lambda m, s: s * (m.decay ** distance(s.shape[-1]).clamp(min=0).to(s.dtype)).tril(),
            softmax=False,
            decay=torch.tensor([[[0.9]], [[0.8]]]),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


NETWORKS = [
    row("causal transformer", lambda: nn.Sequential(Block(C, HEADS, True), Block(C, HEADS, True)), "Radford 2018, OpenAI"),
    row("transformer", lambda: nn.Sequential(Block(C, HEADS), Block(C, HEADS)), "Vaswani 2017, NeurIPS", "windows", **LAST),
    row(
        "nn.TransformerEncoder, causal mask",
        lambda: Fn(
            lambda m, x: m.net(x, nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)),
            net=nn.TransformerEncoder(nn.TransformerEncoderLayer(C, HEADS, 16, batch_first=True), 2, enable_nested_tensor=False),
        ),
        "Vaswani 2017, NeurIPS",
    ),
    row(
        "nn.TransformerEncoder",
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(C, HEADS, 16, batch_first=True), 2, enable_nested_tensor=False),
        "Vaswani 2017, NeurIPS",
        "windows",
        **LAST,
    ),
    row(
        "rotary positions, grouped keys",
        lambda: Mixed(lambda m, s: masked(s), rotary=True, grouped=True),
        "Su 2024, Neurocomputing",
    ),
    row("sliding window, rotary", lambda: Mixed(lambda m, s: masked(s, 5), rotary=True), "Jiang 2023, arXiv:2310.06825"),
    row(
        "ALiBi",
        lambda: Mixed(
            lambda m, s: masked(s - m.slope * distance(s.shape[-1]).to(s.dtype)), slope=torch.tensor([[[0.5]], [[0.25]]])
        ),
        "Press 2022, ICLR",
    ),
    row(
        "relative positions in buckets",
        lambda: Mixed(
            lambda m, s: masked(s + m.table(distance(s.shape[-1]).clamp(0, 7)).permute(2, 0, 1)), table=nn.Embedding(8, HEADS)
        ),
        "Raffel 2020, JMLR (T5)",
    ),
    row(
        "band around each frame",
        lambda: Mixed(lambda m, s: s.masked_fill(distance(s.shape[-1]).abs() > 2, float("-inf"))),
        "Beltagy 2020, arXiv:2004.05150",
    ),
    row("padding mask of four dimensions", Padded, "Wolf 2020, EMNLP"),
    row("chunks with the chunk before", Chunked, "Dai 2019, ACL"),
    row("RetNet, parallel", Retentive, "Sun 2023, arXiv:2307.08621"),
    row("linear attention", LinearAttention, "Katharopoulos 2020, ICML"),
    row("Conformer, causal", lambda: Conformer(True), "Gulati 2020, Interspeech"),
    row("Conformer", lambda: Conformer(False), "Gulati 2020, Interspeech", "windows", **LAST),
    row(
        "Performer features, causal",
        lambda: Fn(
            lambda m, x: (
                torch.einsum(
                    "btk,btkc->btc",
                    q := torch.exp(m.q(x)),
                    torch.cumsum(torch.einsum("btk,btc->btkc", torch.exp(m.k(x)), m.v(x)), 1),
                )
                / (q * torch.cumsum(torch.exp(m.k(x)), 1)).sum(-1, keepdim=True)
            ),
            q=nn.Linear(C, 4),
            k=nn.Linear(C, 4),
            v=nn.Linear(C, C),
        ),
        "Choromanski 2021, ICLR",
    ),
    row(
        "cross attention to a given memory",
        lambda: Fn(
            lambda m, x, y: x + m.mix(x, y, y, need_weights=False)[0], mix=nn.MultiheadAttention(C, HEADS, batch_first=True)
        ),
        "Vaswani 2017, NeurIPS",
        clip=[(2, 16, C), (2, 5, C)],
        time_dim=(1, None),
    ),
    row(
        "attention pooling",
        lambda: Fn(
            lambda m, x: m.mix(m.query.expand(x.shape[0], -1, -1), x, x, need_weights=False)[0][:, 0],
            query=nn.Parameter(torch.randn(1, 1, C)),
            mix=nn.MultiheadAttention(C, HEADS, batch_first=True),
        ),
        "Lee 2019, ICML (Set Transformer)",
        "windows",
    ),
    row(
        "Transformer-XL shift",
        lambda: Fn(
            lambda m, x: m.out(
                F.softmax(
                    masked(
                        m.q(x) @ m.k(x).transpose(1, 2)
                        + F.pad(m.q(x) @ m.r[-x.shape[1] :].t(), (1, 0)).view(x.shape[0], x.shape[1] + 1, x.shape[1])[:, 1:]
                    ),
                    -1,
                )
                @ x
            ),
            q=nn.Linear(C, C),
            k=nn.Linear(C, C),
            r=torch.randn(64, C),
            out=nn.Linear(C, C),
        ),
        "Dai 2019, ACL",
        "stream",
    ),
]
