"""Positions of endless streams: right at the start, and right after ten million steps."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from continual.layers.positions.fixed_point_angles import angles, geometric
from tests.contract import assert_equal, check_contract, check_gradients

POSITIONS: dict[str, Any] = {
    "learned": lambda: co.RecyclingPositionalEncoding(6, 5),
    "cyclic": lambda: co.RecyclingPositionalEncoding(6, 4, learned=False),
    "sinusoidal": lambda: co.SinusoidalPositionalEncoding(6),
    "sinusoidal, odd": lambda: co.SinusoidalPositionalEncoding(7, base=100.0),
    "rotary": lambda: co.RotaryPositionalEncoding(6),
    "rotary, heads": lambda: co.RotaryPositionalEncoding(12, heads=3, base=50.0),
    "rotary, interleaved": lambda: co.RotaryPositionalEncoding(8, heads=2, interleaved=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", POSITIONS)
def test_keeps_the_contract(name: str, dtype: torch.dtype):
    net = POSITIONS[name]().to(dtype).eval()
    clip = torch.randn(2, net.channels, 14, dtype=dtype)
    check_contract(net, clip)
    check_gradients(net, clip)


def at(net: Any, clock: int, channels: int) -> torch.Tensor:
    """What is added to zeros, or made of ones, at this step of a stream."""
    step = torch.zeros(1, channels, dtype=torch.float64)
    state = net.init_state(step)
    state.clock = state.node.n_in = state.node.n_out = clock
    return net.step(step, state)[0][0]


@pytest.mark.parametrize("clock", [0, 1, 1000, 10_000_000, 10**12])
def test_sinusoids_are_exact_for_ever(clock: int):
    """Against sines of 60 digits; at 1e12 steps they are still right to 1e-6."""
    found = at(co.SinusoidalPositionalEncoding(8), clock, 8)
    with localcontext() as context:
        context.prec = 60
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
        radians = [(clock * (-(Decimal(10000).ln()) * i / 4).exp()) % (2 * pi) for i in range(4)]
    turns = torch.tensor([float(r) for r in radians], dtype=torch.float64)
    expected = torch.stack((turns.sin(), turns.cos()), 1).flatten()
    assert (found - expected).abs().max() < (1e-11 if clock <= 10**7 else 1e-6)


def test_no_overflow():
    """A clock beyond int64 wraps around whole turns: steps go on as if nothing were."""
    frequencies = geometric(8, 10000.0)
    step = angles(frequencies, 1, 1) - angles(frequencies, 0, 1)
    for clock in (2**62, 2**63 - 1, 2**63, 2**64 + 5, 10**30):
        moved = angles(frequencies, clock + 1, 1) - angles(frequencies, clock, 1)
        assert (torch.remainder(moved - step + 1, 2 * torch.pi) - 1).abs().max() < 1e-12


def test_vectors_recur():
    net = co.RecyclingPositionalEncoding(6, 5).eval()
    for clock in (0, 3, 7, 10_000_003):
        assert_equal(at(net.double(), clock, 6), net.pe.weight[clock % 5])


def test_cyclic_positions_lie_on_a_circle():
    """They are distinct, and their inner products depend on the distance along the circle alone."""
    pattern = co.RecyclingPositionalEncoding(16, 9, learned=False).pe.pattern.double()
    products = pattern @ pattern.T
    assert products.fill_diagonal_(0).max() < 7.9
    for distance in range(1, 9):
        around = products[torch.arange(9), (torch.arange(9) + distance) % 9]
        assert (around - around[0]).abs().max() < 1e-5


def test_the_start_of_clips_moves_in_training_alone():
    net = co.RecyclingPositionalEncoding(4, 5, forward_update_index_steps=2)
    clip = torch.zeros(1, 4, 3)
    vectors = net.pe.weight
    starts = [net(clip)[0, :, 0], net(clip)[0, :, 0], net(clip, update_index_steps=0)[0, :, 0], net(clip)[0, :, 0]]
    for start, index in zip(starts, (0, 2, 4, 4), strict=True):
        assert torch.equal(start, vectors[index])
    net.eval()
    assert torch.equal(net(clip)[0, :, 0], vectors[0])
    assert torch.equal(net.forward_step(clip[:, :, 0])[0], vectors[0])


def test_rotary_products_depend_on_distances():
    net = co.RotaryPositionalEncoding(8, interleaved=True).double()
    q, k = torch.randn(2, 8, dtype=torch.float64)
    turned = net(torch.stack((q, k)).unsqueeze(2).expand(2, 8, 50))
    products = turned[0].T @ turned[1]
    for distance in (-7, 0, 13):
        along = products.diagonal(distance)
        assert (along - along[0]).abs().max() < 1e-12


def test_keys_of_checkpoints():
    assert list(co.RecyclingPositionalEncoding(4, 5).state_dict()) == ["pe.weight"]
    assert list(co.RecyclingPositionalEncoding(4, 5, learned=False).state_dict()) == ["pe.pattern"]
    assert list(co.SinusoidalPositionalEncoding(4).state_dict()) == []


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: co.RecyclingPositionalEncoding(4, 0), ValueError, "at least 1, got 4 and 0"),
    (lambda: co.RotaryPositionalEncoding(6, heads=2), ValueError, "6 channels make no 2 heads of an even number"),
    (
        lambda: nn.Sequential(co.SinusoidalPositionalEncoding(4))[0].forward_step(torch.zeros(2, 5)),
        co.ShapeMismatch,
        "expects steps (B, 4), got (2, 5)",
    ),
    (
        lambda: co.RecyclingPositionalEncoding(4, 3).forward_step(torch.zeros(2, 4).double()),
        co.ShapeMismatch,
        "weights are torch.float32, the step is torch.float64",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refusals(make: Any, error: type[Exception], message: str):
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
