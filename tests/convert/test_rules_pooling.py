"""Pools in graphs: over windows of time, over space, and over the whole clip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import continual as co
from continual.convert.graph.capture import capture
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row

VIDEO = (2, 3, 9, 6, 5)
ROWS = [
    row("over frames of several values", lambda: Fn(lambda x: F.avg_pool1d(x.flatten(2), 3, 2)), shape=(2, 3, 9, 4)),
    row("avg 1d", lambda: nn.AvgPool1d(3, 1), delay=2, field=3),
    row("avg 1d, strided", lambda: nn.AvgPool1d(3), delay=2, field=3),
    row("avg 1d, padded", lambda: nn.AvgPool1d(3, 2, 1), delay=1),
    row("avg 1d, padding not counted", lambda: nn.AvgPool1d(4, 1, 2, count_include_pad=False), delay=1),
    row("avg 1d, ceil", lambda: nn.AvgPool1d(3, 2, ceil_mode=True), shape=(2, 3, 14)),
    row("avg 1d, ceil and padded", lambda: nn.AvgPool1d(4, 3, 1, ceil_mode=True), shape=(2, 3, 13)),
    row("avg 1d, long", lambda: nn.AvgPool1d(12, 1), shape=(2, 3, 19), delay=11),
    row("avg 2d", lambda: nn.AvgPool2d((3, 2), (1, 2)), shape=(2, 3, 9, 6), delay=2),
    row("avg 2d, divisor", lambda: nn.AvgPool2d(3, 1, 1, divisor_override=5), shape=(2, 3, 9, 6), delay=1),
    row("avg 2d, time last", lambda: nn.AvgPool2d((2, 3), (2, 1), (1, 1)), shape=(2, 3, 6, 9), time=3, delay=1),
    row("avg 3d", lambda: nn.AvgPool3d((2, 3, 3), (2, 1, 2)), shape=VIDEO, delay=1),
    row("avg 3d over space", lambda: nn.AvgPool3d((1, 3, 2)), shape=VIDEO, delay=0, field=1),
    row("avg 3d over space, to one", lambda: nn.AvgPool3d((1, 6, 5)), shape=VIDEO, delay=0, field=1),
    row("max 1d", lambda: nn.MaxPool1d(3, 1), delay=2, field=3),
    row("max 1d, dilated, padded", lambda: nn.MaxPool1d(3, 2, 1, 2), delay=3),
    row("max 1d, ceil", lambda: nn.MaxPool1d(2, ceil_mode=True)),
    row("max 2d, time last", lambda: nn.MaxPool2d((2, 3), (2, 2), (0, 1)), shape=(2, 3, 6, 9), time=3, delay=1),
    row("max 3d", lambda: nn.MaxPool3d(3, 2, 1), shape=VIDEO, delay=1),
    row("max 3d over space", lambda: nn.MaxPool3d((1, 2, 2)), shape=VIDEO, delay=0, field=1),
    row("max 3d, time last", lambda: nn.MaxPool3d((2, 2, 3), 1), shape=(2, 3, 4, 5, 8), time=4, delay=2),
    fn("max 2d per frame", lambda x: F.max_pool2d(x.transpose(1, 2).flatten(0, 1), 2).unflatten(0, (-1, x.shape[2])).transpose(1, 2),
        shape=VIDEO,
       delay=0),
    fn("max 1d over space, time in the batch", lambda x: F.max_pool1d(x.permute(0, 2, 1, 3).flatten(0, 1), 3, 2).unflatten(0,
        (x.shape[0], -1)),
       shape=(2, 3, 8, 7), delay=0),
    fn("avg over (T, C) of a batch without channels", lambda x: F.avg_pool2d(x, (3, 1), 1), shape=(2, 9, 4), time=1, delay=2),
    fn("avg 1d over space of (B, T, S)", lambda x: F.avg_pool1d(x, 2), shape=(2, 9, 6), time=1, delay=0),
    fn("max over (T, S) of a batch without channels", lambda x: F.max_pool2d(x, (1, 2)), shape=(2, 9, 6), time=1, delay=0),
    row("lp 1d", lambda: nn.LPPool1d(2, 3), delay=2, field=3),
    row("lp 1d, norm 3, stride 1", lambda: nn.Sequential(nn.Softplus(), nn.LPPool1d(3.0, 4, stride=1)), delay=3),
    row("lp 1d, ceil", lambda: nn.LPPool1d(2, 3, stride=2, ceil_mode=True), shape=(2, 3, 14)),
    row("lp 2d", lambda: nn.LPPool2d(2, (3, 2), stride=(1, 2)), shape=(2, 3, 9, 6), delay=2),
    row("lp 2d, time last", lambda: nn.LPPool2d(2, (2, 3), stride=(2, 2)), shape=(2, 3, 6, 9), time=3, delay=2),
    row("lp 3d over space", lambda: nn.LPPool3d(2, (1, 2, 2)), shape=VIDEO, delay=0),
    row("lp 3d", lambda: nn.LPPool3d(2, (3, 2, 2)), shape=VIDEO, delay=2),
]  # fmt: skip

# Pools that leave time as it is: the size of what is pooled, asked for by None or by number, in each way to call them.
KEPT = [
    ("max 1d", F.adaptive_max_pool1d, (2, 3, 13), "its length", lambda x: (x.shape[2] + 1) // 2),
    ("max 1d with places", lambda x, n: F.adaptive_max_pool1d(x, n, return_indices=True)[0], (2, 3, 13), "its length",
        lambda x: (x.shape[2] + 1) // 2),
    ("max 2d", F.adaptive_max_pool2d, (2, 3, 13, 5), "(None, 2)", lambda x: (None, 2)),
    ("max 2d, torch's own", lambda x, n: torch._C._nn.adaptive_max_pool2d(x, n)[0], (2, 3, 8, 5), "its length",
        lambda x: [(x.shape[2] + 1) // 2, 2]),
    ("max 3d", F.adaptive_max_pool3d, (2, 3, 9, 4, 5), "(None, 2, None)", lambda x: (None, 2, None)),
    ("avg 1d", F.adaptive_avg_pool1d, (2, 3, 12), "its length", lambda x: (x.shape[2] + 1) // 2),
    ("avg 2d", F.adaptive_avg_pool2d, (2, 3, 13, 5), "(None, 2)", lambda x: (None, 2)),
    ("avg 3d", F.adaptive_avg_pool3d, (2, 3, 9, 4, 5), "(None, 2, None)", lambda x: (None, 2, None)),
]  # fmt: skip

ADAPTIVE = [
    row("adaptive avg 1d to one", lambda: nn.AdaptiveAvgPool1d(1), windows=True, delay=12, field=13),
    row("adaptive max 1d to one", lambda: nn.AdaptiveMaxPool1d(1), windows=True, delay=12, field=13),
    row("adaptive avg 2d to one", lambda: nn.AdaptiveAvgPool2d(1), shape=(2, 3, 7, 5), windows=True, delay=6),
    row("adaptive avg 2d to (1, 2)", lambda: nn.AdaptiveAvgPool2d((1, 2)), shape=(2, 3, 7, 5), windows=True, delay=6),
    row("adaptive avg 2d to (None, 1)", lambda: nn.AdaptiveAvgPool2d((None, 1)), shape=(2, 3, 7, 5), delay=0),
    row("adaptive avg 2d to (1, None), time last", lambda: nn.AdaptiveAvgPool2d((1, None)), shape=(2, 3, 5, 7), time=3, delay=0),
    row("adaptive max 2d to (None, 2)", lambda: nn.AdaptiveMaxPool2d((None, 2)), shape=(2, 3, 7, 5), delay=0),
    row("adaptive max 2d to (1, 2)", lambda: nn.AdaptiveMaxPool2d((1, 2)), shape=(2, 3, 7, 5), windows=True),
    row("adaptive avg 3d to one", lambda: nn.AdaptiveAvgPool3d(1), shape=VIDEO, windows=True, delay=8),
    row("adaptive avg 3d to (1, 2, 3)", lambda: nn.AdaptiveAvgPool3d((1, 2, 3)), shape=VIDEO, windows=True),
    row("adaptive avg 3d to (None, 1, 1)", lambda: nn.AdaptiveAvgPool3d((None, 1, 1)), shape=VIDEO, delay=0, field=1),
    row("adaptive avg 3d to (None, None, 2)", lambda: nn.AdaptiveAvgPool3d((None, None, 2)), shape=VIDEO, delay=0, field=1),
    row("adaptive max 3d to (None, 2, 2)", lambda: nn.AdaptiveMaxPool3d((None, 2, 2)), shape=VIDEO, delay=0, field=1),
    row("adaptive max 3d to (1, 2, 2)", lambda: nn.AdaptiveMaxPool3d((1, 2, 2)), shape=VIDEO, windows=True),
    fn("adaptive avg to the clip's own length", lambda x: F.adaptive_avg_pool2d(x, (x.shape[2], 1)), shape=(2, 3, 7, 5), delay=0),
    fn("adaptive avg of (B, T, C, S) per frame", lambda x: F.adaptive_avg_pool2d(x.flatten(0, 1), 1).flatten(1).unflatten(
        0, (x.shape[0], -1)), shape=(2, 8, 3, 4, 5), time=1, delay=0),
    fn("adaptive avg over space, time a channel", lambda x: F.adaptive_avg_pool1d(x, 2), shape=(2, 8, 7), time=1, delay=0),
    fn("adaptive avg and a head", lambda m, x: F.linear(F.adaptive_avg_pool3d(x, 1).flatten(1), m.w, m.b),
       params={"w": (4, 3), "b": (4,)}, shape=VIDEO, windows=True),
    *[fn(f"adaptive {name} behind a stride, to {into}", lambda x, pool=pool, sizes=sizes: pool(x[:, :, ::2].relu(), sizes(x)), shape=shape)
      for name, pool, shape, into, sizes in KEPT],
    fn("adaptive max of what torch gives a fixed length", lambda x: F.adaptive_max_pool2d(F.max_pool1d(x, 2).unsqueeze(3), (None, 1)),
        shape=(2, 3, 12)),
    fn("adaptive max to half the length", lambda x: F.adaptive_max_pool1d(x[:, :, ::2], x.shape[2] // 2), shape=(2, 3, 12), other=4),
    fn("adaptive max over space, time a channel", lambda x: F.adaptive_max_pool1d(x, 2), shape=(2, 8, 7), time=1, delay=0),
    fn("pool of the whole clip", lambda x: F.avg_pool1d(x, x.shape[2]).squeeze(2), windows=True, delay=12),
    fn("pool of the whole clip and of space", lambda x: F.avg_pool2d(x, x.shape[2:]).flatten(1), shape=(2, 3, 7, 5), windows=True,
        delay=6),
    fn("max pool of the whole clip", lambda x: F.max_pool1d(x, int(x.shape[2])), windows=True, delay=12),
    fn("max pool of the whole clip and of a part of space", lambda x: F.max_pool2d(x, (x.shape[2], 2)), shape=(2, 3, 7, 5), windows=True),
    fn("lp pool of the whole clip", lambda x: F.lp_pool1d(x, 2, x.shape[2]).squeeze(2), windows=True, delay=12),
]  # fmt: skip

REFUSED = [
    no("max with positions", lambda x: F.max_pool1d(x, 3, return_indices=True)[1], "positions in the clip", "return_indices=False"),
    no("adaptive to three bins", lambda: nn.AdaptiveAvgPool1d(3), "3 bins, whose borders follow", "fixed kernel"),
    no("adaptive max to as many bins as frames by chance", lambda x: F.adaptive_max_pool2d(x[:, :, ::2], (4, 1)), "4 bins", "fixed kernel",
        shape=(2, 3, 8, 5)),
    no("adaptive avg to as many bins as frames by chance", lambda x: F.adaptive_avg_pool1d(x, 8), "8 bins", "fixed kernel",
        shape=(2, 3, 8)),
    no("adaptive max to a pyramid", lambda x: F.adaptive_max_pool2d(x, (4, 1)), "4 bins", "fixed kernel|one bin", shape=(2, 3, 9, 5)),
    no("positions of adaptive maxima", lambda x: F.adaptive_max_pool1d(x, 1, return_indices=True)[1], "positions",
        "return_indices=False|one frame"),
    no("over merged time", lambda x: F.avg_pool1d(x.flatten(2), 3), "time merged", "dimension of its own", shape=(2, 3, 4, 8),
       time=3),
    no("over the rows", lambda x: F.avg_pool1d(x.transpose(0, 2), 2), "mixes the rows", "batch in dim 0"),
    no("fractional", lambda: nn.FractionalMaxPool2d(2, output_size=(5, 3)), "draws random numbers", "leave it out", shape=(2, 3, 13, 7)),
    no("unpooling", lambda x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2), "positions in the clip", "return_indices",
        shape=(2, 3, 12)),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_pools(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", ADAPTIVE)
def test_pools_of_everything(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_max_pool_of_the_clip_and_of_its_own_length_are_told_apart() -> None:
    """A pool whose kernel is the example's length, but which slides, stays a sliding pool."""
    module = nn.AvgPool1d(13, stride=1).double()
    check_row(Row("sliding", lambda: module, other=4, delay=12))
    assert torch.is_tensor(module(torch.zeros(2, 3, 20).double()))


def test_a_number_of_bins_that_is_the_length_by_chance() -> None:
    """Where the export knows one length alone, clips of others show that it is a number."""
    module = Fn(lambda x: F.adaptive_max_pool1d(F.max_pool1d(x + 0 * len(range(x.shape[2])), 2), 4)).eval()
    with pytest.raises(
        co.NotStreamable, match=r"the length of the example alone: `adaptive_max_pool1d` to 4 bins leaves 4 frames as they"
    ):
        co.continual(module, torch.randn(2, 3, 8), windows="stream")


def test_half_the_length_behind_a_stride_is_for_clips_that_the_stride_divides() -> None:
    net = co.continual(Fn(lambda x: F.adaptive_max_pool1d(x[:, :, ::2], x.shape[2] // 2)).eval(), torch.randn(2, 3, 8))
    assert any("clips have to be of lengths that the strides divide" in n for n in net.notes), net.notes


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_exports_say_how_pools_lie_in_memory(memory_format: torch.memory_format) -> None:
    """On it depends whether `contiguous` makes a copy."""
    clip = torch.randn(2, 3, 8, 5).contiguous(memory_format=memory_format)
    pools = (F.adaptive_max_pool2d, F.adaptive_avg_pool2d)
    program = capture(Fn(lambda x: sum(pool(x, (None, 2)) for pool in pools)).eval(), clip, 2).program
    for op, pool in zip(("adaptive_max_pool2d", "adaptive_avg_pool2d"), pools, strict=True):
        node = next(n for n in program.graph.nodes if op in str(n.target))
        val = node.meta["val"][0] if isinstance(node.meta["val"], tuple) else node.meta["val"]
        assert val.is_contiguous(memory_format=memory_format) == pool(clip, (None, 2)).is_contiguous(memory_format=memory_format)
