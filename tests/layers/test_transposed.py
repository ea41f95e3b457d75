"""`ConvTranspose1d`, `2d`, `3d`: every option, against `torch.nn` and the contract."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from continual.core.resampling import Upsampling
from tests.contract import check_contract, check_gradients, check_layer, clip_of, run

CLASSES = {
    1: (co.ConvTranspose1d, nn.ConvTranspose1d),
    2: (co.ConvTranspose2d, nn.ConvTranspose2d),
    3: (co.ConvTranspose3d, nn.ConvTranspose3d),
}
SPACE = {1: (), 2: (5,), 3: (4, 3)}

# (dimensions, in and out channels, kernel, options)
LAYERS: dict[str, tuple[int, int, int, Any, dict[str, Any]]] = {
    "1d": (1, 2, 3, 3, {}),
    "1d k1": (1, 2, 3, 1, {}),
    "1d k1 no bias": (1, 2, 3, 1, {"bias": False}),
    "1d padding": (1, 2, 3, 3, {"padding": 1}),
    "1d causal": (1, 2, 3, 3, {"padding": 2}),
    "1d padding > kernel": (1, 2, 3, 2, {"padding": 3}),
    "1d dilation": (1, 2, 3, 3, {"dilation": 2, "padding": 1}),
    "1d dilation, output padding": (1, 2, 3, 2, {"dilation": 3, "output_padding": 2}),
    "1d ×2": (1, 2, 3, 2, {"stride": 2}),
    "1d ×2 k4": (1, 2, 3, 4, {"stride": 2, "padding": 1}),
    "1d ×2 k4 causal": (1, 2, 3, 4, {"stride": 2, "padding": 2}),
    "1d ×2 k3": (1, 2, 3, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
    "1d ×2 k3 no bias": (1, 3, 2, 3, {"stride": 2, "bias": False}),
    "1d ×2 k5": (1, 2, 3, 5, {"stride": 2, "padding": 2, "output_padding": 1}),
    "1d ×2 k6": (1, 2, 3, 6, {"stride": 2, "padding": 2}),
    "1d ×3 k7": (1, 2, 3, 7, {"stride": 3, "padding": 2}),
    "1d ×4 k8": (1, 2, 3, 8, {"stride": 4, "padding": 2}),
    "1d ×2 output padding": (1, 2, 3, 2, {"stride": 2, "output_padding": 1}),
    "1d gaps": (1, 2, 3, 2, {"stride": 4}),
    "1d gaps k1": (1, 2, 3, 1, {"stride": 3, "padding": 1}),
    "1d gaps, output padding": (1, 2, 3, 1, {"stride": 3, "output_padding": 2}),
    "1d gaps partly filled": (1, 2, 3, 2, {"stride": 4, "output_padding": 1}),
    "1d gaps between taps": (1, 2, 3, 2, {"stride": 2, "dilation": 3}),
    "1d nothing but output padding": (1, 2, 3, 1, {"stride": 2, "dilation": 5, "output_padding": 4}),
    "1d ×2 padding > kernel": (1, 2, 3, 2, {"stride": 2, "padding": 5}),
    "1d ×2 dilation": (1, 2, 3, 3, {"stride": 2, "dilation": 2, "padding": 1, "output_padding": 1}),
    "1d ×3 dilation": (1, 2, 3, 3, {"stride": 3, "dilation": 4, "padding": 3, "output_padding": 3}),
    "1d groups": (1, 4, 6, 3, {"groups": 2, "padding": 1}),
    "1d ×2 groups": (1, 4, 2, 4, {"stride": 2, "groups": 2, "padding": 1}),
    "1d ×2 depthwise": (1, 3, 3, 4, {"stride": 2, "groups": 3, "padding": 1}),
    "2d": (2, 2, 3, 3, {}),
    "2d ×2": (2, 2, 3, 2, {"stride": 2}),
    "2d ×2 k4": (2, 2, 3, 4, {"stride": 2, "padding": 1}),
    "2d ×2 time alone": (2, 2, 3, (4, 1), {"stride": (2, 1), "padding": (1, 0)}),
    "2d ×2 time alone, k3": (2, 2, 3, (3, 1), {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0), "bias": False}),
    "2d space alone": (2, 2, 3, (1, 4), {"stride": (1, 2), "padding": (0, 1)}),
    "2d all different": (2, 2, 3, (3, 2), {"stride": (2, 3), "padding": (2, 1), "output_padding": (0, 2), "dilation": (1, 3)}),
    "2d ×2 k3": (2, 2, 3, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
    "2d ×2 groups": (2, 4, 2, 3, {"stride": (2, 1), "groups": 2, "padding": 1}),
    "3d": (3, 2, 3, 3, {"padding": 1}),
    "3d ×2": (3, 2, 3, 2, {"stride": 2}),
    "3d ×2 k4": (3, 2, 2, 4, {"stride": 2, "padding": 1}),
    "3d ×2 k3, time alone": (3, 2, 3, (3, 1, 1), {"stride": (2, 1, 1), "padding": (1, 0, 0)}),
    "3d all different": (3, 2, 3, (5, 2, 1), {"stride": (2, 1, 2), "padding": (1, 1, 0), "output_padding": (1, 0, 1)}),
    "3d ×2 depthwise": (3, 3, 3, (2, 3, 3), {"stride": (2, 1, 1), "padding": (0, 1, 1), "groups": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str):
    dims, inputs, outputs, kernel, options = LAYERS[name]
    ours, theirs = CLASSES[dims]
    args = (inputs, outputs, kernel)
    check_layer(ours(*args, **options), theirs(*args, **options), (3, inputs, 13, *SPACE[dims]))


@pytest.mark.parametrize("name", ["1d ×2 k3", "1d gaps partly filled", "1d ×3 dilation", "2d ×2 k4", "3d all different"])
def test_verify(name: str):
    dims, inputs, outputs, kernel, options = LAYERS[name]
    reference = CLASSES[dims][1](inputs, outputs, kernel, **options)
    co.verify(co.continual(reference), torch.randn(2, inputs, 24, *SPACE[dims]), reference=reference)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_among_others(name: str):
    """After a layer whose end is known early, and before one that waits: counts come from the wire, not from the clip."""
    dims, inputs, _, kernel, options = LAYERS[name]
    ours = CLASSES[dims][0](inputs, inputs, kernel, **{**options, "groups": 1})
    net = co.Sequential(co.Trim(1), co.Delay(3), ours, co.Delay(2), co.Trim(2, 1)).double()
    check_contract(net, torch.randn(2, inputs, 16, *SPACE[dims], dtype=torch.float64))


@pytest.mark.parametrize("steps", range(1, 6))
@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": 3}, {"stride": 2, "padding": 2}, {"stride": 2, "padding": 4}, {"stride": 3}], ids=str
)
def test_short_clips(options: dict[str, int], steps: int):
    """A clip of which the padding leaves nothing is refused; the stream then ends without outputs."""
    net, reference = co.ConvTranspose1d(2, 3, 2, **options).double(), nn.ConvTranspose1d(2, 3, 2, **options).double()
    net.load_state_dict(reference.state_dict())
    clip = torch.randn(2, 2, steps, dtype=torch.float64)
    theirs = clip_of(reference, clip)
    if theirs is None or theirs.shape[2] == 0:  # torch gives an empty clip if exactly nothing is left
        with pytest.raises(
            co.ShapeMismatch, match=f"a clip of {steps} steps is too short: padding cuts {options['padding']} frames"
        ):
            net(clip)
        assert run(net, clip, [1] * steps) is None
    check_contract(net, clip, reference if theirs is not None and theirs.shape[2] else None)


def test_what_it_reports():
    net = co.ConvTranspose3d(2, 3, (4, 2, 1), stride=(2, 1, 3), padding=(1, 1, 0))
    assert (net.receptive_field, net.delay, net.stride, net.padding) == (2, 0, (Fraction(1, 2), 1, 3), (1, 1, 0))
    assert net.timing == Upsampling(2, 4, 1)
    assert net.timing.bursts
    assert "stride=(2, 1, 3)" in repr(net)
    plain = co.ConvTranspose1d(2, 3, 3, padding=1)
    assert (plain.receptive_field, plain.delay, plain.stride, plain.timing.bursts) == (3, 1, (1,), False)
    with torch.no_grad():
        assert [None if y is None else y.shape for y in map(plain.forward_step, torch.randn(3, 1, 2))] == [None, (1, 3), (1, 3)]


def test_steps_return_their_outputs_stacked():
    net = co.ConvTranspose1d(2, 3, 4, stride=2, padding=1)
    assert [net.forward_step(torch.randn(1, 2)).shape[2] for _ in range(3)] == [1, 2, 2]
    assert net.forward_steps(torch.randn(1, 2, 0), pad_end=True).shape[2] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype: torch.dtype):
    check_contract(co.ConvTranspose2d(3, 4, 3, stride=2, padding=1).to(dtype), torch.randn(2, 3, 9, 5).to(dtype))


def test_one_infinite_frame_shows_where_it_shows_in_the_clip():
    """No tap is added for the sake of a rectangular product: zero times infinity is NaN."""
    net = co.ConvTranspose1d(1, 1, 3, stride=2).double()
    clip = torch.randn(1, 1, 9, dtype=torch.float64)
    clip[:, :, 4] = torch.inf
    with torch.no_grad():
        wanted = net(clip)
        found = run(net, clip, [1] * 9 + [0], lambda: True)
    assert torch.equal(wanted.isfinite(), found.isfinite())
    assert (~wanted.isfinite()).sum() == 3


def test_no_error_accumulates():
    """After ten thousand steps the outputs are those of a clip that begins a window before."""
    net = co.ConvTranspose1d(4, 4, 5, stride=2, padding=1)
    frames = torch.randn(1, 4, 64)
    with torch.no_grad():
        for i in range(10_000):
            y = net.forward_step(frames[:, :, i % 64])
        tail = torch.stack([frames[:, :, i % 64] for i in range(9990, 10_000)], 2)
        torch.testing.assert_close(y, net(tail)[:, :, 17:19], rtol=0, atol=1e-6)


def test_new_weights_and_a_new_bias_are_used():
    net, other = co.ConvTranspose1d(2, 3, 4, 2, 1), nn.ConvTranspose1d(2, 3, 4, 2, 1)
    clip = torch.randn(2, 2, 8)
    with torch.no_grad():
        net.forward_step(clip[:, :, 0])
        net.weight.copy_(other.weight)
        net.bias.copy_(other.bias)
        net.clean_state()
        torch.testing.assert_close(run(net, clip, [1] * 8 + [0], lambda: True), other(clip))


def test_conversion_keeps_weights_and_options():
    layer = nn.ConvTranspose2d(4, 6, (4, 3), stride=(2, 1), padding=(1, 1), output_padding=(1, 0), groups=2, bias=False)
    net = co.continual(nn.Sequential(layer, nn.ReLU())).double()
    check_contract(net, torch.randn(2, 4, 11, 5, dtype=torch.float64), nn.Sequential(layer, nn.ReLU()).double())
    assert type(net[0]) is co.ConvTranspose2d
    assert net[0].stride == (Fraction(1, 2), 1)
    assert layer.stride == (2, 1)
    wider = co.ConvTranspose1d.build_from(nn.ConvTranspose1d(2, 2, 3, stride=2), output_padding=(1,))
    assert wider.timing == Upsampling(2, 3, 0, 1)


def test_weight_norm():
    layer = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(2, 3, 4, 2, 1)).double()
    net = co.continual(layer)
    clip = torch.randn(2, 2, 9, dtype=torch.float64)
    check_contract(net, clip, layer)
    check_gradients(net, clip)


def test_output_size_is_taken_where_it_changes_nothing():
    net = co.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1)
    clip = torch.randn(1, 2, 5)
    assert torch.equal(net(clip, output_size=[10]), net(clip))
    with pytest.raises(co.NotStreamable, match=r"output_size=\(9,\) asks for output_padding=\(0,\).*output_padding=\(1,\)"):
        net(clip, output_size=[9])
    with pytest.raises(ValueError, match="requested an output size"):
        net(clip, output_size=[30])
    assert net(torch.randn(2, 5)).shape == (3, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_padding": 1}, "output_padding must be smaller than stride or dilation"),
        ({"stride": 2, "output_padding": 2}, "output_padding must be smaller than stride or dilation"),
        ({"padding": -1}, "at least 0"),
        ({"stride": 0}, "at least 1"),
        ({"padding_mode": "reflect"}, 'Only "zeros" padding mode'),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        co.ConvTranspose1d(1, 1, 3, **options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 3, 4), r"expects steps \(B, 2, W\), got \(2, 3, 4\)"), ((2, 2), r"expects steps \(B, 2, W\)"),
     ((2, 2, 1), r"padding \(2,\) cuts off all of a frame of \(1,\)")],
)  # fmt: skip
def test_wrong_steps(shape: tuple[int, ...], message: str):
    with pytest.raises(co.ShapeMismatch, match=message):
        co.ConvTranspose2d(2, 2, (2, 3), stride=(2, 1), padding=(0, 2)).forward_step(torch.randn(shape))


def test_multiply_adds():
    """A step of the input costs all taps once, however many outputs that gives."""
    net = co.ConvTranspose2d(4, 6, 3, stride=2, padding=1)
    row = co.summary(net, torch.zeros(1, 4, 5)).rows[0]
    assert row.macs_step == 5 * 4 * 6 * 9
