"""Convolutions in graphs: over time wherever it is, and beside it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row

ROWS = [
    row("over frames of several values", lambda: Fn(lambda m, x: F.conv1d(x.flatten(2), m.w), w=(4, 3, 3)), shape=(2, 3, 9, 5)),
    row("conv1d", lambda: nn.Conv1d(3, 4, 3, padding=1), delay=1, field=3),
    row("conv1d without padding", lambda: nn.Conv1d(3, 4, 4), delay=3, field=4),
    row("conv1d causal", lambda: Fn(lambda m, x: F.conv1d(F.pad(x, (4, 0)), m.w), w=(4, 3, 5)), delay=0, field=5),
    row("conv1d dilated", lambda: nn.Conv1d(3, 4, 3, dilation=3, padding=3), delay=3, field=7),
    row("conv1d strided", lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), delay=1, field=3),
    row("conv1d strided, kernel 1", lambda: nn.Conv1d(3, 4, 1, stride=3), delay=0, field=1),
    row("conv1d groups", lambda: nn.Conv1d(4, 6, 3, groups=2, padding=2), shape=(2, 4, 9), delay=0),
    row("conv1d depthwise", lambda: nn.Conv1d(4, 4, 3, groups=4, bias=False), shape=(2, 4, 9), delay=2),
    row("conv1d same", lambda: nn.Conv1d(3, 4, 5, padding="same", dilation=2), delay=4, field=9),
    row("conv1d same, even kernel", lambda: nn.Conv1d(3, 4, 4, padding="same"), field=4),
    row("conv1d valid", lambda: nn.Conv1d(3, 4, 3, padding="valid"), delay=2),
    row("conv1d replicate", lambda: nn.Conv1d(3, 4, 5, padding=2, padding_mode="replicate"), delay=2),
    row("conv1d reflect", lambda: nn.Conv1d(3, 4, 5, padding=2, padding_mode="reflect"), delay=2),
    row("conv1d, kernel 1", lambda: nn.Conv1d(3, 4, 1), delay=0, field=1),
    row("conv1d, one channel out", lambda: nn.Conv1d(3, 1, 3), delay=2),
    row("conv1d, one channel in", lambda: nn.Conv1d(1, 2, 3), shape=(2, 1, 9), delay=2),
    row("conv1d with a weight norm", lambda: weight_norm(nn.Conv1d(3, 4, 3, padding=1)), delay=1),
    row("conv1d with a spectral norm", lambda: spectral_norm(nn.Conv1d(3, 4, 3, padding=1)), delay=1),
    fn("conv1d of a computed weight", lambda m, x: F.conv1d(x, F.softmax(m.w, 2) * m.g), params={"w": (4, 3, 3), "g": (4, 1, 1)},
        delay=2),
    fn("conv1d of a gathered kernel", lambda m, x: F.conv1d(x, torch.cat((m.w, m.w.flip(2)), 2)), params={"w": (4, 3, 2)}, delay=3),
    fn("conv1d whose groups are the channels of all rows", lambda m, x: F.conv1d(x.reshape(1, -1, x.shape[2]),
       m.w.repeat(x.shape[0] * x.shape[1], 1, 1), groups=x.shape[0] * x.shape[1]).reshape(*x.shape[:2], -1), params={"w": (4,)}, delay=3),
    fn("conv1d of a buffer", lambda m, x: F.conv1d(x, m.w, groups=3), buffers=lambda: {"w": torch.hann_window(5).expand(3, 1, 5).clone()},
       delay=4),
    fn("conv1d twice with one weight", lambda m, x: F.conv1d(F.conv1d(x, m.w, padding=1).relu(), m.w, padding=1), params={"w": (3, 3, 3)},
       delay=2, field=5),
    fn("torch.conv1d", lambda m, x: torch.conv1d(x, m.w, None, 1, 2, 2), params={"w": (4, 3, 3)}, delay=2),
    row("conv2d, time first", lambda: nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), shape=(2, 3, 8, 6), delay=1, field=3),
    row("conv2d, time last", lambda: nn.Conv2d(3, 4, (5, 3), padding=(2, 1)), shape=(2, 3, 6, 8), time=3, delay=1, field=3),
    row("conv2d, time last, strides", lambda: nn.Conv2d(3, 4, 3, stride=(2, 1), padding=(1, 2)), shape=(2, 3, 6, 8), time=3, delay=0),
    row("conv2d, time last, strided", lambda: nn.Conv2d(3, 4, 3, stride=(1, 2), dilation=(1, 2)), shape=(2, 3, 6, 9), time=3, delay=4),
    row("conv2d of a spectrogram (B, 1, F, T)", lambda: nn.Conv2d(1, 2, 3, padding="same"), shape=(2, 1, 5, 8), time=3, delay=1),
    row("conv2d circular in space", lambda: Fn(lambda m, x: F.conv2d(F.pad(x, (1, 1, 0, 0), mode="circular"), m.w), w=(4, 3, 2, 3)),
        shape=(2, 3, 8, 5), delay=1),
    row("conv2d per frame, time in the batch", lambda: Fn(
        lambda m, x: F.conv2d(x.transpose(1, 2).flatten(0, 1), m.w, padding=1).unflatten(0, (x.shape[0], x.shape[2])), w=(4, 3, 3, 3)),
        shape=(2, 3, 7, 5, 6), delay=0, field=1),
    row("conv3d", lambda: nn.Conv3d(2, 4, 3, padding=1), shape=(2, 2, 6, 5, 4), delay=1, field=3),
    row("conv3d over space", lambda: nn.Conv3d(2, 4, (1, 3, 3), stride=(1, 2, 1)), shape=(2, 2, 5, 5, 4), delay=0, field=1),
    row("conv3d over time", lambda: nn.Conv3d(2, 4, (3, 1, 1), padding=(2, 0, 0)), shape=(2, 2, 5, 5, 4), delay=0),
    row("conv3d strides", lambda: nn.Conv3d(2, 4, (5, 3, 2), stride=(2, 2, 1), padding=(2, 1, 0)), shape=(2, 2, 9, 5, 4), delay=2),
    row("conv3d depthwise", lambda: nn.Conv3d(2, 2, 3, groups=2, padding=1), shape=(2, 2, 6, 5, 4), delay=1),
    row("conv3d, time in the middle", lambda: nn.Conv3d(2, 4, (2, 3, 1)), shape=(2, 2, 4, 7, 3), time=3, delay=2),
    row("conv3d, time last", lambda: nn.Conv3d(2, 4, (2, 1, 3)), shape=(2, 2, 4, 3, 7), time=4, delay=2),
    fn("channels last (B, T, C)", lambda m, x: F.conv1d(x.transpose(1, 2), m.w, m.b, padding=1).transpose(1, 2),
       params={"w": (4, 3, 3), "b": (4,)}, shape=(2, 9, 3), time=1, delay=1),
    fn("time first (T, B, C)", lambda m, x: F.conv1d(x.permute(1, 2, 0), m.w, m.b, padding=2).permute(2, 0, 1),
       params={"w": (4, 3, 3), "b": (4,)}, shape=(9, 2, 3), time=0, delay=0),
    fn("sound (B, T)", lambda m, x: F.conv1d(x.unsqueeze(1), m.w, m.b, stride=2), params={"w": (4, 1, 4), "b": (4,)}, shape=(2, 14),
       time=1, delay=3),
    fn("sound in, sound out", lambda m, x: F.conv1d(x[:, None], m.w, padding=1)[:, 0], params={"w": (1, 1, 3)}, shape=(2, 9), time=1,
        delay=1),
    fn("space in the batch: (b v) c t", lambda m, x: F.conv1d(x.permute(0, 3, 1, 2).reshape(-1, 3, x.shape[2]), m.w).reshape(
        x.shape[0], 5, 4, -1).permute(0, 2, 3, 1), params={"w": (4, 3, 3)}, shape=(2, 3, 8, 5), delay=2),
    fn("channels of a stream that is not moving", lambda m, x: F.conv1d(x, m.w) + F.conv1d(m.p, m.w).sum(2, keepdim=True),
       params={"w": (4, 3, 3), "p": (1, 3, 5)}, delay=2),
]  # fmt: skip

TRANSPOSED = [
    row("transposed", lambda: nn.ConvTranspose1d(3, 4, 3), delay=0),
    row("transposed, strided", lambda: nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1)),
    row("transposed, output padding", lambda: nn.ConvTranspose1d(3, 4, 5, stride=3, padding=1, output_padding=2)),
    row("transposed, groups, dilated", lambda: nn.ConvTranspose1d(4, 6, 3, dilation=2, groups=2, padding=2), shape=(2, 4, 9)),
    row("transposed with a weight norm", lambda: weight_norm(nn.ConvTranspose1d(3, 4, 3, stride=2))),
    row("transposed 2d", lambda: nn.ConvTranspose2d(3, 4, (2, 3), stride=(1, 2), padding=(0, 1)), shape=(2, 3, 7, 5)),
    row("transposed 2d, time last", lambda: nn.ConvTranspose2d(3, 4, (3, 2), stride=(2, 2), padding=(1, 0)), shape=(2, 3, 4, 6), time=3),
    row("transposed 3d over space", lambda: nn.ConvTranspose3d(2, 3, (1, 2, 2), stride=(1, 2, 2)), shape=(2, 2, 5, 3, 4), delay=0,
        field=1),
    row("transposed 3d", lambda: nn.ConvTranspose3d(2, 3, (2, 2, 3), stride=(2, 1, 2)), shape=(2, 2, 5, 3, 4)),
    row("transposed per frame", lambda: Fn(lambda m, x: F.conv_transpose2d(x.transpose(1, 2).flatten(0, 1), m.w, stride=2).unflatten(
        0, (-1, x.shape[2])), w=(3, 4, 2, 2)), shape=(2, 3, 7, 5, 4), delay=0),
    row("down and up", lambda: nn.Sequential(nn.Conv1d(3, 4, 4, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose1d(4, 3, 4, stride=2,
        padding=1)),
        shape=(2, 3, 16)),
]  # fmt: skip

REFUSED = [
    no("frames are channels", lambda: nn.Conv1d(9, 4, 3), "takes the frames of the clip for its channels", "channels in dim 1", shape=(2,
        9, 7),
       time=1, op="conv1d"),
    no("rows are channels", lambda: nn.Conv1d(2, 2, 3), "mixes the rows|takes the rows of the batch", "batch in dim 0|dimensions",
       shape=(9, 2, 7), time=0),
    no("one clip without a batch", lambda x: F.conv1d(x, torch.ones(3, 2, 3, dtype=x.dtype)), "rows of the batch for channels",
        "3 dimensions",
       shape=(2, 9), time=1),
    no("merged with space", lambda x: F.conv1d(x.flatten(2), torch.ones(4, 3, 3, dtype=x.dtype)), "time merged with another dimension",
       "dimension of its own", shape=(2, 3, 5, 7), time=3),
    no("a weight of the stream", lambda x: F.conv1d(x, x[:1, :, :3]), "weight of `conv1d` depends on the stream|takes frames|rows",
       "matmul|cut|batch"),
    no("circular", lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), "circular", "zeros.*replicate", op="pad"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS + TRANSPOSED)
def test_convolutions(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
