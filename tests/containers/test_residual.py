"""`Residual`: which frames the shortcut loses."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients

SHRINKS = {True: "centered", "centered": "centered", "lagging": "lagging", "leading": "leading"}


def cut_at_start(shrink: str, lost: int) -> int:
    return {"centered": lost // 2, "lagging": 0, "leading": lost}[shrink]


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kernel", [3, 4, 6])
@pytest.mark.parametrize("shrink", SHRINKS)
def test_shrink(shrink: bool | str, kernel: int, padding: int):
    """Lost frames are cut at both ends, at the end or at the start; an odd one is cut at the end when centered."""
    layer = co.Conv1d(2, 2, kernel, padding=padding)
    net = co.Residual(layer, residual_shrink=shrink).double()
    clip = torch.randn(3, 2, 19, dtype=torch.float64)
    lost = kernel - 1 - 2 * padding
    first = cut_at_start(SHRINKS[shrink], lost)
    assert_equal(net(clip), layer(clip) + clip[:, :, first : 19 - (lost - first)])
    check_contract(net, clip)
    check_gradients(net, clip)
    check_contract(net.float(), clip.float())


@pytest.mark.parametrize("shrink", SHRINKS)
def test_shrink_of_several_layers(shrink: bool | str):
    inner = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Conv1d(3, 2, 2, dilation=2))
    net = co.Residual(inner, residual_shrink=shrink).double()
    clip = torch.randn(2, 2, 15, dtype=torch.float64)
    first = cut_at_start(SHRINKS[shrink], 4)
    assert_equal(net(clip), inner.double()(clip) + clip[:, :, first : 11 + first])
    check_contract(net, clip)
    assert net.delay == 4


@pytest.mark.parametrize(
    "reduce", ["sum", "concat", "mul", "max", lambda s: s[1] - s[0]], ids=["sum", "concat", "mul", "max", "function"]
)
def test_reductions(reduce):
    net = co.Residual(nn.Conv2d(2, 2, (3, 1), padding=(1, 0)), reduce=reduce).double()
    check_contract(net, torch.randn(2, 2, 11, 5, dtype=torch.float64))


@pytest.mark.parametrize("kernel", [(3, 3, 3), (2, 1, 3)])
def test_over_space(kernel: tuple[int, ...]):
    net = co.Residual(co.Conv3d(2, 2, kernel, padding="same")).double()
    check_contract(net, torch.randn(2, 2, 9, 3, 5, dtype=torch.float64))


def test_children_are_numbered():
    """The shortcut is "0", the module "1"."""
    net = co.Residual(nn.Conv1d(2, 2, 3, padding=1))
    assert sorted(net.state_dict()) == ["1.bias", "1.weight"]
    assert isinstance(net[1], co.Conv1d)


@pytest.mark.parametrize("fill, first", [(None, 0.0), ("zeros", 0.0), ("neg_inf", -torch.inf)])
def test_what_warms_it_up(fill: str | None, first: float):
    net = co.Residual(co.Delay(2), temporal_fill=fill)
    net.warm_up((1, 1))
    assert net.forward_step(torch.ones(1, 1)).item() == 2 * first


BAD = {
    "unknown": (lambda: co.Residual(co.Delay(1), residual_shrink="trailing"), "residual_shrink is False"),
    "gains frames": (lambda: co.Residual(co.Conv1d(1, 1, 3, padding=2), residual_shrink=True), "loses -2"),
    "stride": (lambda: co.Residual(co.Conv1d(1, 1, 3, 2), residual_shrink=True), "stride 2"),
    "fill": (lambda: co.Residual(co.Delay(1), temporal_fill="ones"), "temporal_fill is"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_shortcut_around_a_stride_is_refused():
    with pytest.raises(co.ShapeMismatch, match="strides"):
        co.Residual(co.Conv1d(1, 1, 3, 2, 1))


def test_the_shortcut_that_skips_is_named_so():
    shown = {
        shrink: repr(co.Residual(co.Conv1d(2, 2, 4), residual_shrink=shrink)[0]) for shrink in ("leading", "centered", "lagging")
    }
    assert shown == {"leading": "Skip(3)", "centered": "Trim(first=1, last=2)", "lagging": "Trim(first=0, last=3)"}


# ---- squeeze and excitation: a gate that loses frames, beside a shortcut that loses none ------------------------------------


def squeeze_and_excitation() -> tuple[co.Residual, co.Sequential]:
    gate = [co.AdaptiveAvgPool2d((1, 1), kernel_size=4), co.Conv2d(3, 2, 1), nn.ReLU(), co.Conv2d(2, 3, 1), nn.Sigmoid()]
    inner = co.Sequential(OrderedDict(zip(("pool", "down", "act1", "up", "act2"), gate, strict=True)))
    return co.Residual(inner, reduce="mul").double().eval(), inner


@pytest.mark.parametrize("frames", [1, 3, 4, 15])
def test_the_gate_is_that_of_the_last_frames(frames: int):
    net, inner = squeeze_and_excitation()
    clip = torch.randn(2, 3, frames, 5, dtype=torch.float64)
    means = [clip[:, :, max(0, t - 3) : t + 1].mean((2, 3)) for t in range(frames)]
    expected = clip * inner[1:](torch.stack(means, 2).unsqueeze(3))
    assert_equal(net(clip), expected)
    assert_equal(net.forward_steps(clip, pad_end=True), expected)
    check_contract(net, clip)
    assert (net.delay, net.receptive_field) == (0, 4)
    check_gradients(net, clip)


def test_what_is_given_stays_as_it_is():
    """The pool beside the shortcut is another one; all others are those that were given."""
    net, inner = squeeze_and_excitation()
    assert (inner.delay, inner[0].timing.start, net[1][0].timing.start) == (3, 0, 3)
    assert all(a is b for a, b in zip(net[1][1:], inner[1:], strict=True))
    assert list(net.state_dict())[:2] == ["1.down.weight", "1.down.bias"]
    for other in (co.AvgPool2d(4, 1), co.Sequential(co.Conv2d(3, 3, (3, 1)), inner), co.AdaptiveAvgPool2d((1, 1), 4, dilation=2)):
        assert co.Residual(other)[1] is other
        with pytest.raises(co.ShapeMismatch, match="the branches have"):
            co.Residual(other).double()(torch.zeros(2, 3, 15, 5, dtype=torch.float64))


def test_a_clip_too_short_for_the_module_beside_the_shortcut():
    """A step let the shortcut give a frame that the clip does not have if it ends there: its end asked for less than nothing."""
    net = co.Sequential(
        co.Conv1d(2, 2, 1), co.BroadcastReduce(co.Residual(co.Conv1d(2, 2, 2), residual_shrink=True), reduce="sum")
    )
    clip = torch.randn(2, 2, 4)
    with torch.no_grad():
        assert net.forward_steps(clip[:, :, :1], pad_end=True) is None
        torch.testing.assert_close(net.forward_steps(clip[:, :, 1:], pad_end=True), net(clip))
