"""Norms over time: by the statistics up to now, or of the last frames, against `torch.nn.functional.group_norm` of those frames."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, check_contract, check_layer

C1, C2, C3 = (3, 4, 23), (2, 4, 13, 5), (2, 4, 9, 3, 5)


class LookingBack(nn.Module):
    """Every frame as it leaves ``group_norm`` of the last frames up to it."""

    def __init__(self, groups: int, channels: int, window: int, eps: float, affine: bool):
        super().__init__()
        self.groups, self.window, self.eps = groups, window, eps
        for name, low in (("weight", 0.5), ("bias", -2.0)):
            self.register_parameter(name, nn.Parameter(torch.empty(channels).uniform_(low, low + 1.5)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        windows = [x[:, :, max(0, t + 1 - self.window) : t + 1] for t in range(x.shape[2])]
        return torch.stack([self.norm(w)[:, :, -1] for w in windows], 2)

    def norm(self, x: Tensor) -> Tensor:
        own = (self.weight, self.bias) if self.weight is not None else (None, None)
        return F.group_norm(x, self.groups, *own, self.eps)


ALL = 10**9  # frames
# the layer; the groups, window, eps and affinity of the reference; the clip
NORMS: dict[str, tuple[Any, tuple[int, int, float, bool], tuple[int, ...]]] = {
    "group": (lambda: co.CumulativeGroupNorm(2, 4), (2, ALL, 1e-5, True), C1),
    "group, space": (lambda: co.CumulativeGroupNorm(2, 4, eps=0.1), (2, ALL, 0.1, True), C2),
    "group, planes": (lambda: co.CumulativeGroupNorm(1, 4, affine=False), (1, ALL, 1e-5, False), C3),
    "groups of one channel": (lambda: co.CumulativeGroupNorm(4, 4), (4, ALL, 1e-5, True), C1),
    "layer": (lambda: co.CumulativeLayerNorm(4), (1, ALL, 1e-5, True), C1),
    "layer, space": (lambda: co.CumulativeLayerNorm(4, affine=False, eps=1e-3), (1, ALL, 1e-3, False), C2),
    "instance 1d": (lambda: co.CumulativeInstanceNorm1d(4), (4, ALL, 1e-5, False), C1),
    "instance 1d affine": (lambda: co.CumulativeInstanceNorm1d(4, 0.1, affine=True), (4, ALL, 0.1, True), C1),
    "instance 2d": (lambda: co.CumulativeInstanceNorm2d(4, affine=True), (4, ALL, 1e-5, True), C2),
    "instance 3d": (lambda: co.CumulativeInstanceNorm3d(4), (4, ALL, 1e-5, False), C3),
    "group of the last": (lambda: co.WindowedGroupNorm(2, 4, window=5), (2, 5, 1e-5, True), C1),
    "group of the last, space": (lambda: co.WindowedGroupNorm(2, 4, 0.1, window=4), (2, 4, 0.1, True), C2),
    "group of the last, planes": (lambda: co.WindowedGroupNorm(4, 4, affine=False, window=2), (4, 2, 1e-5, False), C3),
    "group of one frame": (lambda: co.WindowedGroupNorm(2, 4, window=1), (2, 1, 1e-5, True), C1),
    "group of more than the clip": (lambda: co.WindowedGroupNorm(2, 4, window=50), (2, 50, 1e-5, True), C1),
    "layer of the last": (lambda: co.WindowedLayerNorm(4, window=3), (1, 3, 1e-5, True), C2),
    "instance 1d of the last": (lambda: co.WindowedInstanceNorm1d(4, window=7), (4, 7, 1e-5, False), C1),
    "instance 2d of the last": (lambda: co.WindowedInstanceNorm2d(4, affine=True, window=3), (4, 3, 1e-5, True), C2),
    "instance 3d of the last": (lambda: co.WindowedInstanceNorm3d(4, 0.1, window=3), (4, 3, 0.1, False), C3),
}


@pytest.mark.parametrize("name", NORMS)
def test_contract(name: str):
    make, (groups, window, eps, affine), shape = NORMS[name]
    net, reference = make(), LookingBack(groups, 4, window, eps, affine)
    cumulative = window == ALL
    assert net.unbounded_memory == cumulative
    assert (net.receptive_field, net.delay, net.stride) == (1 if cumulative else window, 0, (1,))
    check_layer(net, reference, shape)
    clip = torch.randn(shape) * torch.linspace(0.5, 3, shape[2]).view(-1, *[1] * (len(shape) - 3))
    report = co.verify(net.float(), clip, reference.float())
    assert report.passed
    forgotten = next(c for c in report.checks if c.name.startswith("what left the window"))
    assert forgotten.outcome == ("skipped" if cumulative else "passed")


@pytest.mark.parametrize("kind", ["Cumulative", "Windowed"])
def test_the_last_frame_of_a_clip_is_that_of_torch(kind: str):
    """If the statistics are those of the whole clip."""
    clip = torch.randn(3, 6, 11, 5, dtype=torch.float64)
    window = {"window": 11} if kind == "Windowed" else {}
    for norm in (nn.GroupNorm(3, 6), nn.GroupNorm(1, 6), nn.InstanceNorm2d(6), nn.InstanceNorm2d(6, affine=True)):
        for p in norm.parameters():
            nn.init.normal_(p)
        name = type(norm).__name__
        net = getattr(co, f"{kind}{name}").build_from(norm.double(), **window)
        assert isinstance(net, type(norm))
        assert net.state_dict().keys() == norm.state_dict().keys()
        assert_equal(net(clip)[:, :, -1], norm(clip)[:, :, -1])
        check_contract(net, clip)


@pytest.mark.parametrize("window", [None, 6], ids=["cumulative", "windowed"])
def test_in_a_network(window: int | None):
    """Behind a stride, before a delay, in a residual, with gradients."""
    norm = co.CumulativeGroupNorm(2, 4) if window is None else co.WindowedGroupNorm(2, 4, window=window)
    other = co.CumulativeInstanceNorm1d(4) if window is None else co.WindowedInstanceNorm1d(4, window=window)
    net = co.Sequential(
        co.Conv1d(2, 4, 3, stride=2),
        norm,
        nn.ReLU(),
        co.Residual(co.Sequential(other, co.Conv1d(4, 4, 3, padding=1))),
        co.Delay(1),
    )
    assert net.unbounded_memory == (window is None)
    assert co.verify(net.double(), torch.randn(2, 2, 41, dtype=torch.float64)).passed


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: co.CumulativeGroupNorm(1, 2), lambda: co.WindowedGroupNorm(1, 2, window=20)])
def test_a_mean_much_larger_than_the_deviations(make: Any):
    """Sums of squares would lose all digits."""
    clip = torch.randn(2, 2, 200, 3) + 1e5
    with torch.no_grad():
        net, exact = make(), make().double()(clip.double())
        steps = torch.stack([net.forward_step(s) for s in clip.unbind(2)], 2)
        reference = LookingBack(1, 2, getattr(net, "window", ALL), 1e-5, False)(clip.double())
        for y in (net(clip), steps, reference):
            assert float((y - exact).abs().max()) < 1e-6


def test_a_level_that_changes_by_far():
    """The first frames are huge, those that follow are not."""
    clip = torch.randn(2, 4, 60, dtype=torch.float64)
    clip[:, :, :3] *= 1e6
    clip[:, :, 30:] += 1e3
    check_contract(co.CumulativeGroupNorm(2, 4, affine=False).double(), clip, LookingBack(2, 4, ALL, 1e-5, False))
    check_contract(co.WindowedGroupNorm(2, 4, affine=False, window=7).double(), clip, LookingBack(2, 4, 7, 1e-5, False))


def test_ten_million_steps():
    """In float32; a float32 count would have stopped at 2^24, and a float32 mean long before."""
    net, clip = co.CumulativeInstanceNorm1d(1), torch.randn(1, 1, 1_000_000) * 3 + 50
    mean, variance = clip.double().mean(), clip.double().var(correction=0)
    with torch.no_grad():
        for _ in range(10):
            last = net.forward_steps(clip)[:, :, -1]
        assert_equal(last, ((clip[:, :, -1] - mean) / (variance + net.eps).sqrt()).float())
        state = net.get_state().tensors
        assert abs(float(state["mean"] / mean) - 1) < 1e-12
        assert abs(float(state["variance"] / variance) - 1) < 1e-12
        more, steps = clip[:, :, :500].double(), [net.forward_step(s) for s in clip[:, :, :500].unbind(2)]
    count = 10_000_000 + torch.arange(1, 501, dtype=torch.float64)
    off = more - mean
    means = off.cumsum(2) / count
    variances = (10_000_000 * variance + off.square().cumsum(2)) / count - means.square()
    assert_equal(torch.stack(steps, 2), ((off - means) / (variances + net.eps).sqrt()).float())


def test_a_clock_beyond_all_bounds():
    """After 2^60 steps a frame has no weight left, and nothing breaks."""
    net, clip = co.CumulativeGroupNorm(2, 4), torch.randn(2, 4, 1000) + 3
    with torch.no_grad():
        net.forward_steps(clip)
        before = net.get_state().tensors["mean"]
        net._stream.node.n_in = net._stream.node.n_out = net._stream.clock = 2**60
        chunk, step = net.forward_steps(clip[:, :, :5], update_state=False), net.forward_step(clip[:, :, 0])
        assert_equal(step, chunk[:, :, 0])
        assert_equal(net.get_state().tensors["mean"], before)
        expected = (clip[:, :, :5].unflatten(1, (2, 2)) - before.unsqueeze(3)) / (
            net.get_state().tensors["variance"].unsqueeze(3) + 1e-5
        ).sqrt()
    assert_equal(chunk, expected.flatten(1, 2).float())


def test_a_value_that_stays_the_same():
    clip = torch.full((2, 4, 40), 1e4 / 3)
    for net in (co.CumulativeGroupNorm(2, 4), co.WindowedGroupNorm(2, 4, window=5)):
        for y in (net(clip), torch.stack([net.forward_step(s) for s in clip.unbind(2)], 2)):
            assert_equal(y, torch.zeros_like(y))


def test_a_nan_stays_or_leaves_with_the_window():
    clip = torch.randn(2, 4, 12)
    clip[0, 0, 3] = torch.nan
    for net, last in ((co.CumulativeGroupNorm(2, 4), 12), (co.WindowedGroupNorm(2, 4, window=4), 7)):
        with torch.no_grad():
            for y in (net(clip), torch.stack([net.forward_step(s) for s in clip.unbind(2)], 2)):
                assert torch.equal(y.isnan()[0, 0].nonzero()[:, 0], torch.arange(3, last))
                assert not y[0, 2:].isnan().any()
                assert not y[1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_types(dtype: torch.dtype):
    for net in (co.CumulativeGroupNorm(2, 4), co.WindowedGroupNorm(2, 4, window=4)):
        clip = (torch.randn(2, 4, 30) + 5).to(dtype)
        assert_equal(net.to(dtype)(clip), net.double()(clip.double()).to(dtype))
        check_contract(net.to(dtype), clip)
        check_contract(net.float(), clip)  # weights in float32, as torch.nn allows


def test_the_state_stays_wide_when_the_module_is_moved():
    for net in (co.CumulativeGroupNorm(2, 4), co.WindowedGroupNorm(2, 4, window=4)):
        net.forward_steps(torch.randn(2, 4, 9))
        before = net.get_state().tensors
        net.half()
        after = net.get_state().tensors
        assert all(t.dtype == torch.float64 and torch.equal(t, before[name]) for name, t in after.items())
        assert net.forward_step(torch.randn(2, 4).half()).dtype == torch.half
        net.set_state(net.get_state())


def test_weights_without_bias():
    norm = nn.GroupNorm(2, 4)
    norm.bias = None
    nn.init.uniform_(norm.weight, 0.5, 2)
    for net in (co.CumulativeGroupNorm.build_from(norm), co.WindowedGroupNorm.build_from(norm, window=30)):
        clip = torch.randn(2, 4, 20, dtype=torch.float64)
        assert_equal(net.double()(clip)[:, :, -1], norm.double()(clip)[:, :, -1])
        check_contract(net, clip)


def test_an_empty_clip():
    assert co.CumulativeGroupNorm(2, 4)(torch.zeros(2, 4, 0)).shape == (2, 4, 0)


# ---- what is refused --------------------------------------------------------------------------------------------------

STEPS = {
    "channels": (lambda: co.CumulativeGroupNorm(2, 4), (2, 6), "expects steps of 4 channels"),
    "channels of a window": (lambda: co.WindowedInstanceNorm1d(4, window=3), (2, 6), "expects steps of 4 channels"),
    "rank": (lambda: co.CumulativeInstanceNorm1d(4), (2, 4, 5), r"expects steps \(B, C\), got"),
    "rank 2d": (lambda: co.WindowedInstanceNorm2d(4, window=3), (2, 4), r"expects steps \(B, C, W\), got"),
    "rank 3d": (lambda: co.CumulativeInstanceNorm3d(4), (2, 4, 5), r"expects steps \(B, C, H, W\), got"),
}


@pytest.mark.parametrize("name", STEPS)
def test_wrong_steps(name: str):
    make, shape, message = STEPS[name]
    net = co.Sequential(co.Sequential(make()))
    with pytest.raises(co.ShapeMismatch, match=f"0.0 .*{message}"):
        net.forward_step(torch.zeros(shape))
    with pytest.raises(co.ShapeMismatch, match=message):
        net(torch.zeros(*shape[:2], 9, *shape[2:]))
    assert net.get_state() is None


def test_whole_numbers_and_another_dtype():
    with pytest.raises(co.ShapeMismatch, match="floating point numbers"):
        co.CumulativeGroupNorm(2, 4, affine=False).forward_step(torch.ones(2, 4, dtype=torch.int64))
    with pytest.raises(co.ShapeMismatch, match="weights are torch.float32"):
        co.CumulativeGroupNorm(2, 4).forward_step(torch.ones(2, 4, dtype=torch.float64))


ARGUMENTS = {
    "no window": (lambda: co.WindowedGroupNorm(2, 4), TypeError, "window"),
    "window of nothing": (lambda: co.WindowedGroupNorm(2, 4, window=0), ValueError, "needs window.*got 0"),
    "window of half a frame": (lambda: co.WindowedLayerNorm(4, window=2.5), ValueError, "needs window.*got 2.5"),
    "no window to build from": (
        lambda: co.WindowedGroupNorm.build_from(nn.GroupNorm(2, 4)),
        ValueError,
        "WindowedGroupNorm needs window",
    ),
    "window of all": (
        lambda: co.CumulativeGroupNorm.build_from(nn.GroupNorm(2, 4), window=3),
        TypeError,
        "unknown argument 'window'",
    ),
    "groups": (lambda: co.CumulativeGroupNorm(3, 4), ValueError, "divisible"),
    "momentum": (lambda: co.CumulativeInstanceNorm1d(4, momentum=0.1), TypeError, "momentum"),
    "another module": (lambda: co.CumulativeGroupNorm.build_from(nn.LayerNorm(4)), TypeError, "takes a GroupNorm, not LayerNorm"),
    "another rank": (lambda: co.CumulativeInstanceNorm1d.build_from(nn.InstanceNorm2d(4)), TypeError, "takes a InstanceNorm1d"),
    "groups of a layer": (lambda: co.CumulativeLayerNorm.build_from(nn.GroupNorm(2, 4)), ValueError, r"GroupNorm\(1, C\)"),
    "running statistics": (
        lambda: co.CumulativeInstanceNorm1d.build_from(nn.InstanceNorm1d(4, track_running_stats=True)),
        ValueError,
        "has running statistics",
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str):
    make, kind, message = ARGUMENTS[name]
    with pytest.raises(kind, match=message):
        make()


def test_how_they_print():
    assert str(co.WindowedGroupNorm(2, 4, window=3)) == "WindowedGroupNorm(2, 4, eps=1e-05, affine=True, window=3)"
    assert str(co.CumulativeLayerNorm(4)) == "CumulativeLayerNorm(4, eps=1e-05, affine=True)"
    assert str(co.WindowedInstanceNorm1d(4, window=3)) == "WindowedInstanceNorm1d(4, eps=1e-05, affine=False, window=3)"
