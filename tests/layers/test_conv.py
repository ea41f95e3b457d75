"""`Conv1d`, `Conv2d`, `Conv3d`: every option, against `torch.nn` and the contract."""

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import continual as co
from continual import PaddingMode
from tests.contract import TimePadded, check_contract, check_layer
from tests.long import by_turns

CLASSES = {1: (co.Conv1d, nn.Conv1d), 2: (co.Conv2d, nn.Conv2d), 3: (co.Conv3d, nn.Conv3d)}
SPACE = {1: (), 2: (5,), 3: (5, 7)}

# (dimensions, in and out channels, kernel, options)
LAYERS = {
    "1d": (1, 2, 3, 3, {}),
    "1d k1": (1, 2, 3, 1, {}),
    "1d k2 p1": (1, 2, 3, 2, {"padding": 1}),
    "1d k5 p2 no bias": (1, 3, 2, 5, {"padding": 2, "bias": False}),
    "1d stride": (1, 2, 3, 3, {"stride": 2, "padding": 1}),
    "1d stride > kernel": (1, 2, 3, 2, {"stride": 3}),
    "1d dilation": (1, 2, 3, 3, {"dilation": 3, "padding": 3}),
    "1d dilation and stride": (1, 2, 3, 3, {"dilation": 2, "stride": 3, "padding": 1}),
    "1d causal": (1, 2, 3, 3, {"padding": 2}),
    "1d padding > kernel": (1, 2, 3, 3, {"padding": 4}),
    "1d padding > kernel, stride": (1, 2, 3, 2, {"padding": 5, "stride": 2}),
    "1d k1 padded": (1, 2, 3, 1, {"padding": 2}),
    "1d same odd": (1, 2, 3, 5, {"padding": "same"}),
    "1d same even": (1, 2, 3, 4, {"padding": "same"}),
    "1d same even dilated": (1, 2, 3, 2, {"padding": "same", "dilation": 3}),
    "1d valid": (1, 2, 3, 3, {"padding": "valid"}),
    "1d groups": (1, 4, 6, 3, {"groups": 2, "padding": 1}),
    "1d depthwise": (1, 3, 3, 3, {"groups": 3, "padding": 1}),
    "1d depthwise ×2": (1, 3, 6, 3, {"groups": 3, "padding": 1}),
    "1d depthwise dilated no bias": (1, 3, 3, 3, {"groups": 3, "dilation": 2, "bias": False}),
    "1d replicate": (1, 2, 3, 3, {"padding": 1, "padding_mode": "replicate"}),
    "1d replicate wide": (1, 2, 3, 3, {"padding": 4, "padding_mode": "replicate"}),
    "1d replicate k1": (1, 2, 3, 1, {"padding": 1, "padding_mode": "replicate"}),
    "1d replicate same even": (1, 2, 3, 4, {"padding": "same", "padding_mode": "replicate"}),
    "1d reflect": (1, 2, 3, 5, {"padding": 2, "padding_mode": "reflect"}),
    "1d reflect stride": (1, 2, 3, 5, {"padding": 2, "padding_mode": "reflect", "stride": 2}),
    "1d reflect wide": (1, 2, 3, 3, {"padding": 3, "padding_mode": "reflect"}),
    "1d reflect same even": (1, 2, 3, 4, {"padding": "same", "padding_mode": "reflect"}),
    "1d circular without padding": (1, 2, 3, 3, {"padding_mode": "circular"}),
    "2d": (2, 2, 3, 3, {}),
    "2d skeleton": (2, 2, 3, (9, 1), {"padding": (4, 0)}),
    "2d all different": (2, 2, 3, (3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 1)}),
    "2d spatial stride": (2, 2, 3, (2, 3), {"stride": (1, 2), "padding": (1, 1)}),
    "2d same": (2, 2, 3, (3, 2), {"padding": "same"}),
    "2d same even": (2, 2, 3, (4, 3), {"padding": "same", "bias": False}),
    "2d groups": (2, 4, 2, 3, {"groups": 2, "padding": 1}),
    "2d depthwise": (2, 3, 3, 3, {"groups": 3, "padding": 1, "dilation": (2, 1)}),
    "2d replicate": (2, 2, 3, 3, {"padding": (1, 2), "padding_mode": "replicate"}),
    "2d reflect": (2, 2, 3, 3, {"padding": 1, "padding_mode": "reflect"}),
    "2d circular space": (2, 2, 3, 3, {"padding": (0, 1), "padding_mode": "circular"}),
    "2d circular space grouped": (2, 2, 4, 3, {"padding": (0, 1), "padding_mode": "circular", "groups": 2}),
    "3d": (3, 2, 3, 3, {"padding": 1}),
    "3d 1×1×1": (3, 2, 3, 1, {}),
    "3d time only": (3, 2, 3, (3, 1, 1), {"padding": (1, 0, 0)}),
    "3d space only": (3, 2, 3, (1, 3, 3), {"padding": (0, 1, 1), "stride": (1, 2, 2)}),
    "3d all different": (3, 2, 3, (2, 3, 1), {"stride": (1, 2, 3), "padding": (1, 2, 0), "dilation": (2, 1, 2)}),
    "3d temporal stride": (3, 2, 3, (3, 2, 2), {"stride": (2, 1, 1), "padding": (1, 0, 1)}),
    "3d same": (3, 2, 2, (2, 3, 2), {"padding": "same"}),
    "3d groups": (3, 4, 2, (3, 1, 2), {"groups": 2}),
    "3d depthwise": (3, 3, 3, 3, {"groups": 3, "padding": 1}),
    "3d depthwise stride": (3, 3, 6, 3, {"groups": 3, "padding": 1, "stride": (1, 2, 2), "bias": False}),
    "2d depthwise over time": (2, 3, 3, (3, 1), {"groups": 3, "padding": (1, 0)}),
    "3d depthwise over time": (3, 3, 3, (5, 1, 1), {"groups": 3, "padding": (2, 0, 0), "bias": False}),
    "3d depthwise over time, dilation and stride": (
        3,
        3,
        3,
        (3, 1, 1),
        {"groups": 3, "dilation": (2, 1, 1), "stride": (3, 1, 1)},
    ),
    "3d depthwise ×2 over time": (3, 3, 6, (3, 1, 1), {"groups": 3}),
    "3d k1": (3, 2, 3, 1, {}),
    "3d many channels": (3, 8, 5, 3, {"padding": 1}),
    "3d many channels, dilated": (3, 8, 5, 3, {"padding": (3, 1, 2), "dilation": (3, 1, 2)}),
    "3d many channels, stride": (3, 8, 5, (4, 3, 2), {"padding": 1, "stride": (3, 2, 1), "bias": False}),
    "3d many channels, over space": (3, 8, 5, (1, 3, 2), {"padding": (0, 1, 1), "stride": (1, 2, 1)}),
    "3d many channels, mirrored": (3, 8, 5, 3, {"padding": 1, "padding_mode": "reflect"}),
    "3d replicate": (3, 2, 3, 3, {"padding": 1, "padding_mode": "replicate"}),
    "3d reflect": (3, 2, 3, 3, {"padding": 1, "padding_mode": "reflect"}),
    "3d circular space": (3, 2, 3, 3, {"padding": (0, 1, 2), "padding_mode": "circular"}),
}


@pytest.mark.parametrize("dims", CLASSES)
def test_a_step_as_a_clip_is_refused_with_the_way_to_step(dims: int):
    net = co.Sequential(CLASSES[dims][0](3, 2, 3, padding=1), nn.ReLU()).eval()
    step = torch.randn(2, 3, *SPACE[dims])
    with pytest.raises(co.ShapeMismatch, match=r"a clip is \(B, 3, T.*which is a step: write net.forward_step\(x\)"):
        net(step)
    assert net(torch.randn(3, *(5,) * dims)).shape == (2, *(5,) * dims)  # a clip without a batch, as in torch.nn
    net.forward_step(step)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str):
    dims, inputs, outputs, kernel, options = LAYERS[name]
    ours, theirs = CLASSES[dims]
    args = (inputs, outputs, kernel)
    check_layer(ours(*args, **options), theirs(*args, **options), (3, inputs, 19, *SPACE[dims]))


@pytest.mark.parametrize("bias", [True, False])
def test_channels_stay_last(bias: bool):
    """Frames whose channels are last in memory stay so through convolutions with a kernel of 1 and depthwise ones: nothing is copied."""
    layers = [
        co.Conv3d(3, 4, 1, bias=bias),
        co.Conv3d(4, 4, 3, groups=4, padding=1, bias=bias),
        co.Conv3d(4, 4, (3, 1, 1), groups=4, bias=bias),
    ]
    net = co.Sequential(*layers).double()
    clip = torch.randn(2, 3, 9, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        found = [net.forward_step(f.contiguous(memory_format=torch.channels_last)) for f in clip.unbind(2)]
        given = [y for y in found if y is not None]
        assert all(y.is_contiguous(memory_format=torch.channels_last) for y in given)
        torch.testing.assert_close(torch.stack(given, 2), net(clip)[:, :, : len(given)], rtol=0, atol=1e-12)


def test_weights_that_onednn_has_laid_out_are_verified_and_copied():
    """They are tensors without a storage."""
    net = co.Conv3d(8, 5, 3, padding=1)
    clip = torch.randn(2, 8, 9, 5, 4)
    assert co.verify(net, clip, reference=nn.Conv3d.forward.__get__(net)).passed
    with torch.no_grad():
        net.forward_steps(clip[:, :, :4])
        for t in (4, 5):
            y = net.forward_step(clip[:, :, t])
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            other.set_state(net.get_state())
            assert torch.equal(other.forward_step(clip[:, :, 6]), net.forward_step(clip[:, :, 6], update_state=False))
    assert y is not None


LARGE = [name for name in LAYERS if "many channels" in name]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame counts as one that is too large to be joined with others."""
    monkeypatch.setattr("continual.layers.conv.LARGE", 1)


@pytest.mark.parametrize("name, dtype", by_turns(itertools.product(LARGE, [torch.float32, torch.float64]), 2))
def test_large_frames(name: str, dtype: torch.dtype, large: None):
    """In single precision a convolution for each image of a window; in double, where oneDNN has none, joined all the same."""
    _, inputs, outputs, kernel, options = LAYERS[name]
    net, plain = co.Conv3d(inputs, outputs, kernel, **options).to(dtype), nn.Conv3d(inputs, outputs, kernel, **options).to(dtype)
    plain.load_state_dict(net.state_dict())
    clip = torch.randn(3, inputs, 19, *SPACE[3], dtype=dtype)
    assert co.verify(net, clip, reference=plain, splits=3).passed
    image_by_image = dtype is torch.float32 and net.kernel_size[0] > 1 and net.padding_mode == "zeros"
    assert ("tap" in net._layouts) == image_by_image


def test_large_frames_in_halves_and_watched(large: None):
    """Under autocast, and while operations are counted, they are joined: a stream may change between the two at any step."""
    net = co.Conv3d(8, 5, 3, padding=1)
    clip = torch.randn(2, 8, 9, 5, 7)
    want = net(clip).detach()
    with torch.no_grad():
        for t in range(4):
            y = net.forward_step(clip[:, :, t])
        torch.testing.assert_close(y, want[:, :, 2])
        with FlopCounterMode(display=False) as counter:
            y = net.forward_step(clip[:, :, 4])
        torch.testing.assert_close(y, want[:, :, 3])
        assert counter.get_total_flops() == 2 * 2 * net.weight.numel() * 5 * 7
        with torch.autocast("cpu", torch.bfloat16):
            y = net.forward_step(clip[:, :, 5])
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), want[:, :, 4], rtol=0.05, atol=0.05)
        torch.testing.assert_close(net.forward_step(clip[:, :, 6]), want[:, :, 5])


FILLED = {
    "1d replicate": (1, 3, 1, {}, "replicate"),
    "1d reflect": (1, 5, 2, {}, "reflect"),
    "1d zeros over replicate": (1, 3, 1, {"padding_mode": "replicate"}, "zeros"),
    "1d PaddingMode": (1, 3, 2, {"stride": 2}, PaddingMode.REPLICATE),
    "1d replicate wide": (1, 2, 4, {"dilation": 2}, "replicate"),
    "1d depthwise": (1, 3, 2, {"groups": 2}, "replicate"),
    "2d replicate over zeros in space": (2, 3, 1, {}, "replicate"),
    "2d zeros over reflect in space": (2, 3, 1, {"padding_mode": "reflect"}, PaddingMode.ZEROS),
    "2d zeros over circular space": (2, 3, 1, {"padding_mode": "circular"}, "zeros"),
    "3d replicate over circular space": (3, 3, 1, {"padding_mode": "circular"}, "replicate"),
    "3d reflect": (3, 3, 1, {"stride": (2, 1, 2)}, "reflect"),
    "3d depthwise replicate": (3, 3, 1, {"groups": 2}, "replicate"),
}


@pytest.mark.parametrize("name", FILLED)
def test_temporal_fill(name: str):
    """The fill rules time alone, in all three forward modes."""
    dims, kernel, padding, options, fill = FILLED[name]
    ours, theirs = CLASSES[dims]
    space = (1,) * (dims - 1)
    net = ours(2, 4, kernel, padding=(padding, *space), temporal_fill=fill, **options)
    inner = theirs(2, 4, kernel, padding=(0, *space), **options)
    name = fill.value if isinstance(fill, PaddingMode) else fill
    check_layer(net, TimePadded(inner, padding, padding, name), (2, 2, 17, *SPACE[dims]))


def test_neg_inf_is_a_fill_too():
    """Padding with -inf gives infinite outputs where a window reaches into it, and finite ones elsewhere."""
    net = co.Conv1d(1, 1, 3, padding=1, temporal_fill=PaddingMode.NEG_INF).double()
    nn.init.constant_(net.weight, 0.5)
    clip = torch.randn(2, 1, 9, dtype=torch.float64)
    check_contract(net, clip)
    assert net(clip).isneginf().nonzero()[:, 2].tolist() == [0, 8, 0, 8]


@pytest.mark.parametrize("dims", CLASSES)
def test_build_from_copies_and_takes_a_fill(dims: int):
    ours, theirs = CLASSES[dims]
    layer = theirs(2, 3, 3, padding=1, dtype=torch.float64)
    net = ours.build_from(layer, temporal_fill="replicate")
    assert type(net) is ours
    assert net.temporal_fill == "replicate"
    assert torch.equal(net.weight, layer.weight)
    assert net.weight is not layer.weight
    check_contract(net, torch.randn(2, 2, 9, *SPACE[dims], dtype=torch.float64))


@pytest.mark.parametrize("options", [{"dtype": torch.float64}, {"dtype": torch.float32, "device": "cpu"}], ids=str)
def test_dtype_and_device(options: dict[str, Any]):
    net = co.Conv1d(2, 3, 3, padding=1, **options)
    assert net.weight.dtype == options["dtype"]
    check_contract(net, torch.randn(2, 2, 9, dtype=options["dtype"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype: torch.dtype):
    check_contract(co.Conv2d(3, 4, 3, padding=1).to(dtype), torch.randn(2, 3, 9, 5).to(dtype))


def test_what_a_convolution_reports():
    net = co.Conv3d(2, 3, (3, 2, 1), stride=(2, 1, 1), padding=(1, 2, 0), dilation=(2, 1, 1))
    assert (net.receptive_field, net.delay, net.stride, net.padding) == (5, 3, (2, 1, 1), (1, 2, 0))


def test_circular_padding_over_time_is_refused():
    with pytest.raises(co.NotStreamable, match="circular.*other end of the clip.*temporal_fill='zeros'"):
        co.Conv1d(1, 1, 3, padding=1, padding_mode="circular")


@pytest.mark.parametrize("fill", ["ones", "circular", "", 3])
def test_unknown_fill(fill: Any):
    with pytest.raises(ValueError, match="temporal_fill is"):
        co.Conv1d(1, 1, 3, padding=1, temporal_fill=fill)


@pytest.mark.parametrize("change", ["optimizer", "data", "load_state_dict", "replace"])
def test_new_weights_are_used_by_the_next_stream(change: str):
    """The folded weight of the fast path is laid out again when the parameter changes."""
    net, other = co.Conv1d(2, 3, 3, padding=1), co.Conv1d(2, 3, 3, padding=1)
    clip = torch.randn(2, 2, 8)
    with torch.no_grad():
        net.forward_step(clip[:, :, 0])
        match change:
            case "optimizer":
                net.weight.copy_(other.weight)
                net.bias.copy_(other.bias)
            case "data":
                net.weight.data[:], net.bias.data[:] = other.weight, other.bias
            case "load_state_dict":
                net.load_state_dict(other.state_dict())
            case "replace":
                net.weight, net.bias = other.weight, other.bias
        net.clean_state()
        for t in range(8):
            y = net.forward_step(clip[:, :, t])
            if t:
                torch.testing.assert_close(y, other(clip)[:, :, t - 1])
