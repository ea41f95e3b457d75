"""What depends on the place of a frame in the clip: arange, tables of positions, sinusoids; and constants that depend on its length."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row, streamed

TOKENS: dict = {"shape": (2, 7, 6), "time": 1, "delay": 0, "field": 1}


def sinusoids(x: Tensor) -> Tensor:
    """Sines and cosines of positions, as they stand in many transformers."""
    t, c = x.shape[1], x.shape[2]
    place = torch.arange(t, dtype=x.dtype, device=x.device).unsqueeze(1)
    rate = torch.exp(torch.arange(0, c, 2, dtype=x.dtype) * (-math.log(10000.0) / c))
    return x + torch.stack((torch.sin(place * rate), torch.cos(place * rate)), 2).flatten(1)


def sinusoids_written(x: Tensor) -> Tensor:
    """The same, written into zeros."""
    t, c = x.shape[1], x.shape[2]
    table = torch.zeros(t, c, dtype=x.dtype)
    place = torch.arange(0, t, dtype=x.dtype).unsqueeze(1)
    rate = torch.exp(torch.arange(0, c, 2, dtype=x.dtype) * (-math.log(10000.0) / c))
    table[:, 0::2] = torch.sin(place * rate)
    table[:, 1::2] = torch.cos(place * rate)
    return x + table


def rotary(x: Tensor) -> Tensor:
    """Rotary positions of halves."""
    t, half = x.shape[1], x.shape[2] // 2
    angles = torch.outer(torch.arange(t, dtype=x.dtype), 1.0 / (100.0 ** (torch.arange(half, dtype=x.dtype) / half)))
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), -1)


def rotary_complex(x: Tensor) -> Tensor:
    """Rotary positions as complex numbers."""
    half = x.shape[2] // 2
    angles = torch.outer(torch.arange(x.shape[1], dtype=x.dtype), 1.0 / (100.0 ** (torch.arange(half, dtype=x.dtype) / half)))
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], half, 2)) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(2)


class Encoding(nn.Module):
    """``nn.Transformer``'s tutorial: a buffer of sinusoids, ``pe[:x.size(time)]``."""

    def __init__(self, first: bool = False):
        super().__init__()
        place, rate = torch.arange(150).unsqueeze(1), torch.exp(torch.arange(0, 6, 2) * (-math.log(10000.0) / 6))
        table = torch.stack((torch.sin(place * rate), torch.cos(place * rate)), 2).flatten(1)
        self.first = first
        self.register_buffer("table", table.unsqueeze(1) if first else table.unsqueeze(0))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + (self.table[: x.size(0)] if self.first else self.table[:, : x.size(1)]))


class Learned(nn.Module):
    """An embedding of positions."""

    def __init__(self, how: str, rows: int = 150):
        super().__init__()
        self.how, self.table = how, nn.Embedding(rows, 6)
        self.register_buffer("ids", torch.arange(rows).unsqueeze(0))

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        if self.how == "arange":
            return x + self.table(torch.arange(t, device=x.device))
        if self.how == "expanded":
            return x + self.table(torch.arange(t).unsqueeze(0).expand(x.shape[0], t))
        if self.how == "ids":
            return x + self.table(self.ids[:, :t])
        if self.how == "offset":
            return x + self.table(torch.arange(2, t + 2))
        if self.how == "rows":
            return x + self.table.weight[:t]
        if self.how == "narrow":
            return x + self.table.weight.narrow(0, 1, t)
        return x + self.table(torch.arange(t).clamp(max=9))


ROWS = [
    fn("x + arange", lambda x: x + torch.arange(x.shape[2]), delay=0),
    fn("a ramp from one, in steps", lambda x: x * torch.arange(1, 2 * x.shape[2] + 1, 2, dtype=x.dtype), delay=0),
    fn("arange backwards in value", lambda x: x + torch.arange(0, -x.shape[2], -1), delay=0),
    fn("positions by linspace", lambda x: x + torch.linspace(1, x.shape[2], x.shape[2], dtype=x.dtype), delay=0),
    fn("positions by linspace, two apart", lambda x: x * torch.linspace(-3, 2 * x.shape[2] - 5, x.shape[2]).unsqueeze(0).exp().log(),
        delay=0),
    fn("the parity of a frame", lambda x: torch.where(torch.arange(x.shape[2]) % 2 == 0, x, -x), delay=0),
    fn("the first three frames are others", lambda x: x.masked_fill(torch.arange(x.shape[2]) < 3, 0.0), delay=0),
    fn("positions behind a stride", lambda x: (lambda y: y * torch.arange(y.shape[2], dtype=x.dtype))(x[:, :, ::2]), delay=0),
    fn("positions behind a cut", lambda x: (lambda y: y + torch.arange(y.shape[2]))(x[:, :, 2:-1]), delay=3),
    fn("positions of several channels", lambda x: x + torch.outer(torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype), torch.arange(x.shape[2],
        dtype=x.dtype)),
       delay=0),
    fn("sinusoids", sinusoids, **TOKENS),
    fn("sinusoids written into zeros", sinusoids_written, **TOKENS),
    fn("rotary", rotary, **TOKENS),
    fn("rotary, complex", rotary_complex, **TOKENS, verify=False),
    row("a buffer of sinusoids", Encoding, **TOKENS),
    row("a buffer of sinusoids, time first", lambda: Encoding(True), shape=(7, 2, 6), time=0, delay=0, field=1),
    *(row(f"learned, {how}", lambda how=how: Learned(how), **TOKENS) for how in ("arange", "expanded", "ids", "offset", "rows", "narrow",
        "clamped")),
    row("a learned table of channels first", lambda: Fn(lambda m, x: x + m.p[:, :, : x.shape[2]], p=(1, 3, 150)), delay=0, field=1),
    row("a learned table, added in the middle", lambda: Fn(lambda m, x: (lambda y: y + m.p[:, : y.shape[2]])(torch.conv1d(x, m.w)), w=(4,
        3, 3), p=(4, 150)),
        delay=2, field=3),
    fn("a mask of zeros and ones of rows and frames", lambda x: x * torch.ones(x.shape[0], 1, x.shape[2],
        dtype=x.dtype) + torch.zeros(x.shape[2]), delay=0),
    fn("zeros of a fixed size", lambda x: torch.cat((x, torch.zeros(x.shape[0], 2, x.shape[2], dtype=x.dtype)), 1), delay=0),
    fn("an identity", lambda x: torch.eye(3, dtype=x.dtype) @ x, delay=0, verify=False),
    fn("the length beside a window", lambda x: x.mean(2) * x.shape[2] ** 0.5, windows=True, delay=12),
]  # fmt: skip

REFUSED = [
    no("the length itself", lambda x: x * x.shape[2], "depends on the length of the clip", "a stream has no length"),
    no("positions from 0 to 1", lambda x: x + torch.linspace(0, 1, x.shape[2], dtype=x.dtype), "depends on the length of the clip",
        "fixed number"),
    no("positions backwards", lambda x: x + torch.arange(x.shape[2] - 1, -1, -1), "depends on the length of the clip", "fixed number"),
    no("positions relative to the length", lambda x: x + torch.arange(x.shape[2]) / x.shape[2], "depends on the length of the clip",
        "no length"),
    no("a table of one length", lambda: Fn(lambda m, x: x + m.p, p=(1, 3, 13)), "a value for each of 13 frames", "positions that go on"),
    no("a random mask", lambda x: x * (torch.rand(x.shape[0], 1, x.shape[2]) > 0.5), "random numbers", "leave it out"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_positions(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


@pytest.mark.parametrize("how", ["rows", "arange", "expanded", "ids"])
def test_a_stream_ends_with_its_table(how: str) -> None:
    """Positions are counted for ever; a table has so many. What came before can still be had, and a new stream starts again."""
    net = co.continual(Learned(how, 30).eval().double(), torch.randn(2, 7, 6, dtype=torch.float64), time_dim=1)
    x = torch.randn(2, 33, 6, dtype=torch.float64)
    assert any("positions for 30 frames" in note for note in net.notes)
    y = net.forward_steps(x[:, :30])
    with pytest.raises(co.ShapeMismatch, match="has positions for 30.*clean_state"):
        net.forward_step(x[:, 30])
    with pytest.raises(co.ShapeMismatch, match="has positions for 30"):
        net(x)
    assert_equal(y, net(x[:, :30]))
    assert_equal(streamed(net, x[:, :5], [2, 3], 1), net(x[:, :5]))


def test_positions_do_not_drift() -> None:
    """After a million steps a position is still the whole number that it is."""
    net = co.continual(Fn(lambda x: x + torch.arange(x.shape[2])).eval(), torch.zeros(2, 1, 5))
    for _ in range(4):
        net.forward_steps(torch.zeros(2, 1, 250_000))
    assert net.forward_step(torch.zeros(2, 1)).tolist() == [[1e6], [1e6]]
