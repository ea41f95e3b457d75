"""Step programs of every layer and container: rows out of step are as if each ran alone, or the refusal is a known one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.containers.test_networks import NETWORKS
from tests.long import by_turns
from tests.programs.refusals import BURST, DATA, MIRROR
from tests.programs.rows import check_rows
from tests.test_every_layer import CASES

RETROACTIVE = {  # a window with every step: forward is that of one window
    "RetroactiveMultiheadAttention", "RetroactiveTransformerEncoderLayer", "SingleOutputTransformerEncoderLayer",
}  # fmt: skip
REFUSED = {
    "Conv1d wide padding": BURST,
    "causal": MIRROR,
    "Conditional": DATA,
    "SlidingWindowCmn, first frames together": BURST,
    "SlidingWindowCmn, centred": BURST,
    **{f"{kind}Pad{d}d": BURST for kind in ("Constant", "Zero", "Replication", "Reflection") for d in (1, 2, 3)},
}

MORE: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "a convolution of a window that is padded": (lambda: co.Conv1d(4, 3, 5, padding=4, padding_mode="zeros"), ()),
    "zeros around time for a maximum": (lambda: co.MaxPool1d(3, 2, 1, temporal_fill="zeros"), ()),
    "repeated frames around time": (lambda: co.Conv2d(4, 3, 3, padding=1, padding_mode="replicate"), (5,)),
    "mirrored frames around time": (lambda: co.Conv3d(4, 3, 5, padding=(2, 1, 1), padding_mode="reflect"), (5, 4)),
    "repeated frames, stride": (lambda: co.Conv1d(4, 3, 5, stride=2, padding=2, padding_mode="replicate"), ()),
    "zeros before a window": (lambda: co.Sequential(co.ZeroPad1d((2, 3)), co.Conv1d(4, 3, 4)), ()),
    "constants before a window": (lambda: co.Sequential(co.ConstantPad2d((1, 1, 2, 1), 0.5), co.AvgPool2d(3, 1)), (5,)),
    "zeros between windows": (lambda: co.Sequential(co.Conv1d(4, 4, 3), co.ZeroPad1d((2, 0)), nn.Tanh(), co.Conv1d(4, 3, 3)), ()),
    "repeated frames behind the end": (lambda: co.Sequential(co.ReplicationPad1d((0, 3)), co.Conv1d(4, 3, 4)), ()),
    "mirrored frames behind the end": (lambda: co.Sequential(co.ReflectionPad1d((0, 3)), co.Conv1d(4, 3, 4)), ()),
    "cuts by negative padding": (lambda: co.Sequential(co.ZeroPad1d((-2, -1)), co.Conv1d(4, 3, 3, padding=1)), ()),
    "dilated, causal": (lambda: co.Sequential(co.Conv1d(4, 4, 3, padding=8, dilation=4), co.Trim(0, 8), nn.ReLU()), ()),
    "dilated far, two in a row": (
        lambda: co.Sequential(co.Conv1d(4, 4, 2, dilation=8), nn.ELU(), co.Conv1d(4, 3, 3, dilation=5, padding=3)),
        (),
    ),
    "depthwise, dilated": (lambda: co.Conv1d(4, 4, 3, groups=4, dilation=3, padding=3), ()),
    "depthwise, strided": (lambda: co.Conv1d(4, 8, 4, groups=4, stride=3, padding=2), ()),
    "depthwise over time, joints": (lambda: co.Conv2d(4, 4, (3, 1), groups=4, dilation=(2, 1), padding=(2, 0)), (5,)),
    "depthwise over time, images": (lambda: co.Conv3d(4, 4, (4, 1, 1), groups=4, stride=(2, 1, 1), padding=(1, 0, 0)), (5, 4)),
    "groups over space": (lambda: co.Conv2d(4, 6, (3, 2), groups=2, stride=(2, 1), padding=(1, 1)), (5,)),
    "max pool, dilated": (lambda: co.MaxPool1d(3, 1, 1, dilation=2), ()),
    "average without padding": (lambda: co.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False), ()),
    "average, divisor": (lambda: co.AvgPool2d((3, 2), (2, 1), (1, 0), divisor_override=5), (5,)),
    "two strides": (lambda: co.Sequential(co.Conv1d(4, 4, 3, 2, 1), nn.Tanh(), co.MaxPool1d(3, 3, 1)), ()),
    "down and up": (
        lambda: co.Sequential(co.Conv1d(4, 4, 3, 2, 1), co.Conv1d(4, 4, 3, padding=1), co.ConvTranspose1d(4, 3, 4, 2, 1)),
        (),
    ),
    "up, then recurrent": (lambda: co.Sequential(co.ConvTranspose1d(4, 4, 3, 2, 1), co.GRU(4, 3)), ()),
    "stride, then recurrent": (lambda: co.Sequential(co.Conv1d(4, 4, 3, 2, 1), co.LSTM(4, 3), co.Conv1d(3, 3, 3, padding=1)), ()),
    "window, then a sum": (lambda: co.Sequential(co.Conv1d(4, 4, 3), co.CumulativeMean(), co.Conv1d(4, 2, 3, padding=1)), ()),
    "attention over a stride": (
        lambda: co.Sequential(
            co.Conv1d(4, 4, 3, 2, 1),
            co.SinusoidalPositionalEncoding(4),
            co.CausalTransformerEncoderLayer(4, 2, 8, sequence_len=5, look_ahead=2),
        ),
        (),
    ),
    "windows of attention before a window": (
        lambda: co.Sequential(co.SingleOutputMultiheadAttention(4, 2, sequence_len=4, embed_dim_second=True), co.Conv1d(4, 3, 3)),
        (),
    ),
    "linear upsampling of parts": (lambda: co.Sequential(co.Conv1d(4, 4, 3, padding=1), co.Upsample(None, 2.5, "linear")), ()),
    "a queue behind strides": (
        lambda: co.Sequential(
            co.Conv1d(4, 4, 3, 3, 1),
            co.BroadcastReduce(co.Sequential(co.Conv1d(4, 4, 5, padding=2), co.Conv1d(4, 4, 3, padding=1)), co.Identity()),
        ),
        (),
    ),
    "streams shorter than a window": (
        lambda: co.Sequential(co.Conv1d(4, 4, 3, 2, 1), co.AdaptiveAvgPool1d(1, 12), co.Conv1d(4, 3, 3, padding=1)),
        (),
    ),
    "streams shorter than a window, maxima": (
        lambda: co.Sequential(co.BroadcastReduce(co.AdaptiveMaxPool2d((1, 2), 25), co.AdaptiveAvgPool2d((1, 2), 25)), co.Delay(1)),
        (5,),
    ),
    "streams shorter than a window that is padded": (
        lambda: co.AdaptiveMaxPool1d(1, 25, stride=3, padding=2, temporal_fill="zeros"),
        (),
    ),
    "streams shorter than a window, repeated frames": (
        lambda: co.AdaptiveAvgPool1d(1, 9, stride=2, padding=2, dilation=3, temporal_fill="replicate"),
        (),
    ),
    "a gate of the last frames": (
        lambda: co.Residual(co.Sequential(co.AdaptiveMaxPool1d(1, 12), co.Conv1d(4, 4, 1), nn.Sigmoid()), reduce="mul"),
        (),
    ),
    "a long queue": (lambda: co.BroadcastReduce(co.Conv1d(4, 4, 19, padding=9), co.Identity(), reduce="concat"), ()),
}  # fmt: skip


def filled(net: Any) -> Any:
    """Statistics that are not the usual ones, and biases that are not zero."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.uniform_(bias, 0.2, 0.9)
    return net.double().eval()


def made(name: str) -> tuple[Any, Tensor]:
    """A network of the tables, and a clip."""
    make, space = (CASES | MORE)[name]
    return filled(make()), torch.randn(3, 4, 31, *space, dtype=torch.float64)


WAYS = list(product([n for n in (*CASES, *MORE) if n not in REFUSED], [1, 3], [False, True]))


@pytest.mark.parametrize("name, chunks, fused", by_turns(WAYS, 2))
def test_rows_out_of_step(name: str, chunks: int, fused: bool):
    net, clip = made(name)
    least = co.compile(net, torch.zeros(1, *clip.shape[1:2], *clip.shape[3:], dtype=clip.dtype), backend="eager").chunk
    for seed in range(2):
        program = check_rows(net, clip, chunks * least, fused=fused, seed=seed, forward=name not in RETROACTIVE)
        assert program.chunk == chunks * least


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    """A new refusal is to be listed, and one that is none any more is to go."""
    net, clip = made(name)
    with pytest.raises(co.NotStreamable, match=REFUSED[name]):
        co.compile(net, clip[:, :, 0], backend="eager")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str):
    """Residual networks, branches, shared modules."""
    net = filled(NETWORKS[name]()[0])
    shape = (3, 2, 41, 4, 5) if name == "squeeze_over_space" else (3, 2, 41)
    clip = torch.randn(shape, dtype=torch.float64)
    program = check_rows(net, clip, seed=3)
    for chunks, fused in ((1, True), (3, False), (3, True)):
        check_rows(net, clip, chunks * program.chunk, seed=4, fused=fused)


def test_several_streams_in_and_out():
    net = co.Parallel(co.Conv1d(2, 3, 3, padding=1), co.Conv1d(1, 2, 5, padding=1)).double().eval()
    clips = [torch.randn(2, 2, 23, dtype=torch.float64), torch.randn(2, 1, 23, dtype=torch.float64)]
    step = [c[:, :, 0] for c in clips]
    program = co.compile(net, step, backend="eager")
    state, outs = program.init_state(), []
    for t in range(23):
        y, valid, state = program([c[:, :, t : t + 1] for c in clips], state)
        if valid.all():
            outs.append(y)
        else:
            assert not valid.any()
    wanted = net.forward_steps(clips)
    for i in range(2):
        assert torch.allclose(torch.cat([y[i] for y in outs], 2), wanted[i], atol=1e-12)
