"""Products of queries and keys without a softmax: retention and linear attention, for ever where weights decay; bands of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, in_turns, no, row, streamed
from tests.convert.test_rules_attention import PROJECTIONS, band, heads, joined

TOKENS: dict = {"shape": (2, 9, 6), "time": 1}
EVER: dict = {**TOKENS, "delay": 0, "field": 1, "other": 90, "params": PROJECTIONS}  # more than a block of frames
F64 = torch.float64


def decays(x: Tensor) -> Tensor:
    return torch.tensor([0.75, 0.96875], dtype=x.dtype).view(2, 1, 1)


def distance(x: Tensor) -> Tensor:
    i = torch.arange(x.shape[1])
    return i[:, None] - i


def weighed(factors: Callable[[nn.Module, Tensor, Tensor], Tensor], after: Any = None) -> Any:
    """``factors(module, products, x)`` of two heads, times the values."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (heads(x @ w) for w in (m.q, m.k, m.v))
        scores = factors(m, (q @ k.transpose(-2, -1)) * 0.5, x)
        return joined((scores if after is None else after(scores)) @ v)

    return run


def powers(x: Tensor) -> Tensor:
    return torch.where(distance(x) >= 0, decays(x) ** distance(x).clamp(min=0), 0.0).to(x.dtype)


def of_nan(m: nn.Module, s: Tensor, x: Tensor) -> Tensor:
    """A published retention: powers of all distances, and zeros where these overflow."""
    d = (decays(x) ** distance(x)) * (distance(x) >= 0).to(x.dtype)
    return s * torch.where(d != d, torch.zeros_like(d), d)


def exponentials(m: nn.Module, s: Tensor, x: Tensor) -> Tensor:
    d = distance(x).to(x.dtype).masked_fill(distance(x) < 0, torch.inf)
    return torch.nan_to_num(torch.exp(d * decays(x).log())) * s


class RetNet(nn.Module):
    """A retention layer with rotary positions, a group norm and a gate."""

    def __init__(self, channels: int = 8, count: int = 2):
        super().__init__()
        self.q, self.k, self.v, self.g, self.o = (nn.Linear(channels, channels) for _ in range(5))
        self.norm, self.count = nn.GroupNorm(count, channels), count
        self.register_buffer("decay", torch.log(1 - 2.0 ** (-2 - torch.arange(count))))

    def turn(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype).repeat_interleave(2)
        turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (heads(f(x), self.count) for f in (self.q, self.k, self.v))
        q, k = self.turn(q), self.turn(k)
        i = torch.arange(t)
        mask = torch.exp((i[:, None] - i).clamp(min=0) * self.decay[:, None, None]).to(x.dtype) * (i[:, None] >= i)
        y = (q @ k.transpose(-2, -1) * mask) @ v
        y = self.norm(joined(y).reshape(b * t, c)).view(b, t, c)
        return self.o(nn.functional.silu(self.g(x)) * y)


def normalised(m: nn.Module, x: Tensor) -> Tensor:
    """Linear attention with positive features, divided by its weights' sum."""
    q, k, v = heads((x @ m.q).exp()), heads((x @ m.k).exp()), heads(x @ m.v)
    scores = torch.einsum("bhid,bhjd->bhij", q, k).tril()
    return joined(torch.einsum("bhij,bhjd->bhid", scores / scores.sum(-1, keepdim=True).clamp(min=1e-6), v))


ROWS = [
    fn("powers", weighed(lambda m, s, x: s * powers(x)), **EVER),
    fn("powers, and zeros for what overflows", weighed(of_nan), **EVER | {"other": 5}),
    fn("exponentials", weighed(exponentials), **EVER),
    fn("factors for each head", weighed(lambda m, s, x: s * (powers(x) * decays(x))), **EVER),
    fn("scaled afterwards", weighed(lambda m, s, x: s * powers(x) / 3), **EVER),
    fn("negative, one frame after the other", weighed(lambda m, s, x: s * torch.where(distance(x) >= 0,
        (-0.5) ** distance(x).clamp(min=0), 0.0).to(x.dtype)), **EVER),
    fn("a lower triangle", weighed(lambda m, s, x: s.tril()), **EVER),
    fn("a mask filled with zeros", weighed(lambda m, s, x: s.masked_fill(distance(x) < 0, 0)), **EVER),
    fn("where, and zeros", weighed(lambda m, s, x: torch.where(distance(x) >= 0, s, 0.0)), **EVER),
    fn("a factor for each query", weighed(lambda m, s, x: s.tril() * (x[..., :1] + 2).unsqueeze(1)), **EVER),
    fn("a factor for each key", weighed(lambda m, s, x: s.tril() / (x[..., 0].exp()).view(x.shape[0], 1, 1, x.shape[1])), **EVER),
    fn("a factor for each place", weighed(lambda m, s, x: s * powers(x) / (torch.arange(x.shape[1])[:, None] + 1.0).to(x.dtype)), **EVER),
    fn("divided by the sum", normalised, **EVER),
    row("RetNet", RetNet, **TOKENS | {"shape": (2, 9, 8)}, delay=0, field=1),
    fn("a band", weighed(lambda m, s, x: s * powers(x) * band(x.shape[1], 3)), **EVER | {"field": 4}),
    fn("a band that looks ahead", weighed(lambda m, s, x: s * band(x.shape[1], 3, 2).to(x.dtype) * (distance(x) + 0.5)),
       **EVER | {"field": 6, "delay": 2}),
    fn("other weights of the whole past", weighed(lambda m, s, x: (s / (distance(x).clamp(min=0) + 1)).tril()),
       **EVER | {"field": 9, "other": 0}),
    fn("zeros that a softmax does not see", weighed(lambda m, s, x: s * band(x.shape[1], 3) - 1e9 * ~band(x.shape[1], 3),
        lambda s: s.softmax(-1)), **EVER | {"field": 4}),
]  # fmt: skip

REFUSED = [
    no("sizes of the weights", lambda x: (lambda s: (s / s.abs().sum(-1, keepdim=True)) @ x)((x @ x.mT).tril()),
       "`abs` compares all frames", "attention", **TOKENS),
    no("each row of the decay normalised", lambda x: ((x @ x.mT) * (lambda d: d / d.sum(-1, keepdim=True))(powers(x)[0])) @ x,
       "not the same for every frame .* multiplies by", "one for each query is multiplied with the outcome", **TOKENS),
    no("growing", lambda x: ((x @ x.mT) * (2.0 ** distance(x).to(x.dtype)).triu()) @ x, "attention to all frames", "causal", **TOKENS),
    no("before a softmax", lambda x: ((x @ x.mT) * powers(x)[0]).softmax(-1) @ x, "by a number for each pair of frames, before a softmax",
       "a mask that is added", **TOKENS),
    no("zeros before a softmax", lambda x: (x @ x.mT).tril().softmax(-1) @ x, "multiplied by 0, which does not hide them",
       "a mask that is added", **TOKENS),
    no("all frames", lambda x: (x @ x.mT) @ x, "attention to all frames of the clip", "is_causal=True", **TOKENS),
    no("decays by data", lambda x: ((x @ x.mT) * ((c := x.sigmoid().log().sum(-1).cumsum(1))[:, :, None] - c[:, None]).tril().exp()) @ x,
       "`sub` compares all frames", "co.scan", **TOKENS),
    no("a sum and a bias", lambda x: ((x @ x.mT).tril() + powers(x)[0]) @ x, "compares all frames", "attention", **TOKENS),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_products(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_a_decay_follows_its_parameter() -> None:
    """Decays that are learned: the stream takes new values, and gradients reach them."""
    module = Fn(weighed(lambda m, s, x: s * torch.where(distance(x) >= 0, m.d.view(2, 1, 1) ** distance(x).clamp(min=0), 0.0)),
                d=(2,), **PROJECTIONS).eval().double()  # fmt: skip
    module.d.data = torch.tensor([0.5, 0.9], dtype=F64)
    net = co.continual(module, torch.randn(2, 9, 6, dtype=F64), time_dim=1)
    x = torch.randn(2, 23, 6, dtype=F64)
    module.d.data.mul_(0.75)
    want, got = module(x), streamed(net, x, [3, 0, 0, 5, 0, 1, 11], 1)
    assert got is not None
    assert_equal(got, want)
    (a,), (b,) = (torch.autograd.grad(y.square().sum(), module.d) for y in (want, got))
    assert_equal(b, a)


def test_it_stays_exact_for_ever() -> None:
    """A decay in single precision: after thousands of frames a stream gives what it gives of the last ones alone."""
    module = Fn(weighed(lambda m, s, x: s * powers(x)), **PROJECTIONS).eval()
    net = co.continual(module, torch.randn(1, 9, 6), time_dim=1)
    x = torch.randn(1, 6000, 6)
    with torch.inference_mode():
        y = net.forward_steps(x)
        assert_equal(y[:, -1], module(x[:, -900:])[:, -1])


def test_softmax_in_a_narrower_type() -> None:
    """A softmax in float32 in a network of float64, as most language models have it: the stream takes it there too."""

    def module_of(scores: Callable[[Tensor], Tensor]) -> nn.Module:
        return Fn(lambda x: scores((x @ x.mT * 3).masked_fill(~band(x.shape[1], 3), -torch.inf)) @ x).eval()

    x = torch.randn(2, 23, 6, dtype=F64)
    for taken in (lambda s: s.softmax(-1, torch.float32).to(F64), lambda s: s.float().softmax(-1).to(F64)):
        module = module_of(taken)
        net = co.continual(module, x[:, :9], time_dim=1)
        with torch.no_grad():
            assert (module(x) - module_of(lambda s: s.softmax(-1))(x)).abs().max() > 1e-10
            assert_equal(net(x), module(x))
            got = streamed(net, x, [3, 0, 0, 5, 0, 1, 11], 1)
        assert got is not None
        assert (got - module(x)).abs().max() < 3e-7  # products in other orders are rounded to float32 in other ways
