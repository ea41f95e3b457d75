"""Adaptive pools, and long windows, which are computed by blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients

ADAPTIVE = {
    "avg 1d": (co.AdaptiveAvgPool1d, nn.AdaptiveAvgPool1d, 1, ()),
    "max 1d": (co.AdaptiveMaxPool1d, nn.AdaptiveMaxPool1d, 1, ()),
    "avg 2d": (co.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d, (1, 2), (7,)),
    "max 2d": (co.AdaptiveMaxPool2d, nn.AdaptiveMaxPool2d, 1, (7,)),
    "avg 3d": (co.AdaptiveAvgPool3d, nn.AdaptiveAvgPool3d, (1, 2, 3), (5, 7)),
    "max 3d": (co.AdaptiveMaxPool3d, nn.AdaptiveMaxPool3d, 1, (5, 7)),
    "avg 3d keeps a size": (co.AdaptiveAvgPool3d, nn.AdaptiveAvgPool3d, (1, None, 1), (5, 7)),
}


@pytest.mark.parametrize("window", [1, 4, 12])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_clip_as_long_as_the_window_gives_what_torch_gives(name: str, window: int):
    ours, theirs, size, space = ADAPTIVE[name]
    net, clip = ours(size, kernel_size=window), torch.randn(2, 3, 27, *space, dtype=torch.float64)
    assert net.delay == net.receptive_field - 1 == window - 1
    for start in (0, 5):
        part = clip[:, :, start : start + window]
        assert_equal(net(part), theirs(size)(part))
    check_contract(net, clip)


@pytest.mark.parametrize("frames", [1, 11])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_clip_that_is_shorter_than_the_window_has_one_output(name: str, frames: int):
    """Of what there is, as torch.nn has it; a stream that ends so early gives it at its end."""
    ours, theirs, size, space = ADAPTIVE[name]
    clip = torch.randn(2, 3, frames, *space, dtype=torch.float64) - 3
    for window in (4, 12):
        if frames < window:
            net = ours(size, kernel_size=window)
            check_contract(net, clip, theirs(size))
            assert_equal(net.forward_steps(clip, pad_end=True), theirs(size)(clip))
            assert net.forward_steps(clip[:, :, :0], pad_end=True) is not None  # the stream goes on
    check_gradients(ours(size, kernel_size=12), clip)


@pytest.mark.parametrize(
    "kernel, stride, padding, dilation", [(4, 1, 0, 1), (9, 5, 0, 1), (5, 2, 2, 1), (3, 2, 1, 3), (12, 1, 3, 1)]
)
def test_a_short_stream_in_a_network(kernel: int, stride: int, padding: int, dilation: int):
    """What comes behind sees one frame, and so does what waits beside."""
    cls = co.AdaptiveAvgPool1d if kernel % 2 else co.AdaptiveMaxPool1d
    pool = cls(1, kernel, stride, padding, dilation)
    for net in (
        co.Sequential(co.Conv1d(3, 3, 3, 2, 1), pool, co.Conv1d(3, 2, 1), co.Delay(2)),
        co.BroadcastReduce(pool, co.Sequential(co.Conv1d(3, 3, 1), pool)),
        co.Sequential(pool, co.Conv1d(3, 3, 3, padding=1)),
        co.Sequential(pool, co.Trim(0, 1)),
    ):
        for frames in (1, kernel - 1, 2 * kernel):
            check_contract(net.double(), torch.randn(2, 3, frames, dtype=torch.float64))


@pytest.mark.parametrize(
    "options", [{"stride": 3}, {"padding": 2}, {"dilation": 2}, {"padding": 2, "temporal_fill": "replicate"}]
)
def test_options(options: dict[str, object]):
    check_contract(co.AdaptiveAvgPool2d((1, 2), kernel_size=5, **options), torch.randn(2, 3, 30, 7, dtype=torch.float64))
    check_contract(co.AdaptiveMaxPool1d(1, kernel_size=5, **options), torch.randn(2, 3, 30, dtype=torch.float64))


def test_build_from_needs_the_window():
    net = co.AdaptiveAvgPool3d.build_from(nn.AdaptiveAvgPool3d(1), kernel_size=6)
    assert (net.receptive_field, net.output_size) == (6, (1, 1, 1))
    with pytest.raises(ValueError, match="needs kernel_size"):
        co.AdaptiveAvgPool3d.build_from(nn.AdaptiveAvgPool3d(1))
    with pytest.raises(ValueError, match="output_size is 1 over time"):
        co.AdaptiveAvgPool1d(2, kernel_size=6)


LONG = [
    (kind, kernel, stride, padding, extra)
    for kernel in (9, 16)
    for stride in (1, 5, 20)
    for padding in (0, kernel // 2)
    for kind, extra in (
        (co.AvgPool1d, {}),
        (co.AvgPool1d, {"ceil_mode": True, "count_include_pad": False}),
        (co.MaxPool1d, {"ceil_mode": True}),
        (co.MaxPool1d, {"temporal_fill": "zeros"}),
    )
]


@pytest.mark.parametrize("kind, kernel, stride, padding, extra", LONG)
def test_long_windows(kind: type, kernel: int, stride: int, padding: int, extra: dict[str, object]):
    net = kind(kernel, stride, padding, **extra)
    assert "blocks" in net.init_state(torch.zeros(1, 3)).tensors
    check_contract(net, torch.randn(2, 3, 53, dtype=torch.float64))


def test_ties_give_their_gradient_to_the_earlier_frame():
    """As torch.nn does; a maximum of two would split it."""
    for net in (co.MaxPool1d(11, 1, 5), co.MaxPool1d(3, 1, 1), co.MaxPool3d(3, 1, 1)):
        shape = (2, 2, 30) if net.dims == 1 else (2, 2, 12, 4, 5)
        check_gradients(net, torch.randint(0, 3, shape).double())


def test_a_long_average_does_not_drift():
    net, big = co.AvgPool1d(100, 1), torch.randn(1, 1, 20_000) * 1e6
    quiet = torch.randn(1, 1, 100)
    with torch.no_grad():
        net.forward_steps(big)
        last: Tensor = net.forward_steps(quiet)[:, :, -1]
    assert_equal(last, quiet.mean(2))


def test_nan_leaves_a_long_window_with_its_frame():
    clip = torch.randn(1, 1, 80)
    clip[:, :, 20] = torch.nan
    with torch.no_grad():
        for kind in (co.AvgPool1d, co.MaxPool1d):
            y = kind(12, 1).forward_steps(clip)
            assert y.isnan().nonzero()[:, 2].tolist() == list(range(20 - 11, 21))
