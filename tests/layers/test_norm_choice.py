"""Norms over the whole clip in `co.continual`: refused with remedies that can be pasted, or converted as `time_norm` says."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import continual as co
from tests.contract import assert_equal, check_contract

C1, C2, C3 = (3, 4, 9), (2, 4, 9, 5), (2, 4, 9, 3, 5)
WITHOUT = {"elementwise_affine": False}
# the norm, clips on which it runs over time, and what it is converted to
NORMS: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "group 1d": (lambda: nn.GroupNorm(2, 4), C1, "GroupNorm"),
    "group 2d": (lambda: nn.GroupNorm(1, 4, eps=0.1), C2, "GroupNorm"),
    "group 3d": (lambda: nn.GroupNorm(4, 4, affine=False), C3, "GroupNorm"),
    "instance 1d": (lambda: nn.InstanceNorm1d(4), C1, "InstanceNorm1d"),
    "instance 2d": (lambda: nn.InstanceNorm2d(4, affine=True), C2, "InstanceNorm2d"),
    "instance 3d": (lambda: nn.InstanceNorm3d(4, eps=0.1), C3, "InstanceNorm3d"),
    "layer, time": (lambda: nn.LayerNorm(9, **WITHOUT), C1, "LayerNorm"),
    "layer, time and space": (lambda: nn.LayerNorm((9, 5), eps=0.1, **WITHOUT), C2, "LayerNorm"),
    "layer, channels and time": (lambda: nn.LayerNorm((4, 9), **WITHOUT), C1, "LayerNorm"),
    "layer, all": (lambda: nn.LayerNorm((4, 9, 3, 5), **WITHOUT), C3, "LayerNorm"),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    make, shape, _ = NORMS[name]
    norm = make().double()
    for p in norm.parameters():
        nn.init.normal_(p)
    return norm, torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    "options", [{"time_norm": "cumulative"}, {"time_norm": "window", "norm_window": 9}], ids=lambda o: o["time_norm"]
)
@pytest.mark.parametrize("name", NORMS)
def test_converted_as_chosen(name: str, options: dict[str, Any]):
    """The last frame of a clip is that of the norm itself, if the window is as long."""
    norm, clip = made(name)
    net = co.continual(nn.Sequential(nn.Identity(), nn.Sequential(norm)), **options)
    assert isinstance(net[1][0], type(norm))
    assert net.state_dict().keys() == nn.Sequential(nn.Identity(), nn.Sequential(norm)).state_dict().keys()
    assert_equal(net(clip)[:, :, -1], norm(clip)[:, :, -1])
    check_contract(net, clip)
    assert net.unbounded_memory == (options["time_norm"] == "cumulative")
    assert net.receptive_field == options.get("norm_window", 1)


@pytest.mark.parametrize("name", NORMS)
def test_refused_with_what_can_be_chosen(name: str):
    """With the path and the reason; and the lines of the message run as they are."""
    norm, clip = made(name)
    net = nn.Sequential(nn.Identity(), nn.Sequential(norm))
    reason = rf"1\.0 \({type(norm).__name__}\): .* takes its statistics over the whole clip, which a stream has not seen\."
    for convert in (co.continual, lambda net: co.Sequential(*net)):
        with pytest.raises(co.NotStreamable, match=reason) as caught:
            convert(net).forward_step(clip[:, :, 0])
    message = str(caught.value)
    lines = re.findall(r"co\.continual\(net, .*?\)|co\.(?:Cumulative|Windowed)\w+\(.*?\)|co\.continual\(co\..*?\)\)", message)
    assert len(lines) == 5, message
    for line in lines:
        y = eval(line, {"co": co, "net": net, "clips": clip, "N": 4, "C": 4}).double()
        assert y(clip).shape == clip.shape
        check_contract(y, clip)


@pytest.mark.parametrize("options", [{"time_norm": "cumulative"}, {"time_norm": "window", "norm_window": 4}])
def test_what_needs_no_choice_is_left_alone(options: dict[str, Any]):
    """Norms that do not see time, in a network where others do."""
    clip = torch.randn(2, 4, 12, 5, dtype=torch.float64)
    for norm in (nn.LayerNorm(5), nn.LayerNorm((5,), **WITHOUT)):  # whether these do is known with the rank of the frames
        module = nn.Sequential(norm).double()
        assert co.verify(co.continual(module, **options), clip, module).passed
    for norm in (nn.InstanceNorm2d(4, track_running_stats=True), nn.BatchNorm2d(4)):
        nn.init.uniform_(norm.running_mean, 1, 2)
        module = nn.Sequential(norm, nn.GroupNorm(2, 4)).double().eval()
        net = co.continual(module, **options)
        assert_equal(net[0](clip), norm(clip))
        assert co.verify(net, clip).passed


WRONG = {
    "unknown": ({"time_norm": "mean"}, ValueError, r"'cumulative' or 'window', not 'mean'; .*co\.calibrate"),
    "no window": ({"time_norm": "window"}, ValueError, "needs norm_window"),
    "window without": ({"norm_window": 4}, ValueError, "norm_window=4 goes with time_norm='window'"),
    "window and cumulative": ({"time_norm": "cumulative", "norm_window": 4}, ValueError, "goes with time_norm='window'"),
    "window of nothing": ({"time_norm": "window", "norm_window": 0}, ValueError, "got 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_choices(name: str):
    options, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        co.continual(nn.Sequential(nn.GroupNorm(2, 4)), **options)


def test_a_choice_that_no_module_needs():
    with pytest.raises(TypeError, match="no module in it takes time_norm='cumulative'"):
        co.continual(nn.Sequential(nn.Conv1d(2, 2, 3), nn.ReLU()), time_norm="cumulative")


def test_a_layer_norm_with_weights_over_time_is_refused_whatever_is_chosen():
    """It has a weight for each step of a clip."""
    net = co.continual(nn.Sequential(nn.LayerNorm((4, 9))), time_norm="cumulative")
    with pytest.raises(co.NotStreamable, match="0 .LayerNorm.: .*a weight for each of 9 steps"):
        net.forward_step(torch.zeros(2, 4))
    with pytest.raises(co.NotStreamable, match="0 .LayerNorm.: .*a weight for each step of a clip"):
        co.continual(nn.Sequential(nn.LayerNorm((4, 9, 5))), time_norm="cumulative")  # on clips of any rank


def test_layer_norms_check_the_rest_of_the_frame():
    net = co.continual(nn.LayerNorm((4, 9, 5), elementwise_affine=False), time_norm="window", norm_window=3)
    assert net.forward_step(torch.randn(2, 4, 5)).shape == (2, 4, 5)
    net.clean_state()
    for shape in ((2, 3, 5), (2, 4, 6), (2, 4, 9, 6)):
        with pytest.raises(co.ShapeMismatch, match="normalises the dimensions"):
            net.forward_step(torch.zeros(shape))
    with pytest.raises(co.NotStreamable, match="the batch among them"):
        net.forward_step(torch.zeros(4, 5))
    with pytest.raises(co.ShapeMismatch, match="floating point"):
        net.forward_step(torch.ones(2, 4, 5, dtype=torch.int64))


def test_what_a_norm_shares_and_how_it_is_parametrised_stays():
    shared = nn.GroupNorm(2, 4)
    net = co.continual(nn.Sequential(shared, nn.ReLU(), shared), time_norm="cumulative")
    assert len(net) == 3
    assert net[0] is net[2]
    check_contract(net, torch.randn(2, 4, 9))
    nn.init.normal_(shared.weight)
    module = weight_norm(shared, dim=None).double()
    net = co.continual(module, time_norm="cumulative")
    assert net.state_dict().keys() == module.state_dict().keys()
    clip = torch.randn(2, 4, 9, dtype=torch.float64)
    assert_equal(net(clip)[:, :, -1], module(clip)[:, :, -1])
    check_contract(net, clip)


def test_a_norm_with_another_forward_is_not_taken_for_one():
    class Own(nn.GroupNorm):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input

    with pytest.raises(co.NotStreamable, match="overrides the forward of GroupNorm"):
        co.continual(Own(2, 4), time_norm="cumulative")

    class Same(nn.GroupNorm):
        pass

    net = co.continual(Same(2, 4), time_norm="cumulative")
    assert isinstance(net, Same)
    assert isinstance(net, co.CumulativeGroupNorm)
    check_contract(net, torch.randn(2, 4, 9))
