"""The cores of linear recurrences: against loops over time, at decays that underflow, and with gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from continual.layers.linear_recurrent.diagonal import SMALL, diagonal
from continual.layers.linear_recurrent.outer import delta_rule, gated_outer


def looped(decay: Tensor, inputs: Tensor, h: Tensor) -> Tensor:
    states = []
    for t in range(inputs.shape[1]):
        h = decay[:, min(t, decay.shape[1] - 1)] * h + inputs[:, t]
        states.append(h)
    return torch.stack(states, 1)


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 31, 64, 130])
@pytest.mark.parametrize("size", [3, SMALL])
def test_diagonal(steps: int, size: int):
    torch.manual_seed(steps)
    decay, inputs, start = (
        torch.rand(2, steps, size).double(),
        torch.randn(2, steps, size).double(),
        torch.randn(2, size).double(),
    )
    states, last = diagonal(decay, inputs, start)
    torch.testing.assert_close(states, looped(decay, inputs, start), atol=1e-12, rtol=0)
    torch.testing.assert_close(last, states[:, -1], atol=0, rtol=0)


def test_diagonal_with_one_decay_for_all_steps():
    decay, inputs, start = torch.rand(1, 1, 4).double(), torch.randn(3, 50, 4).double(), torch.randn(3, 4).double()
    torch.testing.assert_close(
        diagonal(decay, inputs, start)[0], looped(decay.expand(3, 50, 4), inputs, start), atol=1e-12, rtol=0
    )


def test_diagonal_at_decays_that_underflow():
    decay = torch.cat((torch.full((1, 30, 2), 1e-30), torch.ones(1, 3, 2), torch.zeros(1, 30, 2)), 1)
    inputs, start = torch.randn(1, 63, 2), torch.randn(1, 2)
    decay.requires_grad_()
    states, _ = diagonal(decay, inputs, start)
    torch.testing.assert_close(states, looped(decay, inputs, start), atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(states.sum(), decay)
    torch.testing.assert_close(gradient, torch.autograd.grad(looped(decay, inputs, start).sum(), decay)[0], atol=1e-5, rtol=1e-5)


def outer_loop(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    outs = []
    for t in range(q.shape[1]):
        memory = log_decay[:, t].exp().unsqueeze(3) * memory + k[:, t].unsqueeze(3) * v[:, t].unsqueeze(2)
        outs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], memory))
    return torch.stack(outs, 1), memory


def delta_loop(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    outs = []
    for t in range(q.shape[1]):
        held = torch.einsum("bhk,bhkv->bhv", k[:, t], memory)
        memory = memory + k[:, t].unsqueeze(3) * (beta[:, t] * (v[:, t] - held)).unsqueeze(2)
        outs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], memory))
    return torch.stack(outs, 1), memory


def given(steps: int, channels: int) -> tuple[Tensor, ...]:
    torch.manual_seed(steps)
    q, k, v = (torch.randn(2, steps, 3, n, dtype=torch.float64) for n in (5, 5, 4))
    gate = torch.nn.functional.logsigmoid(3 * torch.randn(2, steps, 3, channels, dtype=torch.float64))
    return q, torch.nn.functional.normalize(k, dim=-1), v, gate, torch.randn(2, 3, 5, 4, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 5, 16, 17, 40, 70])
@pytest.mark.parametrize("channels", [1, 5])
def test_outer_products(steps: int, channels: int):
    q, k, v, gate, start = given(steps, channels)
    for got, want in zip(gated_outer(q, k, v, gate, start), outer_loop(q, k, v, gate, start), strict=True):
        torch.testing.assert_close(got, want, atol=1e-11, rtol=0)


@pytest.mark.parametrize("steps", [1, 5, 16, 17, 40])
def test_delta_rule(steps: int):
    q, k, v, gate, start = given(steps, 1)
    for got, want in zip(delta_rule(q, k, v, gate.exp(), start), delta_loop(q, k, v, gate.exp(), start), strict=True):
        torch.testing.assert_close(got, want, atol=1e-11, rtol=0)


@pytest.mark.parametrize("channels", [1, 5])
def test_decays_that_underflow_and_their_gradients_are_finite(channels: int):
    q, k, v, gate, start = (t.float() for t in given(40, channels))
    gate = (gate * 200).requires_grad_()
    y, _ = gated_outer(q, k, v, gate, start)
    want, _ = outer_loop(q, k, v, gate, start)
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    (got,) = torch.autograd.grad(y.sum(), gate)
    torch.testing.assert_close(got, torch.autograd.grad(want.sum(), gate)[0], atol=1e-4, rtol=1e-4)


def test_the_cores_have_the_gradients_of_loops():
    q, k, v, gate, start = (t.requires_grad_() for t in given(21, 5))
    beta = gate[..., :1].exp()
    for core, loop, fourth in ((gated_outer, outer_loop, gate), (delta_rule, delta_loop, beta)):
        leaves = (q, k, v, gate, start)
        got = torch.autograd.grad(core(q, k, v, fourth, start)[0].sum(), leaves, retain_graph=True)
        want = torch.autograd.grad(loop(q, k, v, fourth, start)[0].sum(), leaves, retain_graph=True)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
