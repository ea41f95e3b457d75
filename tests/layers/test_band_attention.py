"""Attention of converted modules, token by token, in chunks and on clips."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from continual.layers.attention.projected import BandAttention
from continual.layers.attention.retention import BandProduct
from tests.contract import check_contract

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biased": {"biased": True},
    "biased, of one head": {"biased": True, "heads": 1},
    "biased, with a gap": {"biased": True, "gap": 2},
    "marked": {"marked": True},
    "capped": {"cap": 3.0, "biased": True},
    "two ahead": {"ahead": 2, "biased": True},
    "two ahead, plain": {"ahead": 2},
    "nothing behind": {"behind": 0},
}


def layer_of(cls: Any, behind: int = 4, ahead: int = 0, heads: int = 3, gap: int | None = None, **options: Any) -> BandAttention:
    """A layer of float64 with random biases, one of which may hide a key."""
    layer: BandAttention = cls(behind, ahead, 5, 2, 0.3, **options)
    if options.get("biased"):
        bias = torch.randn(heads, behind + ahead + 1, dtype=torch.float64)
        if gap is not None:
            bias[:, gap] = layer.nothing
        layer.bias = torch.nn.Parameter(bias)
    return layer


def tokens(layer: BandAttention, frames: int = 13) -> torch.Tensor:
    """Queries, keys, values, and what marks keys."""
    x = torch.randn(2, 3, frames, 12 + layer.marked, dtype=torch.float64)
    if layer.marked:
        hidden = (torch.rand(2, 3, frames) < 0.5) & (torch.arange(frames) % 2 == 1)  # each query sees some key
        x[..., -1] = torch.zeros(2, 3, frames).masked_fill(hidden, -torch.inf)
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_chunks_are_the_clip(kind: str) -> None:
    layer = layer_of(BandAttention, **KINDS[kind])
    check_contract(layer, tokens(layer))


def test_products_of_a_band_too() -> None:
    layer = layer_of(BandProduct, biased=True)
    check_contract(layer, tokens(layer))


def test_a_step_is_that_of_the_general_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for NaN and infinities: what is in the band is seen, and what has left it is not."""
    for options in ({}, {"biased": True}):
        layer = layer_of(BandAttention, **options)
        x = tokens(layer)
        x[0, 1, 3, 11], x[1, 2, 5, 6] = torch.nan, torch.inf
        with torch.no_grad():
            fast = [layer.forward_step(frame) for frame in x.unbind(2)]
            layer.clean_state()
            slow = [layer.forward_steps(frame.unsqueeze(2)) for frame in x.unbind(2)]
        for a, b in zip(fast, slow, strict=True):
            torch.testing.assert_close(a, b.squeeze(2), equal_nan=True)  # type: ignore[union-attr]
