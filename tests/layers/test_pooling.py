"""Average and maximum pooling: every option, against `torch.nn` and the contract."""

import pytest
import torch
from torch import nn

import continual as co
from continual import PaddingMode
from tests.contract import TimePadded, check_contract, check_gradients, check_layer

AVG = {1: (co.AvgPool1d, nn.AvgPool1d), 2: (co.AvgPool2d, nn.AvgPool2d), 3: (co.AvgPool3d, nn.AvgPool3d)}
MAX = {1: (co.MaxPool1d, nn.MaxPool1d), 2: (co.MaxPool2d, nn.MaxPool2d), 3: (co.MaxPool3d, nn.MaxPool3d)}
SPACE = {1: (), 2: (5,), 3: (5, 8)}

BOTH = {
    "1d": (1, 3, {}),
    "1d k1": (1, 1, {}),
    "1d stride 1": (1, 3, {"stride": 1}),
    "1d stride > kernel": (1, 2, {"stride": 3}),
    "1d padding": (1, 3, {"stride": 1, "padding": 1}),
    "1d even, padding": (1, 4, {"stride": 2, "padding": 2}),
    "1d ceil": (1, 3, {"stride": 2, "ceil_mode": True}),
    "1d ceil, stride > kernel": (1, 2, {"stride": 3, "ceil_mode": True}),
    "1d ceil, padding": (1, 4, {"stride": 3, "padding": 1, "ceil_mode": True}),
    "1d long": (1, 11, {"stride": 1}),
    "1d long, padding": (1, 10, {"stride": 1, "padding": 5}),
    "1d long, stride": (1, 12, {"stride": 5, "padding": 3, "ceil_mode": True}),
    "2d": (2, 2, {}),
    "2d time only": (2, (3, 1), {"stride": (1, 1), "padding": (1, 0)}),
    "2d space only": (2, (1, 3), {"stride": (1, 2), "padding": (0, 1)}),
    "2d all different": (2, (3, 2), {"stride": (2, 1), "padding": (1, 1)}),
    "2d ceil": (2, (3, 2), {"stride": (2, 2), "padding": (1, 0), "ceil_mode": True}),
    "2d long": (2, (9, 2), {"stride": 1, "padding": (4, 1)}),
    "3d": (3, 2, {}),
    "3d all different": (3, (3, 2, 3), {"stride": (1, 2, 1), "padding": (1, 1, 0)}),
    "3d ceil": (3, (2, 3, 2), {"stride": (3, 2, 3), "padding": (1, 1, 0), "ceil_mode": True}),
    "3d long": (3, (9, 2, 2), {"stride": (2, 2, 2), "padding": (3, 0, 1), "ceil_mode": True}),
}
ONLY_AVG = {
    "1d not counting padding": (1, 3, {"stride": 1, "padding": 1, "count_include_pad": False}),
    "1d not counting padding, ceil": (1, 4, {"stride": 3, "padding": 2, "ceil_mode": True, "count_include_pad": False}),
    "1d long, not counting": (1, 10, {"stride": 1, "padding": 5, "count_include_pad": False}),
    "2d not counting padding": (2, (3, 2), {"stride": (2, 1), "padding": 1, "count_include_pad": False}),
    "2d divisor": (2, (3, 2), {"padding": 1, "divisor_override": 5}),
    "2d divisor, ceil": (2, 3, {"stride": 2, "padding": 1, "divisor_override": 2, "ceil_mode": True}),
    "2d divisor, not counting": (2, 3, {"stride": 1, "padding": 1, "divisor_override": 4, "count_include_pad": False}),
    "3d not counting padding": (3, 3, {"stride": (1, 2, 2), "padding": 1, "count_include_pad": False, "ceil_mode": True}),
    "3d divisor": (3, (2, 3, 2), {"divisor_override": -3}),
    "3d long divisor": (3, (9, 1, 2), {"divisor_override": 7, "stride": (1, 1, 2), "padding": (2, 0, 0)}),
}
ONLY_MAX = {
    "1d dilation": (1, 3, {"stride": 1, "dilation": 2, "padding": 1}),
    "1d dilation, ceil": (1, 3, {"stride": 2, "dilation": 3, "padding": 1, "ceil_mode": True}),
    "2d dilation": (2, (3, 2), {"stride": (2, 1), "dilation": (2, 3), "padding": (1, 0)}),
    "3d dilation": (3, 2, {"stride": 1, "dilation": (3, 1, 2), "padding": (1, 0, 1)}),
    "1d long dilated": (1, 9, {"stride": 1, "dilation": 2}),
}
AVERAGES, MAXIMA = BOTH | ONLY_AVG, BOTH | ONLY_MAX


@pytest.mark.parametrize("name", AVERAGES)
def test_average(name: str):
    dims, kernel, options = AVERAGES[name]
    ours, theirs = AVG[dims]
    check_layer(ours(kernel, **options), theirs(kernel, **options), (3, 2, 31, *SPACE[dims]))


@pytest.mark.parametrize("name", MAXIMA)
def test_maximum(name: str):
    dims, kernel, options = MAXIMA[name]
    ours, theirs = MAX[dims]
    check_layer(ours(kernel, **options), theirs(kernel, **options), (3, 2, 31, *SPACE[dims]))


@pytest.mark.parametrize("kernel", [2, 3, 9])
@pytest.mark.parametrize("dims", AVG)
def test_dilated_average(dims: int, kernel: int):
    """An option of ours: a depthwise convolution with equal weights."""
    ones, zeros = (1,) * (dims - 1), (0,) * (dims - 1)
    net = AVG[dims][0]((kernel, *ones), stride=(2, *ones), padding=(1, *zeros), dilation=(3, *ones))
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    same = conv(2, 2, (kernel, *ones), (2, *ones), (1, *zeros), (3, *ones), groups=2, bias=False, dtype=torch.float64)
    nn.init.constant_(same.weight, 1 / kernel)
    clip = torch.randn(2, 2, 37, *SPACE[dims], dtype=torch.float64)
    check_contract(net, clip, same)
    check_gradients(net, clip)


FILLED = {
    "avg replicate": (AVG, 1, 3, 1, "replicate"),
    "avg reflect": (AVG, 1, 5, 2, "reflect"),
    "avg neg_inf": (AVG, 1, 3, 1, PaddingMode.NEG_INF),
    "avg long replicate": (AVG, 1, 10, 4, "replicate"),
    "avg 2d replicate": (AVG, 2, (3, 2), 1, PaddingMode.REPLICATE),
    "avg 3d reflect": (AVG, 3, (3, 1, 2), 1, "reflect"),
    "max zeros": (MAX, 1, 3, 1, PaddingMode.ZEROS),
    "max replicate": (MAX, 1, 4, 2, "replicate"),
    "max reflect": (MAX, 1, 5, 2, "reflect"),
    "max long zeros": (MAX, 1, 11, 3, "zeros"),
    "max 2d zeros": (MAX, 2, (3, 2), 1, "zeros"),
    "max 3d replicate": (MAX, 3, (3, 2, 1), 1, "replicate"),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", FILLED)
def test_temporal_fill(name: str, stride: int):
    table, dims, kernel, padding, fill = FILLED[name]
    ours, theirs = table[dims]
    zeros, strides = (0,) * (dims - 1), (stride, *(1,) * (dims - 1))
    net = ours(kernel, stride=strides, padding=(padding, *zeros), temporal_fill=fill)
    value = fill.value if isinstance(fill, PaddingMode) else fill
    reference = TimePadded(theirs(kernel, stride=strides), padding, padding, value)
    for dtype in (torch.float64, torch.float32):
        check_contract(net, torch.randn(2, 2, 23, *SPACE[dims]).to(dtype), reference)


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("dims", AVG)
@pytest.mark.parametrize("table", [AVG, MAX], ids=["avg", "max"])
def test_a_clip_shorter_than_the_kernel(table: dict[int, tuple[type, type]], dims: int, total: int):
    """Found by a random network: `nn.AvgPool3d` refuses clips shorter than the kernel, whatever the padding; a stream can't."""
    net = table[dims][0]((3, *(1,) * (dims - 1)), stride=1, padding=(1, *(0,) * (dims - 1)))
    check_contract(net, torch.randn(2, 2, total, *SPACE[dims], dtype=torch.float64))


CLIP_BY_KERNEL = {
    "dilated average": lambda: co.AvgPool1d(2, dilation=2),
    "average, replicate": lambda: co.AvgPool1d(3, 1, 1, temporal_fill="replicate"),
    "maximum, zeros": lambda: co.MaxPool1d(3, 1, 1, temporal_fill="zeros"),
    "convolution, replicate": lambda: co.Conv1d(2, 2, 3, padding=1, temporal_fill="replicate"),
    "convolution, same even": lambda: co.Conv1d(2, 2, 4, padding="same"),
}


@pytest.mark.parametrize("name", CLIP_BY_KERNEL)
def test_an_empty_clip_is_too_short_where_torch_has_no_such_layer(name: str):
    """Found by a random network: the clip computation by our own kernel raised an IndexError."""
    net = CLIP_BY_KERNEL[name]()
    with pytest.raises(co.ShapeMismatch):
        net(torch.zeros(2, 2, 0))
    assert net.forward_steps(torch.zeros(2, 2, 0), pad_end=True) is None


def test_a_nan_leaves_with_its_frame():
    clip = torch.randn(1, 1, 20)
    clip[:, :, 3] = torch.nan
    for kernel in (2, 3, 10):
        for net in (co.AvgPool1d(kernel, 1), co.MaxPool1d(kernel, 1)):
            found = torch.stack([y for t in range(20) if (y := net.forward_step(clip[:, :, t])) is not None], 2)
            assert found.isnan().sum() == min(kernel, 4)
            torch.testing.assert_close(found, net(clip), equal_nan=True)


@pytest.mark.parametrize("kernel", [3, 20])
def test_an_average_does_not_drift(kernel: int):
    """A huge value leaves no trace once it is out of the window."""
    net = co.AvgPool1d(kernel, 1)
    clip = torch.randn(1, 1, 200)
    clip[:, :, 5] = 1e12
    outs = torch.stack([y for t in range(200) if (y := net.forward_step(clip[:, :, t])) is not None], 2)
    assert torch.allclose(outs[:, :, 10:], net(clip)[:, :, 10:], atol=1e-6)


@pytest.mark.parametrize("pool", [co.AvgPool1d, co.MaxPool1d])
def test_padding_of_more_than_half_the_kernel(pool: type):
    with pytest.raises(ValueError, match="more than half of the kernel"):
        pool(3, padding=2)


def test_indices_are_refused():
    with pytest.raises(co.NotStreamable, match="return_indices=True"):
        co.continual(nn.MaxPool1d(2, return_indices=True))


def test_positional_arguments_are_those_of_torch():
    assert co.AvgPool2d(2, 1, 1, True, False, 3).divisor_override == 3
    assert co.AvgPool1d(2, 1, 1, True, False, 3).dilation == (3,)
    assert co.MaxPool1d(3, 1, 1, 2, True).dilation == (2,)
    with pytest.raises(TypeError):
        co.AvgPool1d(2, divisor_override=3)


ADAPTIVE = {
    "avg 1d": (co.AdaptiveAvgPool1d, nn.AdaptiveAvgPool1d, 1, 1),
    "max 1d": (co.AdaptiveMaxPool1d, nn.AdaptiveMaxPool1d, 1, 1),
    "avg 2d": (co.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d, 2, (1, 2)),
    "max 2d": (co.AdaptiveMaxPool2d, nn.AdaptiveMaxPool2d, 2, (1, 1)),
    "avg 3d": (co.AdaptiveAvgPool3d, nn.AdaptiveAvgPool3d, 3, (1, 2, 3)),
    "max 3d": (co.AdaptiveMaxPool3d, nn.AdaptiveMaxPool3d, 3, (1, 1, None)),
}


@pytest.mark.parametrize("window", [1, 4, 12])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive(name: str, window: int):
    """On a clip as long as the window it is torch's layer; on a longer one there is an output for each window."""
    ours, theirs, dims, size = ADAPTIVE[name]
    net, reference = ours(size, window), theirs(size)
    clip = torch.randn(2, 3, window + 7, *SPACE[dims], dtype=torch.float64)
    windows = [reference(clip[:, :, t : t + window]) for t in range(8)]
    torch.testing.assert_close(net(clip), torch.cat(windows, 2))
    check_contract(net, clip)
    check_contract(net, clip[:, :, :window], reference)
    check_gradients(net, clip)
