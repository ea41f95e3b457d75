"""Attention that modules write themselves: products of queries and keys, masks of many kinds, softmax, products with values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, in_turns, no, row
from tests.convert.test_rules_attention import band, heads, joined

TOKENS: dict = {"shape": (2, 9, 6), "time": 1, "delay": 0, "field": 4}
CAUSAL: dict = {"shape": (2, 9, 6), "time": 1, "delay": 0, "field": 9, "other": 0}
PROJECTIONS = {"q": (6, 6), "k": (6, 6), "v": (6, 6)}
Masked = Callable[[nn.Module, Tensor, Tensor], Tensor]


def written(masked: Masked, count: int = 2) -> Any:
    """Attention with heads, ``masked(module, scores, x)`` between the product and the softmax."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (heads(x @ w, count) for w in (m.q, m.k, m.v))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.size(-1))
        return joined(F.dropout(masked(m, scores, x).softmax(-1), 0.1, False) @ v)

    return run


def hide(x: Tensor, behind: int = 3) -> Tensor:
    return ~band(x.shape[1], behind)


class NanoGPT(nn.Module):
    """The causal self-attention that many repositories have, with a buffer of ones."""

    def __init__(self, block: int = 40):
        super().__init__()
        self.attn, self.proj = nn.Linear(6, 18), nn.Linear(6, 6)
        self.attn_dropout, self.resid_dropout = nn.Dropout(0.1), nn.Dropout(0.1)
        self.register_buffer("bias", torch.tril(torch.ones(block, block)).view(1, 1, block, block))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.attn(x).split(c, dim=2)
        k = k.view(b, t, 2, c // 2).transpose(1, 2)
        q = q.view(b, t, 2, c // 2).transpose(1, 2)
        v = v.view(b, t, 2, c // 2).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
        y = self.attn_dropout(F.softmax(att, dim=-1)) @ v
        return self.resid_dropout(self.proj(y.transpose(1, 2).contiguous().view(b, t, c)))


class GPT2(nn.Module):
    """GPT-2's first way: scores times a mask, minus a large number where it is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Linear(6, 18)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(y) for y in self.attn(x).chunk(3, -1))
        w = torch.matmul(q, k.transpose(-1, -2)) / k.shape[-1] ** 0.5
        b = band(x.shape[1], 3).to(x.dtype)
        return joined(torch.matmul((w * b - 1e4 * (1 - b)).softmax(-1), v))


class HuggingFace(nn.Module):
    """GPT-2 as it is in transformers: torch.where with the least number of the type."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Linear(6, 18)
        self.register_buffer("bias", torch.tril(torch.ones(64, 64, dtype=torch.bool)).view(1, 1, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(y) for y in self.attn(x).split(6, 2))
        weights = torch.matmul(q, k.transpose(-1, -2))
        weights = weights / torch.full([], v.size(-1) ** 0.5, dtype=weights.dtype)
        length = x.shape[1]
        mask = self.bias[:, :, :length, :length]
        least = torch.full([], torch.finfo(weights.dtype).min, dtype=weights.dtype)
        weights = torch.where(mask, weights.to(weights.dtype), least)
        return joined(torch.matmul(weights.softmax(dim=-1).type(v.dtype), v))


class T5(nn.Module):
    """Relative position biases that are learned, in a band: a table, indexed by the distance."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.table = nn.Linear(6, 18), nn.Embedding(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(y) for y in self.attn(x).chunk(3, -1))
        i = torch.arange(x.shape[1])
        distance = (i.unsqueeze(1) - i.unsqueeze(0)).clamp(0, 4)
        bias = self.table(distance).permute(2, 0, 1).unsqueeze(0)
        scores = (torch.matmul(q, k.transpose(3, 2)) + bias).masked_fill(hide(x), torch.finfo(x.dtype).min)
        return joined(torch.matmul(F.softmax(scores, -1).type_as(scores), v))


class Flat(nn.Module):
    """Heads in the rows of the batch, and bmm, as fairseq and nn.MultiheadAttention write it."""

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = ((x * s).view(b, t, 2, 3).transpose(1, 2).reshape(b * 2, t, 3) for s in (1.0, 0.5, 2.0))
        scores = torch.bmm(q, k.transpose(1, 2)) * 3**-0.5
        scores = scores.view(b, 2, t, t) + torch.zeros(t, t, dtype=x.dtype).masked_fill(hide(x), -torch.inf)[None, None]
        weights = F.softmax(scores.view(b * 2, t, t), dim=-1)
        return torch.bmm(weights, v).view(b, 2, t, 3).transpose(1, 2).reshape(b, t, c)


class ChannelsFirst(nn.Module):
    """Non-local blocks, with a mask: ``v @ weights.transpose``."""

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.bmm(x.permute(0, 2, 1), x) * 0.3
        weights = scores.masked_fill(~band(x.shape[2], 3), -1e9).softmax(-1)
        return torch.bmm(x * 2, weights.permute(0, 2, 1)) + x


def einsum(m: nn.Module, x: Tensor) -> Tensor:
    q, k, v = ((x @ w).unflatten(-1, (2, 3)) for w in (m.q, m.k, m.v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * 3**-0.5
    weights = scores.masked_fill(hide(x), -torch.inf).softmax(-1)
    return torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2)


def shared_keys(m: nn.Module, x: Tensor) -> Tensor:
    """Multi-query attention: keys and values have no dimension of heads."""
    scores = torch.einsum("bihd,bjd->bhij", (x @ m.q).unflatten(-1, (2, 3)), x @ m.k) * 3**-0.5
    return torch.einsum("bhij,bjd->bihd", scores.masked_fill(hide(x), -torch.inf).softmax(-1), x @ m.v).flatten(2)


def einsum_channels_first(m: nn.Module, x: Tensor) -> Tensor:
    """Attention of skeletons: over time, of channels and joints at once."""
    scores = torch.einsum("nctv,ncsv->nts", x * m.q, x) / 5
    weights = scores.masked_fill(~band(x.shape[2], 3), -torch.inf).softmax(2)
    return torch.einsum("nts,ncsv->nctv", weights, x)


def temperature(m: nn.Module, x: Tensor) -> Tensor:
    """A learned temperature for each head, as in Swin v2, with cosines."""
    q, k, v = (heads(x @ w) for w in (m.q, m.k, m.v))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * m.t.clamp(max=2).exp()
    return joined((scores + torch.zeros(1, dtype=x.dtype)).masked_fill(hide(x), -torch.inf).softmax(-1) @ v)


def two_masks(m: nn.Module, s: Tensor, x: Tensor) -> Tensor:
    return s.masked_fill(~band(x.shape[1], 5), -1e30).masked_fill(~band(x.shape[1], 3, 2), -math.inf)


def after_softmax(m: nn.Module, x: Tensor) -> Tensor:
    """A mask before the softmax, and once more behind it."""
    scores = x @ x.transpose(1, 2)
    weights = scores.masked_fill(hide(x), torch.finfo(x.dtype).min).softmax(-1).masked_fill(hide(x), 0.0)
    return weights @ x


def mask_first(m: nn.Module, x: Tensor) -> Tensor:
    """The mask is added by baddbmm."""
    mask = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype).masked_fill(hide(x), -torch.inf)
    return torch.baddbmm(mask, x @ m.q, x.transpose(1, 2), alpha=0.3).softmax(-1) @ x


def scaled_later(m: nn.Module, s: Tensor, x: Tensor) -> Tensor:
    """A bias, and then a scale of both."""
    i = torch.arange(x.shape[1], dtype=x.dtype)
    return ((s - 0.3 * (i[:, None] - i).abs()) * 0.7).masked_fill(hide(x), -torch.inf)


ROWS = [
    row("nanoGPT", NanoGPT, **CAUSAL),
    row("GPT-2", GPT2, **TOKENS),
    row("GPT-2 in transformers", HuggingFace, **CAUSAL),
    row("T5", T5, **TOKENS),
    row("heads in the rows", Flat, **TOKENS),
    row("channels first", ChannelsFirst, delay=0, field=4),
    fn("masked_fill", written(lambda m, s, x: s.masked_fill(hide(x), float("-inf"))), params=PROJECTIONS, **TOKENS),
    fn("masked_fill by a large number", written(lambda m, s, x: s.masked_fill(hide(x), -1e9)), params=PROJECTIONS, **TOKENS),
    fn("a mask added", written(lambda m, s, x: s + torch.zeros_like(hide(x), dtype=x.dtype).masked_fill(hide(x), -torch.inf)),
        params=PROJECTIONS,
       **TOKENS),
    fn("a mask subtracted", written(lambda m, s, x: s - 1e9 * hide(x)), params=PROJECTIONS, **TOKENS),
    fn("a mask by triu", written(lambda m, s, x: s + torch.full((x.shape[1],) * 2, float("-inf"), dtype=x.dtype).triu(1)),
        params=PROJECTIONS, **CAUSAL),
    fn("torch.where", written(lambda m, s, x: torch.where(hide(x), -torch.inf, s)), params=PROJECTIONS, **TOKENS),
    fn("in place", written(lambda m, s, x: s.masked_fill_(hide(x), -torch.inf)), params=PROJECTIONS, **TOKENS),
    fn("two masks", written(two_masks), params=PROJECTIONS, **TOKENS),
    fn("scaled after a bias", written(scaled_later), params=PROJECTIONS, **TOKENS),
    fn("one head", written(lambda m, s, x: s.masked_fill(hide(x), -torch.inf), 1), params=PROJECTIONS, **TOKENS),
    fn("a look ahead", written(lambda m, s, x: s.masked_fill(~band(x.shape[1], 2, 1), -torch.inf)), params=PROJECTIONS,
        **(TOKENS | {"delay": 1})),
    fn("einsum", einsum, params=PROJECTIONS, **TOKENS),
    fn("einsum, keys that heads share", shared_keys, params={"q": (6, 6), "k": (6, 3), "v": (6, 3)}, **TOKENS),
    fn("einsum over time of joints", einsum_channels_first, params={"q": (3, 1, 4)}, shape=(2, 3, 8, 4), delay=0, field=4),
    fn("a learned temperature", temperature, params=PROJECTIONS | {"t": (2, 1, 1)}, **TOKENS),
    fn("a mask behind the softmax too", after_softmax, params={"p": (1,)}, **TOKENS),
    fn("a mask by baddbmm", mask_first, params={"q": (6, 6)}, **TOKENS),
    fn("scores of no mask, of joints", lambda x: (x @ x.transpose(-1, -2)).softmax(-1) @ x, shape=(2, 7, 4, 3), time=1, delay=0, field=1),
    fn("keys that are not a stream", lambda m, x: (x @ m.k.t()).softmax(-1) @ m.v, params={"k": (5, 6), "v": (5, 2)},
        **(TOKENS | {"field": 1})),
]  # fmt: skip


def plain(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Scores, something, values."""
    return lambda x: change(x @ x.transpose(1, 2)) @ x


SHAPE: dict = {"shape": (2, 9, 6), "time": 1}
REFUSED = [
    no("no mask", plain(lambda s: s.softmax(-1)), "attention to all frames of the clip", "is_causal=True", **SHAPE),
    no("no softmax", plain(lambda s: s / 9), "attention to all frames of the clip", "is_causal=True", **SHAPE),
    no("softmax over the queries", plain(lambda s: s.softmax(1)), "softmax over time", "over the keys", **SHAPE),
    no("the scores themselves", lambda x: x @ x.transpose(1, 2), "compares all frames of the clip with each other|does not depend", "",
        **SHAPE),
    no("a mean of the weights", lambda x: (x @ x.transpose(1, 2)).masked_fill(hide(x), -torch.inf).softmax(-1).mean(-1),
        "compares all frames",
       "attention", **SHAPE),
    no("another function than softmax", plain(lambda s: s.masked_fill(~band(s.shape[1], 2), 0.0).relu()),
        "does not hide them|compares all frames",
       "-inf|attention", **SHAPE),
    no("a product with a decay", plain(lambda s: (s * (0.9 ** torch.arange(9)).double()).softmax(-1)),
        "a value for each of 9 frames", "positions that go on", **SHAPE),
    no("a mask of 0 that hides nothing", plain(lambda s: (s * band(s.shape[1], 2)).softmax(-1)), "multiplied by 0, which does not hide",
        "added", **SHAPE),
    no("a mask that is too small", plain(lambda s: s.masked_fill(~band(s.shape[1], 2), -10.0).softmax(-1)), "fills scores .* with -10",
        "-inf", **SHAPE),
    no("a mask of the stream", lambda x: ((x @ x.transpose(1, 2)) + x.mean(-1, keepdim=True)).softmax(-1) @ x, "depends on the stream",
        "is_causal", **SHAPE),
    no("sigmoid attention", plain(lambda s: s.masked_fill(~band(s.shape[1], 2), -torch.inf).sigmoid()), "`sigmoid` compares all frames",
        "attention", **SHAPE),
    no("learned biases of one length", lambda: Fn(lambda m, x: ((x @ x.transpose(1, 2)) + m.b).softmax(-1) @ x, b=(9, 9)),
        "not the same for every frame",
       "causal band", **SHAPE),
    no("normalised by a sum", plain(lambda s: s.exp() / s.exp().sum(-1, keepdim=True)), "`exp` compares all frames", "attention",
        **SHAPE),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_attention(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_learned_biases_follow_their_parameter() -> None:
    """What a bias is computed of is shared with the module, like all parameters."""
    module = T5().eval().double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    net = co.continual(module, x, time_dim=1)
    with torch.no_grad():
        before = net(x)
        module.table.weight.mul_(-3)
        assert (net(x) - before).abs().max() > 1e-3
        assert_equal(net(x), module(x))
        assert_equal(net.forward_steps(x, pad_end=True), module(x))
    net.clean_state()
    net.forward_steps(x, pad_end=True).sum().backward()
    got = module.table.weight.grad
    module.zero_grad()
    module(x).sum().backward()
    assert_equal(got, module.table.weight.grad)
