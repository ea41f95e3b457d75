"""Gradients of norms, for every order of dimensions in memory. The truth is the affine form: torch's own backward is wrong in some."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.layers.test_local import randomized

SHAPES = [(2, 3, 5), (2, 3, 1, 4), (2, 3, 4, 1), (1, 3, 4, 4), (2, 3, 1, 1), (2, 3, 1, 4, 1), (2, 3, 4, 1, 4), (2, 3, 2, 4, 4)]
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BatchNorm": lambda dims: (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims](3),
    "InstanceNorm": lambda dims: (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dims](
        3, affine=True, track_running_stats=True
    ),
    "FrozenNorm": lambda dims: co.FrozenNorm(3),
}


def affine(norm: Any, x: Tensor) -> Tensor:
    """What a norm with fixed statistics computes, in operations whose gradients are right."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (x - norm.running_mean.view(shape)) * factor.view(shape) + norm.bias.view(shape)


def by_statistics(norm: Any, x: Tensor) -> Tensor:
    """What batch norm computes in training mode."""
    dims, shape = [d for d in range(x.ndim) if d != 1], (1, -1, *[1] * (x.ndim - 2))
    mean, var = x.mean(dims, keepdim=True), x.var(dims, keepdim=True, correction=0)
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)


def in_memory(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """A tensor whose dimensions lie in this order in memory."""
    return x.permute(order).contiguous().permute([order.index(d) for d in range(x.ndim)])


def orders(dims: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Orders in memory of an input and of a gradient: one of the two as images usually lie, the other in any; of five dimensions a part."""
    usual = [tuple(range(dims)), (0, *range(2, dims), 1)]
    every = list(itertools.permutations(range(dims)))[:: 1 if dims < 5 else 5]
    return itertools.chain(itertools.product(usual, every), itertools.product(every, usual))


def gradients(run: Callable[[Tensor], Tensor], x: Tensor, back: Tensor, norm: nn.Module) -> tuple[Tensor, ...]:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(run(leaf), (leaf, *norm.parameters()), back)


def assert_exact(run: Callable[[Tensor], Tensor], truth: Callable[[Tensor], Tensor], norm: nn.Module, shape: Any) -> None:
    x, back = torch.randn(shape).double(), torch.randn(shape).double()
    want = gradients(truth, x, back, norm)
    for order, order_back in orders(x.ndim):
        for a, b in zip(gradients(run, in_memory(x, order), in_memory(back, order_back), norm), want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=f"input {order}, gradient {order_back}")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_gradients_in_every_memory_layout(name: str, shape: tuple[int, ...]) -> None:
    norm = co.continual(randomized(NORMS[name](len(shape) - 3)).double().eval())
    assert_exact(norm, lambda x: affine(norm, x), norm, shape)
    assert_exact(lambda x: norm.forward_steps(x, update_state=False), lambda x: affine(norm, x), norm, shape)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_gradients_in_training_mode(shape: tuple[int, ...]) -> None:
    norm = co.continual(randomized(NORMS["BatchNorm"](len(shape) - 3)).double()).train()
    assert_exact(norm, lambda x: by_statistics(norm, x), norm, shape)


def test_gradients_of_norms_in_somebodys_code() -> None:
    norm = randomized(nn.BatchNorm2d(3)).double()

    class Somebodys(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x)

    for net in (co.forward_stepping(Somebodys()), co.Lambda(norm, takes_time=True)):
        net = net.eval()
        for run in (net.forward, lambda x, net=net: net.forward_steps(x, update_state=False)):
            assert_exact(run, lambda x: affine(norm, x), norm, (2, 3, 1, 4))


def test_second_derivatives() -> None:
    norm = co.continual(randomized(nn.BatchNorm2d(3)).double().eval())
    x = torch.randn(2, 4, 1, 3).double().movedim(-1, 1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: norm(x).sin(), x)


def test_torch_has_the_error_that_is_worked_around() -> None:
    """When this fails, torch is mended: remove `continual.layers.exact_gradients`, and the section in docs/training.md."""
    norm = randomized(nn.BatchNorm2d(3)).double()
    with pytest.raises(AssertionError):
        assert_exact(norm, lambda x: affine(norm, x), norm, (2, 3, 1, 4))
