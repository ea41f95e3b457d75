"""Masks that hide keys by themselves, beside a causal band: lengths of the rows, and inputs that mark padding."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.test_rules_attention import band, heads, joined
from tests.programs.rows import check_rows

F64 = torch.float64


class Masked(nn.Module):
    """Self-attention in a band of 5 frames, to keys that count."""

    def __init__(self, how: str):
        super().__init__()
        self.qkv, self.out, self.how = nn.Linear(8, 24), nn.Linear(8, 8), how

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        t, how = x.shape[1], self.how
        keep = given if given.dtype == torch.bool else torch.arange(t)[None] < given[:, None]
        seen = band(t, 4)
        q, k, v = (heads(y) for y in self.qkv(x).chunk(3, -1))
        if how == "and":
            y = F.scaled_dot_product_attention(q, k, v, seen & keep[:, None, None])
        elif how == "added":
            bias = (
                torch.zeros(t, t, dtype=x.dtype).masked_fill(~seen, -torch.inf) + (1.0 - keep[:, None, None].to(x.dtype)) * -1e9
            )
            y = F.scaled_dot_product_attention(q, k, v, bias)
        elif how == "biased":
            i, least = torch.arange(t), torch.finfo(x.dtype).min
            bias = torch.tensor([0.5, 0.25], dtype=x.dtype).view(2, 1, 1) * (i - i[:, None])
            bias = bias.masked_fill(~keep[:, None, None], least).masked_fill(~seen, -torch.inf)
            y = F.scaled_dot_product_attention(q, k, v, bias)
        elif how == "ahead":
            y = F.scaled_dot_product_attention(q, k, v, band(t, 3, 1) & keep[:, None, None])
        else:
            hidden = ~(keep[:, None, None] & seen)
            y = ((q @ k.mT) * 0.5).masked_fill(hidden, -torch.inf if how == "filled" else torch.finfo(x.dtype).min).softmax(
                -1
            ) @ v
        return self.out(joined(y))


class Encoder(nn.Module):
    """``nn.TransformerEncoderLayer``, causal, with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        t = x.shape[1]
        return self.layer(x, src_mask=~band(t, t), src_key_padding_mask=torch.arange(t)[None] >= lengths[:, None])


def made(module: nn.Module, marks: bool) -> tuple[nn.Module, Any]:
    torch.manual_seed(3)
    module = module.eval().double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    given = torch.ones(2, 9, dtype=torch.bool) if marks else torch.tensor([7, 9])
    return module, co.continual(module, (torch.randn(2, 9, 8, dtype=F64), given), time_dim=(1, 1 if marks else None))


def clip(frames: int, marks: bool) -> tuple[Tensor, Tensor]:
    """A clip in which every window has a key that counts."""
    torch.manual_seed(frames)
    given = torch.rand(2, frames) > 0.6
    given[:, ::2] = True
    return torch.randn(2, frames, 8, dtype=F64), given if marks else torch.tensor([frames - 3, frames])


def check(net: Any, module: nn.Module, frames: int, marks: bool) -> None:
    x, given = clip(frames, marks)
    with torch.no_grad():
        want = module(x, given)
        assert_equal(net(x, given), want)
        for seed in range(3):
            rng, at, found = random.Random(seed), 0, list[Tensor]()
            net.clean_state()
            while at < frames:
                size = min(rng.randint(1, 4), frames - at)
                part = given[:, at : at + size] if marks else given
                y = net.forward_steps(x[:, at : at + size], part, pad_end=at + size == frames)
                found += [] if y is None else [y]
                at += size
            assert_equal(torch.cat(found, 1), want)


@pytest.mark.parametrize("marks", [False, True])
@pytest.mark.parametrize("how", ["and", "added", "biased", "ahead", "filled"])
def test_keys_that_count(how: str, marks: bool) -> None:
    module, net = made(Masked(how), marks)
    for frames in (9, 21):
        check(net, module, frames, marks)
    assert net.delay == (1 if how == "ahead" else 0)


def test_a_layer_with_padding() -> None:
    module, net = made(Encoder(), False)
    check(net, module, 9, False)


def test_hidden_frames_do_not_matter() -> None:
    """What is hidden may be anything, NaN included."""
    _, net = made(Masked("and"), True)
    x, keep = clip(21, True)
    other = x.masked_fill(~keep.unsqueeze(-1), torch.nan)
    with torch.no_grad():
        want = net.forward_steps(x, keep)
        net.clean_state()
        got = net.forward_steps(other, keep)
    assert_equal(got[keep], want[keep])


def test_the_contract_and_programs() -> None:
    for marks in (False, True):
        _, net = made(Masked("biased"), marks)
        co.verify(net, clip(15, marks))
    check_rows(net, clip(15, True), forward=False)
    check_rows(net, clip(15, True), 3, forward=False, fused=True)


def test_frames_that_see_none() -> None:
    """The least number instead of -inf: a softmax of it alone is a mean over all hidden frames, which no stream has."""
    with pytest.raises(co.NotStreamable, match=r"a mean over all hidden frames of the clip[\s\S]*-inf for what is beyond"):
        made(Masked("least"), True)


@pytest.mark.parametrize(
    "mask",
    [
        lambda x, n: band(x.shape[1], 4) & (torch.arange(x.shape[1])[:, None] < n[:, None, None]),
        lambda x, n: band(x.shape[1], 4) ^ (torch.arange(x.shape[1])[None] < n[:, None])[:, None],
        lambda x, n: (band(x.shape[1], 4) * n[:, None, None]).bool(),
    ],
    ids=["queries", "either", "numbers"],
)
def test_refused(mask: Any) -> None:
    """Masks that depend on an input in another way."""

    class Other(nn.Module):
        def forward(self, x: Tensor, n: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x * 2, x.sin(), mask(x, n))

    with pytest.raises(co.NotStreamable, match=r"mask of attention depends on the stream[\s\S]*one of whole keys"):
        co.continual(Other().eval(), (torch.randn(2, 9, 8), torch.tensor([7, 9])), time_dim=(1, None))


def test_a_mask_of_pairs_does_not_leave() -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return band(x.shape[1], 4) & (x > 0)[:, None]

    with pytest.raises(co.NotStreamable, match="compares all frames of the clip with each other"):
        co.continual(Pairs().eval(), torch.randn(2, 9), time_dim=1)
