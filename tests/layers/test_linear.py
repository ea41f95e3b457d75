"""`Linear`."""

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients

CASES = {
    "channels of (B, C, T)": ((2, 4, 9), 1),
    "channels of (B, C, T), from the end": ((2, 4, 9), -2),
    "channels of (B, C, T, S)": ((3, 4, 9, 5), 1),
    "last of (B, C, T, S)": ((3, 5, 9, 4), -1),
    "last of (B, C, T, H, W)": ((2, 3, 9, 5, 4), -1),
    "height of (B, C, T, H, W)": ((2, 3, 9, 4, 5), 3),
    "channels of (B, C, T, H, W)": ((2, 4, 9, 3, 5), -4),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CASES)
def test_linear(name: str, bias: bool):
    shape, dim = CASES[name]
    for dtype in (torch.float64, torch.float32):
        net = co.Linear(4, 3, bias, dtype=dtype, channel_dim=dim)
        clip = torch.randn(shape).to(dtype)
        check_contract(net, clip)
        reference = nn.Linear(4, 3, bias, dtype=dtype)
        reference.load_state_dict(net.state_dict())
        assert_equal(net(clip), reference(clip.movedim(dim, -1)).movedim(-1, dim))
    check_gradients(net.double(), clip.double())


REFUSED = {
    "the default on (B, C, T)": ((2, 5, 4), -1, "channel_dim=-1.*3 dimensions would mix time.*channel_dim=1"),
    "time by number": ((2, 5, 4), 2, "would mix time"),
    "time of (B, C, T, S)": ((2, 5, 4, 3), -2, "would mix time"),
    "batch": ((4, 5, 4), 0, "is the batch"),
    "no such dimension": ((2, 5, 4), 3, "names no dimension"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mixing_time_is_refused_in_every_mode(name: str):
    shape, dim, message = REFUSED[name]
    clip, net = torch.zeros(shape), co.Linear(4, 4, channel_dim=dim)
    for run in (net.forward, net.forward_steps, lambda x: net.forward_step(x[:, :, 0])):
        with pytest.raises(co.NotStreamable, match=message):
            run(clip)


def test_build_from():
    layer = nn.Linear(4, 3)
    net = co.Linear.build_from(layer, channel_dim=1)
    assert net.channel_dim == 1
    assert torch.equal(net.weight, layer.weight)
    check_contract(net.double(), torch.randn(2, 4, 9, dtype=torch.float64))


def test_the_number_of_features_is_checked():
    with pytest.raises(co.ShapeMismatch, match=r"expects 4 features in dim 1.*\(2, 3\)"):
        co.Linear(4, 3, channel_dim=1).forward_step(torch.zeros(2, 3))


def test_arguments_that_build_from_does_not_know():
    for name in ("stride", "padding", "kernel_size"):
        with pytest.raises(TypeError, match=f"unknown argument '{name}'"):
            co.Linear.build_from(nn.Linear(4, 3), **{name: 2})
