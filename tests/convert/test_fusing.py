"""`co.fuse`: the same outputs with fewer layers; what may not be folded stays; the network given stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, note
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

import continual as co
from continual.models.graph_conv import GraphConv
from tests.contract import assert_equal, check_contract, clip_of, refuses_the_length
from tests.long import by_turns
from tests.models.zoo import alive
from tests.strategies import networks_and_clips

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def drawn(net: Any) -> Any:
    """Random statistics, factors and offsets of norms, factors below zero too; eval mode, double precision."""
    for norm in [m for m in net.modules() if isinstance(m, NORMS)]:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 2)
        if norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return net.double().eval()


def norms(net: nn.Module) -> int:
    return sum(isinstance(m, NORMS) for m in net.modules())


CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Conv1d": (lambda: [co.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6)], (2, 4, 9)),
    "without a bias": (lambda: [co.Conv1d(4, 6, 3, stride=2, bias=False), nn.BatchNorm1d(6)], (2, 4, 11)),
    "groups": (lambda: [co.Conv2d(4, 6, (3, 2), groups=2), nn.BatchNorm2d(6)], (2, 4, 9, 5)),
    "Conv3d": (lambda: [co.Conv3d(2, 3, 3, padding=1, bias=False), nn.BatchNorm3d(3)], (2, 2, 7, 5, 4)),
    "depthwise": (lambda: [co.Conv3d(3, 3, (1, 3, 3), groups=3), nn.BatchNorm3d(3)], (2, 3, 5, 5, 4)),
    "padding of other values": (lambda: [co.Conv1d(4, 6, 3, padding=1, padding_mode="replicate"), nn.BatchNorm1d(6)], (2, 4, 9)),
    "transposed": (lambda: [co.ConvTranspose1d(4, 6, 3, stride=2), nn.BatchNorm1d(6)], (2, 4, 9)),
    "transposed, groups": (lambda: [co.ConvTranspose2d(4, 6, (3, 2), groups=2, bias=False), nn.BatchNorm2d(6)], (2, 4, 9, 5)),
    "Linear": (lambda: [co.Linear(4, 6, channel_dim=1), nn.BatchNorm1d(6)], (2, 4, 9)),
    "not affine": (lambda: [co.Conv1d(4, 6, 3), nn.BatchNorm1d(6, affine=False, eps=0.1)], (2, 4, 9)),
    "InstanceNorm": (lambda: [co.Conv1d(4, 6, 3), nn.InstanceNorm1d(6, affine=True, track_running_stats=True)], (2, 4, 9)),
    "behind Dropout": (lambda: [co.Conv1d(4, 6, 3), nn.Dropout(0.4), nn.Identity(), nn.BatchNorm1d(6)], (2, 4, 9)),
    "two norms": (lambda: [co.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.BatchNorm1d(6)], (2, 4, 9)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_norm_goes_and_the_outputs_stay(name: str):
    made, shape = CASES[name]
    net, clip = drawn(co.Sequential(*made(), nn.Tanh())), torch.randn(*shape, dtype=torch.float64)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fused = co.fuse(net.train())
    assert net.training
    assert norms(net) > 0 == norms(fused)
    assert len(fused) == 2
    assert_equal(fused(clip), net.eval()(clip))
    assert list(before) == list(net.state_dict())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    check_contract(fused, clip)


def test_single_precision_stays_single():
    net = drawn(co.Sequential(co.Conv1d(4, 6, 3), nn.BatchNorm1d(6))).float()
    clip, fused = torch.randn(2, 4, 9), co.fuse(net)
    assert {p.dtype for p in fused.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in fused.parameters())
    torch.testing.assert_close(fused(clip), net(clip), rtol=1e-5, atol=1e-5)


def shared_conv() -> Any:
    conv = co.Conv1d(4, 4, 3)
    return co.Sequential(conv, nn.BatchNorm1d(4), nn.Tanh(), conv, nn.Tanh())


def tied() -> Any:
    a, b = co.Conv1d(4, 4, 3), co.Conv1d(4, 4, 3)
    b.weight = a.weight
    return co.Sequential(a, nn.BatchNorm1d(4), nn.Tanh(), b)


def shared_norm() -> Any:
    norm = co.forward_stepping(nn.BatchNorm1d(4))
    return co.Sequential(co.Conv1d(4, 4, 3), norm, nn.Tanh(), norm)


def watched() -> Any:
    net = co.Sequential(co.Conv1d(4, 4, 3), nn.BatchNorm1d(4))
    net[0].register_forward_hook(print_nothing)
    return net


def print_nothing(module: nn.Module, args: Any, output: Any) -> None:
    """A hook."""


STAYS: dict[str, Any] = {
    "a convolution in two places": shared_conv,
    "a norm in two places": shared_norm,
    "a hook": watched,
    "an activation in between": lambda: co.Sequential(co.Conv1d(4, 4, 3), nn.ReLU(), nn.BatchNorm1d(4)),
    "a norm before": lambda: co.Sequential(nn.BatchNorm1d(4), co.Conv1d(4, 4, 3, padding=1)),
    "behind an inner network": lambda: co.Sequential(co.Sequential(co.Conv1d(4, 4, 3)), nn.BatchNorm1d(4)),
    "around a residual": lambda: co.Sequential(co.Residual(co.Conv1d(4, 4, 3, padding=1)), nn.BatchNorm1d(4)),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_can_t_be_folded_stays(name: str):
    net, clip = drawn(STAYS[name]()), torch.randn(2, 4, 12, dtype=torch.float64)
    fused = co.fuse(net)
    assert norms(fused) == norms(net)
    assert_equal(fused(clip), net(clip))


def test_of_convolutions_with_one_weight_each_gets_its_own():
    net, clip = drawn(tied()), torch.randn(2, 4, 12, dtype=torch.float64)
    fused = co.fuse(net)
    assert norms(fused) == 0
    assert fused[0].weight is not fused[2].weight
    assert_equal(fused(clip), net(clip))


def test_joints_in_two_places():
    joints = GraphConv(4, 4, 25)
    net, clip = drawn(co.Sequential(joints, joints)), torch.randn(2, 4, 5, 50, dtype=torch.float64)
    fused = co.fuse(net)
    assert norms(fused) == 0
    assert_equal(fused(clip), net(clip))


def test_inside_containers():
    path = lambda: co.Sequential(co.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Dropout())  # noqa: E731
    net = drawn(co.Sequential(co.Residual(path()), co.BroadcastReduce(path(), nn.Sequential(nn.Dropout()), reduce="sum"), path()))
    clip, fused = torch.randn(2, 4, 12, dtype=torch.float64), co.fuse(net)
    assert norms(fused) == 0
    assert_equal(fused(clip), net(clip))
    check_contract(fused, clip)
    assert_equal(co.fuse(fused)(clip), net(clip))


def test_weights_that_are_computed_are_computed_once():
    net = drawn(co.Sequential(weight_norm(co.Conv1d(4, 6, 3)), nn.BatchNorm1d(6), weight_norm(co.Conv1d(6, 2, 3))))
    clip, fused = torch.randn(2, 4, 12, dtype=torch.float64), co.fuse(net)
    assert not any(parametrize.is_parametrized(m) for m in fused.modules())
    assert parametrize.is_parametrized(net[0])
    assert norms(fused) == 0
    assert_equal(fused(clip), net(clip))
    check_contract(fused, clip)


@given(case=networks_and_clips(depth=2))
def test_random_networks(case: tuple[Any, Tensor]):
    net, clip = case
    note(f"{net}\nclip {tuple(clip.shape)}")
    fused = co.fuse(net)
    assert fused.timing == net.timing
    if not refuses_the_length(net, clip) and (want := clip_of(net, clip)) is not None:
        assert_equal(clip_of(fused, clip), want)


# ---- the zoo ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, left",
    by_turns([("cox3d_s", 0), ("coslow", 0), ("kws_ds_cnn", 0), ("cost_gcn_star", 1), ("movinet_a0_stream", 0)], 4),
)
def test_networks_of_the_zoo(name: str, left: int):
    options: dict[str, Any] = {"input_size": 64} if name not in ("kws_ds_cnn", "cost_gcn_star") else {}
    net = co.models.create(name, classes=5, **options)
    clip = torch.randn(1, net.step_shape[0], net.delay + 9, *net.step_shape[1:])
    net = alive(net, clip)
    fused = co.fuse(net)
    assert norms(fused) == left
    with torch.no_grad():
        want = net(clip)
        torch.testing.assert_close(fused(clip), want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
        torch.testing.assert_close(
            fused.forward_steps(clip), net.forward_steps(clip), rtol=1e-4, atol=1e-4 * float(want.abs().max())
        )


# ---- converted modules -----------------------------------------------------------------------------------------------------


class Frames(nn.Module):
    """Clips ``(B, C, T, H, W)``: a convolution over time, one on frames that lie in the batch, a transposed one over space; a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.over_time, self.first = nn.Conv3d(2, 4, 3, padding=1, bias=False), nn.BatchNorm3d(4)
        self.of_frames, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.wider, self.third = nn.ConvTranspose3d(4, 6, (1, 2, 2), stride=(1, 2, 2), groups=2), nn.BatchNorm3d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(self.over_time(x)))
        b, c, t, h, w = x.shape
        frames = x.transpose(1, 2).reshape(b * t, c, h, w)
        frames = self.second(self.of_frames(frames))
        y = x + frames.view(b, t, c, h, w).transpose(1, 2)
        return self.third(self.wider(y))


class TimeLast(nn.Module):
    """Clips ``(B, C, V, T)``: time is the last dimension of the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, (2, 3)), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return torch.relu(y)


class Twice(nn.Module):
    """A convolution whose output is needed before its norm too, and one in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.other, self.last = (
            nn.Conv1d(2, 2, 3, padding=1),
            nn.BatchNorm1d(2),
            nn.Conv1d(2, 2, 1),
            nn.BatchNorm1d(2),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y + self.norm(y)
        return self.other(torch.tanh(self.last(self.other(y))))


@pytest.mark.parametrize(
    ("make", "shape", "keys"),
    [
        (Frames, (2, 2, 8, 5, 4), [f"{m}.{p}" for m in ("over_time", "of_frames", "wider") for p in ("weight", "bias")]),
        (TimeLast, (2, 2, 4, 9), ["conv.weight", "conv.bias"]),
    ],
)
def test_converted_modules(make: Any, shape: tuple[int, ...], keys: list[str]):
    module = drawn(make())
    clip = torch.randn(*shape, dtype=torch.float64)
    net = co.continual(module, clip, time_dim=3 if make is TimeLast else 2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fused = co.fuse(net)
    assert sorted(fused.state_dict()) == sorted(keys)
    assert_equal(fused(clip), module(clip))
    assert co.verify(fused, clip, reference=module.forward).passed
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert_equal(net(clip), module(clip))


def test_of_converted_modules_what_is_used_twice_stays():
    module, clip = drawn(Twice()), torch.randn(2, 2, 9, dtype=torch.float64)
    net = co.continual(module, clip)
    fused = co.fuse(net)
    assert len(fused._program.instructions) == len(net._program.instructions)
    assert_equal(fused(clip), module(clip))


def test_programs_of_fused_networks():
    net = drawn(co.Sequential(co.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU()))
    clip = torch.randn(2, 4, 12, dtype=torch.float64)
    program = co.compile(co.fuse(net), clip[:, :, 0], backend="eager")
    found = [y for t in range(12) if (y := program.step(clip[:, :, t])) is not None]
    assert_equal(torch.stack(found, 2), net(clip)[:, :, :11])


def test_a_fused_network_begins_cold_and_is_a_copy():
    net, clip = drawn(co.Sequential(co.Conv1d(2, 2, 3), nn.BatchNorm1d(2))), torch.randn(1, 2, 6, dtype=torch.float64)
    with torch.no_grad():
        net.forward_steps(clip)
    fused = co.fuse(net)
    assert fused.get_state() is None
    want = net(clip)
    nn.init.zeros_(net[0].weight)
    assert_equal(fused(clip), want)


def test_modules_that_don_t_stream_are_refused():
    with pytest.raises(
        co.NotStreamable, match=r"co\.fuse takes a streaming network, not Sequential: give co\.fuse\(co\.continual"
    ):
        co.fuse(nn.Sequential(nn.Conv1d(1, 1, 1)))  # type: ignore[arg-type]
