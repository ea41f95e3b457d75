"""`co.calibrate`: norms over time with statistics measured on clips."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import continual as co
from tests.contract import assert_equal, check_contract, check_layer

C1, C2, C3 = (1, 4, 9), (1, 4, 9, 5), (1, 4, 9, 3, 5)
NORMS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "group 1d": (lambda: nn.GroupNorm(2, 4), C1),
    "group 2d": (lambda: nn.GroupNorm(1, 4, eps=0.1), C2),
    "group 3d": (lambda: nn.GroupNorm(4, 4, affine=False), C3),
    "instance 1d": (lambda: nn.InstanceNorm1d(4), C1),
    "instance 2d": (lambda: nn.InstanceNorm2d(4, affine=True), C2),
    "instance 3d": (lambda: nn.InstanceNorm3d(4, eps=0.1), C3),
    "layer, time": (lambda: nn.LayerNorm(9, elementwise_affine=False), C1),
    "layer, channels and time": (lambda: nn.LayerNorm((4, 9, 5), elementwise_affine=False), C2),
}


@pytest.mark.parametrize("name", NORMS)
def test_agrees_on_the_clip_it_was_calibrated_on(name: str):
    make, shape = NORMS[name]
    norm = make()
    for p in norm.parameters():
        nn.init.normal_(p)
    net = nn.Sequential(nn.Identity(), nn.Sequential(norm)).double()
    clip = torch.randn(shape, dtype=torch.float64) * 2 + 3
    frozen = co.calibrate(net, clip)
    assert type(net[1][0]) is type(norm)
    assert type(frozen[1][0]) is co.FrozenNorm
    assert_equal(frozen(clip), net(clip))
    stream = co.continual(frozen)
    assert (stream.delay, stream.receptive_field, stream.unbounded_memory) == (0, 1, False)
    other = torch.randn(3, *shape[1:], dtype=torch.float64)
    assert (frozen(other) - net(other)).abs().max() > 0.1  # another function elsewhere
    check_contract(stream, other, frozen)
    assert co.verify(stream, other, frozen).passed


def test_statistics_are_the_average_of_all_clips():
    norm = nn.InstanceNorm1d(4).double()
    clips = [torch.randn(2, 4, 9, dtype=torch.float64) + 1, 3 * torch.randn(3, 4, 17, dtype=torch.float64)]
    frozen = co.calibrate(norm, (c for c in clips))
    rows = [row for c in clips for row in c]
    assert_equal(frozen.running_mean, torch.stack([r.mean(1) for r in rows]).mean(0))
    assert_equal(frozen.running_var, torch.stack([r.var(1, correction=0) for r in rows]).mean(0))


def test_a_network():
    """Behind each other, shared, parametrised, in training mode, with what needs no calibration."""
    shared = nn.GroupNorm(2, 4)
    parametrised = weight_norm(nn.GroupNorm(1, 4), dim=None)
    no_bias = nn.GroupNorm(1, 4)
    no_bias.bias = None
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), shared, nn.ReLU(), nn.Sequential(nn.Conv1d(4, 4, 3), nn.Dropout(), parametrised), nn.BatchNorm1d(4),
        no_bias, nn.InstanceNorm1d(4, track_running_stats=True),
    ).double()  # fmt: skip
    net.train()
    net[3].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    clip = torch.randn(1, 2, 30, dtype=torch.float64)
    frozen = co.calibrate(net, clip)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    flags = {name: m.training for name, m in net.named_modules()}
    assert all(m.training == flags[name] for name, m in frozen.named_modules())
    assert not any(m._forward_pre_hooks for m in frozen.modules())
    assert_equal(frozen.eval()(clip), net.eval()(clip))
    assert {k for k in before if "parametri" not in k} <= frozen.state_dict().keys()
    check_contract(co.continual(frozen), torch.randn(2, 2, 20, dtype=torch.float64), frozen)
    twice = nn.Sequential(shared, nn.Conv1d(4, 4, 1).double(), shared)
    frozen = co.calibrate(twice, torch.randn(2, 4, 9, dtype=torch.float64))
    assert frozen[0] is frozen[2]


def test_dtype_gradient_and_training_of_a_frozen_norm():
    norm = nn.GroupNorm(2, 4).half()
    norm.weight.requires_grad_(False)
    frozen = co.calibrate(norm, torch.randn(2, 4, 9).half())
    assert {t.dtype for t in frozen.state_dict().values()} == {torch.half}
    assert [p.requires_grad for p in (frozen.weight, frozen.bias)] == [False, True]
    frozen = frozen.float().train()
    before = frozen.running_mean.clone()
    clip = torch.randn(2, 4, 9)
    y = frozen(clip)
    assert torch.equal(frozen.running_mean, before)
    assert_equal(y, frozen.eval()(clip))
    assert_equal(torch.stack([frozen.train().forward_step(s) for s in clip.unbind(2)], 2), y)


@pytest.mark.parametrize("shape", [(2, 4, 9), (2, 4, 9, 5), (2, 4, 9, 3, 5)])
def test_is_batch_norm_in_eval_mode(shape: tuple[int, ...]):
    norm: Any = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[len(shape) - 3](4, eps=0.1)
    for value, low in ((norm.running_mean, -1), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -1)):
        nn.init.uniform_(value, low, low + 1.5)
    norm.num_batches_tracked = None
    check_layer(co.FrozenNorm(4, 0.1), norm, shape)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other = nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


REFUSED = {
    "nothing to freeze": (lambda: co.calibrate(nn.Sequential(nn.LayerNorm(5)), torch.randn(C2)), ValueError, "no norm over time"),
    "no clips": (lambda: co.calibrate(nn.GroupNorm(2, 4), []), ValueError, "no clips"),
    "not reached": (
        lambda: co.calibrate(Unused(), torch.randn(C1)),
        ValueError,
        r"other \(GroupNorm\): the clips did not reach it",
    ),
    "weights over time": (
        lambda: co.calibrate(nn.Sequential(nn.LayerNorm((4, 9))), torch.randn(C1)),
        co.NotStreamable,
        r"0 \(LayerNorm\): .*a weight for each of 9 steps",
    ),
    "no time": (
        lambda: co.calibrate(nn.Sequential(nn.GroupNorm(2, 4)), torch.randn(3, 4)),
        co.ShapeMismatch,
        r"0 \(GroupNorm\): .*\(3, 4\)",
    ),
    "channels": (lambda: co.FrozenNorm(4).forward_step(torch.zeros(2, 3)), co.ShapeMismatch, "expects steps of 4 channels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        make()
