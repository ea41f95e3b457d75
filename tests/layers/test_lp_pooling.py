"""Power-average pooling: every norm and option, against `torch.nn` and the contract."""

import math

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients, check_layer
from tests.long import by_turns

POOLS = {1: (co.LPPool1d, nn.LPPool1d), 2: (co.LPPool2d, nn.LPPool2d), 3: (co.LPPool3d, nn.LPPool3d)}
SPACE = {1: (), 2: (5,), 3: (5, 8)}

CASES = {
    "1d": (1, 2, 3, {}),
    "1d k1": (1, 2, 1, {}),
    "1d stride 1": (1, 2, 3, {"stride": 1}),
    "1d stride > kernel": (1, 4, 2, {"stride": 3}),
    "1d sum": (1, 1, 3, {"stride": 2}),
    "1d ceil": (1, 2, 3, {"stride": 2, "ceil_mode": True}),
    "1d ceil, stride > kernel": (1, 2, 2, {"stride": 3, "ceil_mode": True}),
    "1d long": (1, 2, 11, {"stride": 1}),
    "1d long, ceil": (1, 6, 10, {"stride": 4, "ceil_mode": True}),
    "1d max": (1, math.inf, 3, {"stride": 1}),
    "1d max, long, ceil": (1, math.inf, 10, {"stride": 3, "ceil_mode": True}),
    "1d min": (1, -math.inf, 2, {"stride": 1}),
    "1d min, long": (1, -math.inf, 9, {"stride": 2}),
    "2d": (2, 2, 2, {}),
    "2d time only": (2, 2, (3, 1), {"stride": 1}),
    "2d space only": (2, 4, (1, 3), {"stride": (1, 2)}),
    "2d all different": (2, 2.0, (3, 2), {"stride": (2, 1)}),
    "2d ceil": (2, 2, (3, 2), {"stride": (2, 2), "ceil_mode": True}),
    "2d long": (2, 2, (9, 2), {"stride": 1}),
    "2d max": (2, math.inf, (3, 2), {"stride": (1, 2), "ceil_mode": True}),
    "3d": (3, 2, 2, {}),
    "3d all different": (3, 4, (3, 2, 3), {"stride": (1, 2, 1)}),
    "3d ceil": (3, 2, (2, 3, 2), {"stride": (3, 2, 3), "ceil_mode": True}),
    "3d long": (3, 2, (9, 2, 2), {"stride": (2, 2, 2), "ceil_mode": True}),
    "3d min": (3, -math.inf, 2, {"stride": 1}),
}


@pytest.mark.parametrize("name", by_turns(CASES, 2))
def test_lp_pool(name: str):
    dims, norm, kernel, options = CASES[name]
    ours, theirs = POOLS[dims]
    net, reference = ours(norm, kernel, **options), theirs(norm, kernel, **options)
    check_layer(net, reference, (3, 2, 31, *SPACE[dims]))
    assert type(co.continual(reference)) is ours
    assert co.verify(net, torch.randn(2, 2, 25, *SPACE[dims]), reference).passed


# Powers that torch takes of values below 0 are NaN, or cancel: compared on magnitudes, and where NaN is, on any values.
POSITIVE = {
    "odd": (3, 3, {"stride": 1}),
    "odd, long": (5, 12, {"stride": 1}),
    "fractional": (1.5, 3, {"stride": 2}),
    "below 1": (0.5, 2, {"ceil_mode": True}),
    "harmonic": (-1.0, 3, {"stride": 1}),
    "negative": (-2.5, 2, {"stride": 1}),
}


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("dims", [1, 2])
def test_norms_of_magnitudes(dims: int, name: str):
    norm, kernel, options = POSITIVE[name]
    ours, theirs = POOLS[dims]
    net, reference = ours(norm, kernel, **options), theirs(norm, kernel, **options)
    clip = torch.rand(3, 2, 31, *(15,) * (dims - 1), dtype=torch.float64) + 0.1
    check_contract(net, clip, reference)
    check_gradients(net, clip)


@pytest.mark.parametrize("norm", [1, 3, 1.5, -1.0, 2, math.inf, -math.inf])
def test_negative_values_and_zeros(norm: float):
    """Signs, zeros, NaN and infinities are those of torch; so are the gradients of sums that are 0."""
    clip = torch.tensor([[[0.0, 0.0, 0.0, 1.0, -1.0, 1.0, 2.0, -3.0, -0.5, 0.25, 0.0, 0.0, 0.0, 4.0, 4.0]]], dtype=torch.float64)
    clip = torch.cat((clip, -clip))
    net, reference = co.LPPool1d(norm, 2, 1), nn.LPPool1d(norm, 2, 1)
    check_contract(net, clip, reference)
    grads = []
    for run in (reference, lambda x: net.forward_steps(x, pad_end=True)):
        x = clip.clone().requires_grad_()
        grads += torch.autograd.grad(run(x).nan_to_num(0, 0, 0).sum(), x)
    assert_equal(*grads, "gradients")
    check_gradients(net, clip)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("dims", POOLS)
def test_a_clip_shorter_than_the_kernel(dims: int, steps: int):
    """With ceil_mode its window has an output (nn.LPPool3d refuses it)."""
    net = POOLS[dims][0](2, (3, *(2,) * (dims - 1)), stride=(2, *(2,) * (dims - 1)), ceil_mode=True)
    check_contract(
        net, torch.randn(2, 2, steps, *SPACE[dims], dtype=torch.float64), POOLS[dims][1](2, 3, 2, True) if dims == 1 else None
    )


@pytest.mark.parametrize("norm", [0, 0.0, math.nan])
def test_norms_that_are_none(norm: float):
    with pytest.raises(ValueError, match="norm_type is a number other than 0"):
        co.LPPool1d(norm, 2)


def test_arguments_are_those_of_torch():
    assert repr(co.LPPool2d(2, 3, 1, True)).endswith("kernel_size=(3, 3), stride=(1, 1), ceil_mode=True)")
    assert co.LPPool1d.build_from(nn.LPPool1d(2, 3), stride=1).timing.stride == 1
    with pytest.raises(TypeError):
        co.LPPool1d(2, 3, padding=1)
    with pytest.raises(TypeError, match="unknown argument 'padding'"):
        co.LPPool1d.build_from(nn.LPPool1d(2, 3), padding=1)
