"""Padding of time and of space in graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.cases import noise, seeded
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row
from tests.programs.rows import check_rows

IMAGES: dict = {"shape": (2, 3, 8, 4)}
ROWS = [
    row("of frames of several values", lambda: Fn(lambda x: F.pad(x.flatten(2), (1, 0))), shape=(2, 3, 7, 4)),
    fn("zeros before", lambda x: F.pad(x, (3, 0)), delay=0),
    fn("zeros behind", lambda x: F.pad(x, (0, 2)) * 2, delay=0),
    fn("a value on both sides", lambda x: F.pad(x, (1, 2), value=-1.5).exp(), delay=0),
    row("ConstantPad1d", lambda: nn.ConstantPad1d((2, 1), 0.7), delay=0),
    row("ZeroPad1d", lambda: nn.ZeroPad1d(2), delay=0),
    row("replicated", lambda: nn.ReplicationPad1d((2, 3)), delay=0),
    row("mirrored", lambda: nn.ReflectionPad1d((2, 1))),
    fn("causal convolution", lambda m, x: F.conv1d(F.pad(x, (4, 0)), m.w, dilation=2), params={"w": (4, 3, 3)}, delay=0, field=5),
    fn("mirrored convolution", lambda m, x: F.conv1d(F.pad(x, (2, 2), mode="reflect"), m.w), params={"w": (4, 3, 5)}, delay=2),
    fn("replicated convolution", lambda m, x: F.conv1d(F.pad(x, (2, 0), mode="replicate"), m.w), params={"w": (4, 3, 3)}, delay=0),
    fn("replicated in front of a padded convolution", lambda m, x: F.conv1d(F.pad(x, (1, 1), mode="replicate"), m.w, padding=1),
        params={"w": (4, 3, 3)}),
    fn("negative padding", lambda x: F.pad(x, (-2, -1)), delay=3),
    fn("cut at the start, padded behind", lambda x: F.pad(x, (-1, 1)), delay=1),
    fn("padded at the start, cut behind", lambda x: F.pad(x, (1, -1)), delay=0),
    fn("padded twice", lambda x: F.pad(F.pad(x, (1, 1)), (1, 1), value=2.0), delay=0),
    fn("channels", lambda x: F.pad(x, (0, 0, 1, 2)), delay=0),
    fn("channels and time", lambda x: F.pad(x, (2, 0, 0, 1), value=0.5), delay=0),
    fn("space", lambda x: F.pad(x, (1, 2)), **IMAGES, delay=0),
    fn("space, mirrored", lambda x: F.pad(x.flatten(1, 2), (2, 1), mode="reflect").unflatten(1, (3, -1)), **IMAGES, delay=0),
    fn("space, circular", lambda x: F.pad(x.flatten(1, 2), (1, 2), mode="circular").unflatten(1, (3, -1)), **IMAGES, delay=0),
    fn("space, negative", lambda x: F.pad(x, (-1, -2)), **IMAGES, delay=0),
    fn("time and space", lambda x: F.pad(x, (1, 0, 2, 1)), **IMAGES, delay=0),
    fn("time and space, a value", lambda x: F.pad(x, (1, 1, 1, 0), "constant", 3.0), **IMAGES, delay=0),
    fn("time and space, replicated", lambda x: F.pad(x, (1, 0, 2, 1), mode="replicate"), **IMAGES, delay=0),
    fn("time and space, mirrored", lambda x: F.pad(x, (1, 0, 2, 1), mode="reflect"), **IMAGES),
    row("ReplicationPad2d, time last", lambda: nn.ReplicationPad2d((2, 0, 1, 1)), shape=(2, 3, 4, 8), time=3, delay=0),
    row("ReflectionPad2d, time last", lambda: nn.ReflectionPad2d((2, 1, 1, 1)), shape=(2, 3, 4, 8), time=3),
    row("ZeroPad2d, time last", lambda: nn.ZeroPad2d((2, 0, 1, 1)), shape=(2, 3, 4, 8), time=3, delay=0),
    row("ConstantPad3d", lambda: nn.ConstantPad3d((1, 0, 0, 1, 2, 0), 0.3), shape=(2, 3, 7, 4, 5), delay=0),
    row("ReplicationPad3d", lambda: nn.ReplicationPad3d(1), shape=(2, 3, 7, 4, 5), delay=0),
    row("ReflectionPad3d over space", lambda: nn.ReflectionPad3d((1, 1, 2, 1, 0, 0)), shape=(2, 3, 7, 4, 5), delay=0),
    row("channels last", lambda: nn.ConstantPad1d(1, 0.0), shape=(2, 8, 5), time=1, delay=0),
    fn("time of (B, T, C)", lambda x: F.pad(x, (0, 0, 2, 1)), shape=(2, 8, 5), time=1, delay=0),
    fn("time of (T, B, C)", lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)), shape=(8, 2, 5), time=0, delay=0),
    fn("sound", lambda x: F.pad(x, (4, 2)), shape=(2, 14), time=1, delay=0),
    fn("sound, mirrored", lambda x: F.pad(x[:, None], (3, 3), mode="reflect")[:, 0], shape=(2, 14), time=1),
    fn("booleans", lambda x: F.pad((x > 0).to(x.dtype), (1, 1), value=1.0), delay=0),
    fn("padding by a size of space", lambda x: F.pad(x, (0, 0, x.shape[3] - 2, 0)), **IMAGES, delay=0),
    fn("a residual of a padded and cut branch", lambda m, x: x + F.conv1d(F.pad(x, (2, 2)), m.w)[:, :, :-2], params={"w": (3, 3, 3)},
        delay=0),
    fn("F.pad of merged rows", lambda x: F.pad(x.transpose(1, 2).flatten(0, 1), (1, 1)).unflatten(0, (x.shape[0], -1)), **IMAGES, delay=0,
       verify=False),
]  # fmt: skip

REFUSED = [
    no("circular", lambda x: F.pad(x, (1, 1), mode="circular"), "from the other end of the clip", "zeros or 'replicate'"),
    no("circular, by hand", lambda x: torch.cat((x[:, :, -2:], x), 2), "takes the last 2 frames|behind the other", "window|channels"),
    no("CircularPad2d", lambda: nn.CircularPad2d((0, 0, 1, 1)), "circular|from the other end", "replicate", shape=(2, 3, 8, 4)),
    no("to a fixed length", lambda x: F.pad(x, (0, 40 - x.shape[2])), "depends on the length of the clip", "a stream has no length"),
    no("rows", lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)), "rows of the batch", "keep the batch"),
    no("merged time", lambda x: F.pad(x.flatten(2), (1, 0)), "merged with another", "before", shape=(2, 3, 4, 7), time=3),
    no("mirrored by two rows", lambda: Fn(lambda m, x: F.pad(x, (x.shape[2] // 2, 0), mode="reflect"), w=(1,)), "depends on the length",
        "fixed"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_padding(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


@pytest.mark.parametrize("mode", ["replicate", "reflect"])
@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "stride"), [(7, 3, 1, 1), (5, 2, 2, 1), (3, 1, 1, 2), (4, (1, 2), 1, 1)]
)
def test_frames_that_a_convolution_repeats_at_the_ends(mode: str, kernel: int, padding: Any, dilation: int, stride: int) -> None:
    """A layer of its own gave them all at once with the first frame, so that no program had them."""
    pads = (padding, padding) if isinstance(padding, int) else padding

    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, (kernel, 2), (stride, 1), 0, (dilation, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.pad(x, (0, 0, *pads), mode)).relu()

    module = seeded(Smooth)
    net = co.continual(module, noise(2, 3, 20, 3))
    co.verify(net, noise(2, 3, 31, 3), reference=module)
    check_rows(net, noise(2, 3, 31, 3))
