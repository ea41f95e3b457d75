"""Gradients through converted norms, in the layouts of memory in which torch's own backward of a batch norm is wrong."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.layers.test_local import randomized
from tests.layers.test_norm_gradients import in_memory


class Affine(nn.Module):
    """What a norm with running statistics computes, in operations whose gradients are right."""

    def __init__(self, norm: Any):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        factor = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        return (x - self.norm.running_mean.view(shape)) * factor.view(shape) + self.norm.bias.view(shape)


class TimeLast(nn.Module):
    """A norm between convolutions over time, which is the last dimension of images of one row."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.before, self.norm, self.after = nn.Conv2d(2, 3, (1, 3)), norm, nn.Conv2d(3, 3, (1, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.norm(self.before(x)))


class Permuted(nn.Module):
    """A norm over channels that are the third dimension of the clip, and a product that takes them away."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm, self.weight = norm, nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, S)
        y = self.norm(x.permute(0, 2, 1, 3))
        return torch.einsum("btcs,kc->btks", (y * torch.sigmoid(y)).permute(0, 2, 1, 3), self.weight)


class OfFrames(nn.Module):
    """A norm of every frame of its own, in the batch."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm, self.after = norm, nn.Conv1d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        y = self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.after(y.flatten(2).transpose(1, 2))


def instance_norm() -> nn.Module:
    return randomized(nn.InstanceNorm2d(3, affine=True, track_running_stats=True))


CASES: dict[str, tuple[Callable[[nn.Module], nn.Module], Callable[[], nn.Module], tuple[int, ...], int]] = {
    "time last": (TimeLast, lambda: randomized(nn.BatchNorm2d(3)), (2, 2, 1, 30), 3),
    "time last, instance norm": (TimeLast, instance_norm, (2, 2, 1, 30), 3),
    "permuted": (Permuted, lambda: randomized(nn.BatchNorm2d(2)), (2, 17, 2, 2), 1),
    "permuted, one column": (Permuted, lambda: randomized(nn.BatchNorm2d(2)), (2, 17, 2, 1), 1),
    "of frames": (OfFrames, lambda: randomized(nn.BatchNorm2d(3)), (2, 13, 3, 2, 1), 1),
    "of frames, instance norm": (OfFrames, instance_norm, (2, 13, 3, 1, 2), 1),
}
SPLITS = {"one chunk": (100,), "steps": (1,) * 30, "a first chunk without output": (8, 100), "three": (8, 1, 100)}


def gradients(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weight = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    return list(torch.autograd.grad((y * weight).sum(), leaves))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_converted_norms(case: str, split: str) -> None:
    build, make, shape, dim = CASES[case]
    norm = make()
    module, truth = build(norm).double().eval(), build(Affine(norm)).double().eval()
    truth._parameters.update(module._parameters)
    truth._modules.update({name: child for name, child in module.named_children() if name != "norm"})
    net = co.continual(module, torch.randn(shape).double(), time_dim=dim)
    parameters = [p for _, p in sorted(module.named_parameters())]
    every = list(itertools.permutations(range(len(shape))))
    for order in every[::5] if split == "one chunk" else (every[0], every[-1]):
        leaf = in_memory(torch.randn(shape).double(), order).requires_grad_()
        want = gradients(truth(leaf), [leaf, *parameters])
        for y in (net(leaf), streamed(net, leaf, SPLITS[split], dim)):
            for a, b in zip(gradients(y, [leaf, *parameters]), want, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def streamed(net: Any, x: Tensor, split: tuple[int, ...], dim: int) -> Tensor:
    net.clean_state()
    outputs, at = [], 0
    while at < x.shape[dim]:
        n = min(split[len(outputs)], x.shape[dim] - at)
        outputs.append(net.forward_steps(x.narrow(dim, at, n), pad_end=at + n == x.shape[dim]))
        at += n
    return torch.cat([y for y in outputs if y is not None], net.output_time_dims[0])
