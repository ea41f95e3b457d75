"""Masks of attention by what they are, however they were written: of any shape that broadcasts, with biases, for clips of any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, in_turns, no
from tests.convert.test_rules_attention import CAUSAL, PROJECTIONS, TOKENS, band, sdpa
from tests.convert.test_rules_scores import written

BAND: dict = {**TOKENS, "delay": 0, "field": 4, "params": PROJECTIONS}
WHOLE: dict = {**CAUSAL, "params": PROJECTIONS}
LEAST = torch.finfo(torch.float32).min


def places(x: Tensor) -> tuple[Tensor, Tensor]:
    """Queries as a column, keys as a row."""
    i = torch.arange(x.shape[1])
    return i[:, None], i[None]


def counted(ones: Tensor) -> Tensor:
    """Positions by counting ones, compared."""
    place = ones.cumsum(1)
    return (place[:, None, :] <= place[:, :, None]).unsqueeze(1)


def slopes(x: Tensor) -> Tensor:
    return torch.tensor([0.5, 0.125], dtype=x.dtype).view(2, 1, 1)


def in_place(x: Tensor) -> Tensor:
    """The mask of transformers before 4.48."""
    t = x.shape[1]
    mask = torch.full((t, t), torch.finfo(x.dtype).min, dtype=x.dtype)
    mask = torch.triu(mask, diagonal=1)
    mask = mask * (torch.arange(t) > torch.arange(t).reshape(-1, 1))
    return mask[None, None].expand(x.shape[0], 1, -1, -1)


def filled_in_place(x: Tensor) -> Tensor:
    mask = x.new_ones(x.shape[1], x.shape[1]).triu_(1)
    return mask.mul_(-torch.inf).nan_to_num_(0.0, 0.0, -torch.inf)


def flat(m: nn.Module, x: Tensor) -> Tensor:
    """Bloom: heads among the rows, and a bias by the key's place for each of them."""
    b, t, _ = x.shape
    q, k, v = ((x @ w).view(b, t, 2, 3).transpose(1, 2).reshape(b * 2, t, 3) for w in (m.q, m.k, m.v))
    place = (torch.ones(b, t).cumsum(-1) - 1).to(x.dtype)[:, None, :]
    alibi = (slopes(x)[:, :, 0] * place).reshape(b * 2, 1, t)
    scores = torch.baddbmm(alibi, q, k.transpose(1, 2), alpha=3**-0.5).view(b, 2, t, t)
    scores = scores + torch.full((t, t), LEAST, dtype=x.dtype).triu(1)[None, None]
    weights = scores.softmax(-1).view(b * 2, t, t)
    return (weights @ v).view(b, 2, t, 3).transpose(1, 2).reshape(b, t, 6)


ROWS = [
    fn("rows alike", sdpa(lambda x: band(x.shape[1], 3)[None, None].expand(x.shape[0], 1, -1, -1)), **BAND),
    fn("rows and heads alike", sdpa(lambda x: torch.zeros(x.shape[0], 2, x.shape[1], x.shape[1], dtype=x.dtype).masked_fill(
        ~band(x.shape[1], 3), LEAST)), **BAND),
    fn("where, with the least number", sdpa(lambda x: torch.where(band(x.shape[1], 3), 0.0, LEAST).to(x.dtype)), **BAND),
    fn("tril and triu", sdpa(lambda x: torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril().triu(-3)), **BAND),
    fn("a logarithm", sdpa(lambda x: torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril().log()), **WHOLE),
    fn("transformers 4", sdpa(in_place), **WHOLE),
    fn("filled in place", sdpa(filled_in_place), **WHOLE),
    fn("counted", sdpa(lambda x: counted(torch.ones(x.shape[0], x.shape[1]))), **WHOLE),
    fn("counted, of x.new_ones", sdpa(lambda x: counted(x.new_ones(x.shape[0], x.shape[1]))), **WHOLE),
    fn("counted, of ones like", sdpa(lambda x: counted(torch.ones_like(x[..., 0]))), **WHOLE),
    fn("counted in a band", written(lambda m, s, x: s.masked_fill(~(counted(torch.ones_like(x[..., 0])) & band(x.shape[1], 3)), LEAST)),
       **BAND),
    fn("x.new_ones", sdpa(lambda x: x.new_ones(x.shape[1], x.shape[1]).tril().bool()), **WHOLE),
    fn("keys that all count", sdpa(lambda x: band(x.shape[1], 3) & torch.ones_like(x[..., 0]).bool()[:, None, None]), **BAND),
    fn("no key is padding", written(lambda m, s, x: s.masked_fill(~band(x.shape[1], 3), LEAST)
        + (1 - torch.ones_like(x[..., :1]).transpose(1, 2).unsqueeze(1)) * LEAST), **BAND),
    fn("ALiBi by the key's place", sdpa(lambda x: (slopes(x) * places(x)[1]).masked_fill(~band(x.shape[1], 3), LEAST)), **BAND),
    fn("ALiBi up to the last key", sdpa(lambda x: (slopes(x) * (places(x)[1] - x.shape[1] + 1)).masked_fill(~band(x.shape[1], 3), LEAST)),
       **BAND),
    fn("a bias of the query's place", written(lambda m, s, x: s + places(x)[0] * 0.3
        + places(x)[1].to(x.dtype).masked_fill(~band(x.shape[1], 3), LEAST)), **BAND),
    fn("ALiBi among the rows", flat, **WHOLE),
    fn("a band beyond the example, on both sides", sdpa(lambda x: band(x.shape[1], 11, 12)), params=PROJECTIONS, **TOKENS, delay=12,
       field=24, other=9),
    fn("to learned keys, of which one is hidden", lambda m, x: F.scaled_dot_product_attention(x, m.k.expand(x.shape[0], -1, -1),
        m.k.expand(x.shape[0], -1, -1), (torch.arange(4) != 2).expand(x.shape[0], x.shape[1], 4)), params={"k": (1, 4, 6)}, **TOKENS,
       delay=0, field=1),
    fn("scores with a soft cap", written(lambda m, s, x: ((s / 2).tanh() * 2).masked_fill(~band(x.shape[1], 3), -torch.inf)), **BAND),
    fn("a cap and a sign", written(lambda m, s, x: ((s * 0.7).tanh() * -3).masked_fill(~band(x.shape[1], 3), LEAST)), **BAND),
    fn("places from the end", sdpa(lambda x: (lambda d: (d >= 0) & (d < 4))((x.shape[1] - 1 - torch.arange(x.shape[1]).flip(0))[:, None]
        - torch.arange(x.shape[1]))), **BAND),
]  # fmt: skip

REFUSED = [
    no("biases that the length scales", lambda x: F.scaled_dot_product_attention(x, x, x, ((places(x)[1] - places(x)[0]) / x.shape[1])
        .to(x.dtype).masked_fill(~band(x.shape[1], 20), LEAST)), "depends on the length of the clip: for the score of a frame 8 steps away",
       "the distance of the frames alone", **TOKENS),
    no("a window of half the clip", lambda x: F.scaled_dot_product_attention(x, x, x, band(x.shape[1], x.shape[1] // 2)),
       "depends on the length of the clip: a frame sees 4 frames before it in clips of 9 frames, and 18", "a window of so many frames",
       **TOKENS),
    no("frames that all see", lambda x: F.scaled_dot_product_attention(x, x, x, (places(x)[0] >= places(x)[1]) | (places(x)[1] < 3)),
       "frame 1 does not see frame 3, 2 after it, and others see", "causal band", **TOKENS),
    no("other learned keys for later frames", lambda: Fn(lambda m, x: F.scaled_dot_product_attention(x, m.k.expand(x.shape[0], -1, -1),
        m.k.expand(x.shape[0], -1, -1), torch.arange(4) <= places(x)[0]), k=(1, 4, 6)), "differs from frame to frame",
       "the same for all frames", **TOKENS),
    no("counted, all seen", lambda x: F.scaled_dot_product_attention(x, x, x, counted(torch.ones_like(x[..., 0]))[:, 0] >= 0),
       "attention to all frames of the clip", "is_causal=True", **TOKENS),
    no("a mask of values", lambda x: F.scaled_dot_product_attention(x, x, x, counted((x[..., 0] > -9).long())[:, 0]),
       "compares all frames", "is_causal=True", **TOKENS),
    no("written into", lambda x: F.scaled_dot_product_attention(x, x, x, counted(torch.ones_like(x[..., 0]).mul_(x[..., 1]))[:, 0]),
       "compares all frames", "is_causal=True", **TOKENS),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_masks(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_a_bias_follows_its_parameter() -> None:
    """Biases by the key's place, scaled by a parameter: the stream takes its new value."""

    def mask(m: Any, x: Tensor) -> Tensor:
        return (m.slope * places(x)[1]).masked_fill(~band(x.shape[1], 3), LEAST)

    module = Fn(lambda m, x: F.scaled_dot_product_attention(x, x * 2, x.sin(), mask(m, x)), slope=(1,)).eval().double()
    net = co.continual(module, torch.randn(2, 9, 6, dtype=torch.float64), time_dim=1)
    x = torch.randn(2, 23, 6, dtype=torch.float64)
    with torch.no_grad():
        before = module(x)
        assert_equal(net(x), before)
        module.slope.add_(0.5)
        assert_equal(net(x), module(x))
        assert not torch.allclose(before, module(x))
