"""Attention in graphs by torch's own functions and layers: causal, banded, with biases, and beside time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, in_turns, no, row, streamed

TOKENS: dict = {"shape": (2, 9, 6), "time": 1}
CAUSAL: dict = {**TOKENS, "delay": 0, "field": 9, "other": 0}  # a window of the example's length


def heads(x: Tensor, count: int = 2) -> Tensor:
    """``(B, T, C)`` as ``(B, H, T, C/H)``."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def band(t: int, behind: int, ahead: int = 0) -> Tensor:
    """Which keys are seen."""
    i = torch.arange(t)
    distance = i.unsqueeze(0) - i.unsqueeze(1)
    return (distance >= -behind) & (distance <= ahead)


def sdpa(mask: Any = None, **options: Any) -> Any:
    """Self-attention of three projections."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (heads(x @ w) for w in (m.q, m.k, m.v))
        return joined(F.scaled_dot_product_attention(q, k, v, mask(x) if mask else None, **options))

    return run


PROJECTIONS = {"q": (6, 6), "k": (6, 6), "v": (6, 6)}


def alibi(x: Tensor) -> Tensor:
    i = torch.arange(x.shape[1])
    slopes = torch.tensor([0.5, 0.25], dtype=x.dtype).view(2, 1, 1)
    distance = (i.unsqueeze(0) - i.unsqueeze(1)).to(x.dtype)
    return (slopes * distance).masked_fill(distance > 0, -torch.inf)


def square(x: Tensor) -> Tensor:
    return nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)


def grouped(m: nn.Module, x: Tensor) -> Tensor:
    q, k, v = heads(x @ m.q, 4), heads(x @ m.k[:, :4], 2), heads(x @ m.v[:, :4], 2)
    return joined(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))


def wide_values(m: nn.Module, x: Tensor) -> Tensor:
    q, k, v = heads(x @ m.q), heads(x @ m.k), heads(x @ m.w)
    return joined(F.scaled_dot_product_attention(q, k, v, band(x.shape[1], 3)))


ROWS = [
    fn("causal", sdpa(is_causal=True), params=PROJECTIONS, **CAUSAL),
    fn("causal, a scale", sdpa(is_causal=True, scale=0.3), params=PROJECTIONS, **CAUSAL),
    fn("a mask of zeros and -inf", sdpa(square), params=PROJECTIONS, **CAUSAL),
    fn("a boolean mask by tril", sdpa(lambda x: torch.ones(x.shape[1], x.shape[1]).tril().bool()), params=PROJECTIONS, **CAUSAL),
    fn("a boolean mask by triu", sdpa(lambda x: ~torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1)),
        params=PROJECTIONS, **CAUSAL),
    fn("positions compared", sdpa(lambda x: torch.arange(x.shape[1])[:, None] >= torch.arange(x.shape[1])), params=PROJECTIONS, **CAUSAL),
    fn("a band", sdpa(lambda x: band(x.shape[1], 3)), params=PROJECTIONS, **TOKENS, delay=0, field=4),
    fn("a band that looks ahead", sdpa(lambda x: band(x.shape[1], 3, 2)), params=PROJECTIONS, **TOKENS, delay=2, field=6),
    fn("a band wider than the example", sdpa(lambda x: band(x.shape[1], 11)), params=PROJECTIONS, **TOKENS, delay=0, field=12, other=9),
    fn("the frame itself", sdpa(lambda x: torch.eye(x.shape[1]).bool()), params=PROJECTIONS, **TOKENS, delay=0, field=1),
    fn("every other frame of a band", sdpa(lambda x: band(x.shape[1], 4) & ((torch.arange(x.shape[1])[:,
        None] - torch.arange(x.shape[1])) % 2 == 0)),
       params=PROJECTIONS, **TOKENS, delay=0, field=5),
    fn("ALiBi", sdpa(alibi), params=PROJECTIONS, **CAUSAL),
    fn("ALiBi in a band", sdpa(lambda x: alibi(x).masked_fill(~band(x.shape[1], 4), -torch.inf)), params=PROJECTIONS, **TOKENS, delay=0,
        field=5),
    fn("a large negative number for a mask", sdpa(lambda x: (1.0 - band(x.shape[1], 3).to(x.dtype)) * -1e9), params=PROJECTIONS,
        **TOKENS, delay=0),
    fn("grouped queries", grouped, params={"q": (6, 8), "k": (6, 6), "v": (6, 6)}, **CAUSAL),
    fn("values of another size", wide_values, params={"q": (6, 4), "k": (6, 4), "w": (6, 10)}, **TOKENS, delay=0, field=4),
    fn("without heads", lambda m, x: F.scaled_dot_product_attention(x @ m.q, x, x @ m.v, is_causal=True), params=PROJECTIONS, **CAUSAL),
    fn("one head of five dimensions", lambda m, x: F.scaled_dot_product_attention(*(heads(x @ w).unsqueeze(1) for w in (m.q, m.k, m.v)),
       band(x.shape[1], 2)).squeeze(1), params=PROJECTIONS, **TOKENS, delay=0, field=3),
    fn("for each joint", lambda x: (lambda y: F.scaled_dot_product_attention(y, y * 2, y.sin(), band(x.shape[2], 2)))(
       x.permute(0, 3, 2, 1).flatten(0, 1)).unflatten(0, (x.shape[0], -1)).permute(0, 3, 2, 1), shape=(2, 4, 8, 3), delay=0, field=3),
    fn("channels first", lambda x: F.scaled_dot_product_attention(*(x.transpose(1, 2),) * 3, band(x.shape[2], 2)).transpose(1, 2),
        delay=0, field=3),
    fn("time first", lambda x: F.scaled_dot_product_attention(*(x.transpose(0, 1) * i for i in (1, 2, 3)), band(x.shape[0],
        2)).transpose(0, 1),
       shape=(9, 2, 6), time=0, delay=0, field=3),
    fn("a residual and a norm", lambda m, x: x + sdpa(lambda y: band(y.shape[1], 3, 1))(m, F.layer_norm(x, (6,))), params=PROJECTIONS,
        **TOKENS,
       delay=1, field=5),
    fn("two layers", lambda m, x: sdpa(lambda y: band(y.shape[1], 2))(m, sdpa(lambda y: band(y.shape[1], 3))(m, x)), params=PROJECTIONS,
        **TOKENS,
       delay=0, field=6),
    fn("queries later than keys", lambda x: F.scaled_dot_product_attention(x[:, 1:], x[:, :-1], x[:, :-1], band(x.shape[1] - 1, 3)),
        **TOKENS, delay=1,
       field=5),
    fn("among joints, frame by frame", lambda x: F.scaled_dot_product_attention(x, x * 2, x), shape=(2, 7, 4, 3), time=1, delay=0,
        field=1),
    fn("among joints, causal in space", lambda x: F.scaled_dot_product_attention(x, x * 2, x, is_causal=True), shape=(2, 7, 4, 3),
        time=1, delay=0),
    fn("among joints, masked", lambda x: F.scaled_dot_product_attention(x, x, x, torch.eye(4).bool() | (torch.arange(4) == 1)), shape=(2,
        7, 4, 3),
       time=1, delay=0),
    fn("to learned keys", lambda m, x: F.scaled_dot_product_attention(x, m.k.expand(x.shape[0], -1, -1), m.v.expand(x.shape[0], -1, -1)),
       params={"k": (1, 4, 6), "v": (1, 4, 3)}, **TOKENS, delay=0, field=1),
]  # fmt: skip


class Attend(nn.Module):
    """``nn.MultiheadAttention`` with a mask."""

    def __init__(self, mask: str, need_weights: bool = False, batch_first: bool = True, **options: Any):
        super().__init__()
        self.layer = nn.MultiheadAttention(6, 2, batch_first=batch_first, **options)
        self.mask, self.need_weights, self.batch_first = mask, need_weights, batch_first
        self.register_buffer("causal", torch.ones(9, 9).triu(1).bool())

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1] if self.batch_first else x.shape[0]
        made = {"buffer": lambda: self.causal, "band": lambda: ~band(t, 3), "ahead": lambda: ~band(t, 2, 1),
                "square": lambda: nn.Transformer.generate_square_subsequent_mask(t, dtype=x.dtype),
                "none": lambda: None}[self.mask]()  # fmt: skip
        hint = {"is_causal": True} if self.mask == "square" else {}
        return self.layer(x, x, x, attn_mask=made, need_weights=self.need_weights, **hint)[0]


class Encoder(nn.Module):
    """``nn.TransformerEncoder`` with a mask."""

    def __init__(self, layers: int = 1, norm_first: bool = False, behind: int | None = 3, activation: str = "relu"):
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, activation=activation, batch_first=True, norm_first=norm_first)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        if self.behind is None:
            return self.layers(x, mask=nn.Transformer.generate_square_subsequent_mask(t, dtype=x.dtype), is_causal=True)
        return self.layers(x, mask=~band(t, self.behind))


class Decoder(nn.Module):
    """``nn.TransformerDecoderLayer``: self-attention among the frames, and attention to a learned memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.memory = nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), nn.Parameter(torch.randn(1, 5, 6))

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype).masked_fill(~band(x.shape[1], 2), -torch.inf)
        return self.layer(x, self.memory.expand(x.shape[0], -1, -1), tgt_mask=mask)


LAYERS = [
    row("mha, a buffer", lambda: Attend("buffer"), **CAUSAL),
    row("mha, a buffer, weights", lambda: Attend("buffer", True), **CAUSAL),
    row("mha, generated", lambda: Attend("square"), **CAUSAL),
    row("mha, a band", lambda: Attend("band"), **TOKENS, delay=0, field=4),
    row("mha, a band, weights", lambda: Attend("band", True), **TOKENS, delay=0, field=4),
    row("mha, a band that looks ahead", lambda: Attend("ahead", True), **TOKENS, delay=1, field=4),
    row("mha, time first", lambda: Attend("band", batch_first=False), shape=(9, 2, 6), time=0, delay=0, field=4),
    row("mha without bias, other sizes", lambda: Attend("band", bias=False, kdim=6, vdim=6), **TOKENS, delay=0, field=4),
    row("encoder", lambda: Encoder(), **TOKENS, delay=0, field=4),
    row("encoder, norm first, gelu", lambda: Encoder(norm_first=True, activation="gelu"), **TOKENS, delay=0, field=4),
    row("encoder of two layers", lambda: Encoder(2), **TOKENS, delay=0, field=7),
    row("encoder, causal", lambda: Encoder(behind=None), **CAUSAL),
    row("decoder with a memory", Decoder, **TOKENS, delay=0, field=3),
]  # fmt: skip

REFUSED = [
    no("full", lambda x: F.scaled_dot_product_attention(x, x, x), "attention to all frames of the clip", "is_causal=True", **TOKENS,
       op="scaled_dot_product_attention"),
    no("full, by a mask", lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(x.shape[1], x.shape[1]).bool()),
        "attention to all frames",
       "is_causal=True", **TOKENS),
    no("full mha", lambda: Attend("none"), "attention to all frames of the clip", "is_causal=True", **TOKENS),
    no("full mha, weights", lambda: Attend("none", True), "attention to all frames of the clip", "is_causal=True", **TOKENS),
    no("full encoder", lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), "attention to all frames of the clip",
        "is_causal=True", **TOKENS),
    no("anticausal", lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(x.shape[1], x.shape[1]).triu().bool()),
        "attention to all frames",
       "is_causal=True", **TOKENS),
    no("a mask of the stream", lambda x: F.scaled_dot_product_attention(x, x, x, (x.sum(-1) > 0).unsqueeze(1)),
        "mask of attention depends on the stream",
       "causal", **TOKENS),
    no("a learned mask of one length", lambda: Fn(lambda m, x: F.scaled_dot_product_attention(x, x, x, m.b), b=(9, 9)),
        "not the same for every frame",
       "causal band", **TOKENS),
    no("keys of the whole clip", lambda: Fn(lambda m, x: F.scaled_dot_product_attention(m.q.expand(x.shape[0], -1, -1), x, x), q=(1, 3,
        6)),
       "between the frames of a stream and something else", "self-attention", **TOKENS),
    no("channels that are time", lambda x: F.scaled_dot_product_attention(x, x, x), "channels that are time|heads or channels are time",
        "dim -2|tokens",
       shape=(2, 6, 9)),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_attention(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", in_turns(LAYERS, 2))
def test_layers(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_causal_attention_is_a_sliding_window_of_the_example() -> None:
    """Beyond the example's length a frame sees as many frames before it as the example has; the notes say so."""
    module = Fn(sdpa(is_causal=True), **PROJECTIONS).eval().double()
    net = co.continual(module, torch.randn(2, 9, 6, dtype=torch.float64), time_dim=1)
    assert any("sliding window" in note for note in net.notes)
    x = torch.randn(2, 23, 6, dtype=torch.float64)
    with torch.no_grad():
        want = Fn(sdpa(lambda y: band(y.shape[1], 8)), **PROJECTIONS).double()
        want.load_state_dict(module.state_dict())
        assert_equal(net(x), want(x))
        assert_equal(streamed(net, x, [3, 0, 0, 5, 0, 1, 11], 1), want(x))
