"""Matrices of weights for all pairs of frames, in products with the clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.convert.rows import No, Row, check_refused, check_row, fn, no


def distance(n: int) -> Tensor:
    return torch.arange(n)[:, None] - torch.arange(n)


def band(weights: Tensor, n: int, ahead: int = 0) -> Tensor:
    """A matrix ``(n, n)`` of a weight for each distance, zero elsewhere."""
    place = distance(n) + ahead
    return torch.where((place >= 0) & (place < len(weights)), weights[place.clamp(0, len(weights) - 1)], 0.0)


def heads(m: nn.Module, x: Tensor) -> Tensor:
    y = x.unflatten(2, (2, 3)).transpose(1, 2)
    return (band(m.k, x.shape[1]) @ y).transpose(1, 2).flatten(2)


FILTER = {"k": (4,)}
TOKENS: dict = {"shape": (2, 12, 6), "time": 1, "field": 4}
ROWS = [
    fn("a product", lambda m, x: band(m.k, x.shape[1]) @ x, params=FILTER, delay=0, **TOKENS),
    fn("a product that looks ahead", lambda m, x: band(m.k, x.shape[1], 2) @ x, params=FILTER, delay=2, **TOKENS),
    fn("a product of heads", heads, params=FILTER, delay=0, **TOKENS),
    fn("frames in the last dimension", lambda m, x: x @ band(m.k, x.shape[2]).t(), params=FILTER, shape=(2, 3, 12), delay=0, field=4),
    fn("einsum", lambda m, x: torch.einsum("ts,bsc->btc", band(m.k, x.shape[1]), x), params=FILTER, delay=0, **TOKENS),
    fn("einsum, transposed, of joints", lambda m, x: torch.einsum("bctv,ts->bvsc", x, band(m.k, x.shape[2]).t()), params=FILTER,
       shape=(2, 3, 11, 4), delay=0, field=4),
    fn("einsum without channels", lambda m, x: torch.einsum("ts,bs->bt", band(m.k, x.shape[1]), x), params=FILTER, shape=(2, 12), time=1,
       delay=0, field=4),
    fn("sums so far", lambda x: torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril() @ x, shape=(2, 12, 6), time=1, delay=0),
]  # fmt: skip
REFUSED = [
    no("two-sided weights", lambda x: 1 / (1 + distance(x.shape[1]).to(x.dtype) ** 2) @ x, "wait for the last of them", "output=k",
       shape=(2, 12, 6), time=1),
    no("means so far", lambda x: (distance(x.shape[1]) >= 0).to(x.dtype) / (torch.arange(x.shape[1])[:, None] + 1) @ x,
       "not the same for every frame", "multiplied with the outcome", shape=(2, 12, 6), time=1),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_weights_by_distance_are_filters(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_no_stream_has(case: No) -> None:
    check_refused(case)
