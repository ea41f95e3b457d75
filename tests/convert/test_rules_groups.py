"""Time that is split, merged and stacked: frames taken together and apart, with rates below and above one.

The networks are small ones of the kinds that papers describe: frame stacking in front of recurrent layers, attention inside windows,
sub-pixel convolution, inputs whose frames lie among the channels.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph.axes import frames_together, grouped, regrouped, shape_of
from tests.contract import assert_equal
from tests.convert.rows import No, Row, check_refused, check_row, fn, in_turns, no, row


class Stacked(nn.Module):
    """Four frames side by side, and a recurrent layer over what remains: ``(B, T, C)``."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.rnn = nn.Linear(12, 6), nn.GRU(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        return self.rnn(self.linear(x.reshape(b, t // 4, 4 * c)))[0]


class LocalAttention(nn.Module):
    """Attention inside windows that do not overlap, around a residual connection."""

    def __init__(self, size: int = 4):
        super().__init__()
        self.size, self.attention = size, nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.conv = nn.LayerNorm(4), nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        y = self.norm(x).reshape(b * (t // self.size), self.size, c)
        y = self.attention(y, y, y, need_weights=False)[0].reshape(b, t, c)
        return x + self.conv((x + y).transpose(1, 2)).transpose(1, 2)


class InsideWindows(nn.Module):
    """A layer that runs both ways inside patches, with positions in the patch, and a causal one over all frames."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.place, self.along = nn.Parameter(torch.randn(3, 8)), nn.GRU(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        y = self.inside(x.reshape(b * t // 3, 3, c))[0] + self.place
        return self.along(y.reshape(b, t, 8))[0]


class SubPixel(nn.Module):
    """Two frames for one, out of the channels, and a convolution over them: ``(B, C, T)``."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        b, c, t = y.shape
        return self.out(y.view(b, 2, c // 2, t).permute(0, 2, 3, 1).reshape(b, c // 2, 2 * t))


class Shuffled(nn.Module):
    """Pairs of frames as channels, a convolution, and back, with a connection around it."""

    def __init__(self, strided: bool):
        super().__init__()
        self.strided, self.stem = strided, nn.Conv1d(3, 4, 3, padding=1)
        self.down, self.middle = nn.Conv1d(4, 8, 2, stride=2), nn.Conv1d(8, 8, 3, padding=1)
        self.out = nn.Conv1d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        b, c, t = y.shape
        z = self.down(y) if self.strided else y.view(b, c, t // 2, 2).permute(0, 1, 3, 2).reshape(b, 2 * c, t // 2)
        z = self.middle(z).view(b, c, 2, t // 2).permute(0, 1, 3, 2).reshape(b, c, t)
        return self.out(z + y)


class OneFrame(nn.Module):
    """Joints in the channels; the example has one output frame: ``(B, T, J, 2)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(6, 8, 3, stride=3), nn.Conv1d(8, 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, t, j, c = x.shape
        y = self.second(self.first(x.reshape(b, t, j * c).permute(0, 2, 1)).relu())
        return y.permute(0, 2, 1).contiguous().view(b, -1, j, 3)


class Planes(nn.Module):
    """A temporal shift of images whose colours are frames of the input: ``(B, T·3, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.reshape(-1, 3, *x.shape[-2:]))
        y = y.view(x.shape[0], x.shape[1] // 3, 4, *y.shape[-2:])
        later, earlier = F.pad(y[:, 1:, :1], (0, 0) * 3 + (0, 1)), F.pad(y[:, :-1, 1:2], (0, 0) * 3 + (1, 0))
        return torch.cat((later, earlier, y[:, :, 2:]), 2)


SEQUENCE: dict = {"shape": (2, 12, 3), "time": 1}
ROWS = [
    fn("frames in pairs", lambda x: x.reshape(x.shape[0], 3, -1, 2), shape=(2, 3, 12), other=4, delay=1, field=2),
    fn("frames in pairs, pairs first", lambda x: x.unflatten(2, (-1, 2)).permute(0, 1, 3, 2).flatten(1, 2), shape=(2, 3, 12), other=6),
    fn("frames into channels", lambda x: x.reshape(x.shape[0], x.shape[1] // 4, 4 * x.shape[2]), **SEQUENCE, other=8, delay=3),
    fn("two frames for one", lambda x: x.reshape(x.shape[0], 2 * x.shape[1], -1), shape=(2, 7, 4), time=1, delay=0),
    fn("two frames for three", lambda x: x.reshape(x.shape[0], x.shape[1] * 2 // 3, -1), shape=(2, 6, 4), time=1, other=6, delay=2),
    fn("five for four", lambda x: x.reshape(x.shape[0], x.shape[1] * 5 // 4, -1), shape=(2, 8, 5), time=1, other=12, delay=3),
    fn("rows of pairs", lambda x: x.reshape(-1, 6).relu().reshape(x.shape[0], -1, 6), **SEQUENCE, other=4, delay=1),
    fn("two frames for one, and a running sum", lambda x: x.reshape(x.shape[0], 2 * x.shape[1], -1).cumsum(1), shape=(2, 7, 4), time=1),
    fn("two frames for one, and positions", lambda x: (y := x.reshape(x.shape[0], 2 * x.shape[1], -1)) * torch.arange(y.shape[1]).view(
        1, -1, 1), shape=(2, 7, 4), time=1, verify=False),
    fn("masks of pairs", lambda x: (x > 0).reshape(x.shape[0], 3, -1, 2).all(-1).to(x.dtype) - 1, shape=(2, 3, 12), other=4),
    fn("pixels over time", lambda x: torch.pixel_shuffle(x, 2), shape=(2, 8, 7, 3), delay=0),
    fn("pixels over time, in columns", lambda m, x: F.conv2d(torch.pixel_shuffle(x, 3), m.w, padding=1), params={"w": (4, 2, 3, 3)},
        shape=(2, 18, 3, 7), time=3),
    fn("channels of pixels over time", lambda x: torch.pixel_unshuffle(x, 2), shape=(2, 3, 8, 4), other=6, delay=1),
    fn("pixels over time and back", lambda m, x: torch.pixel_unshuffle(torch.pixel_shuffle(x, 2) * m.w, 2), params={"w": (6,)},
        shape=(2, 8, 7, 3), delay=0),
    fn("positions in groups", lambda x: x.reshape(x.shape[0], -1, 4, 3) * (1 + torch.arange(x.shape[1])).view(1, -1, 4, 1), **SEQUENCE,
        other=8, delay=3, verify=False),
    fn("zeros for groups", lambda x: torch.cat((x.reshape(x.shape[0], -1, 12), x.new_zeros(x.shape[0], x.shape[1] // 4, 2)), 2) - 1,
        **SEQUENCE, other=8, delay=3),
    fn("ones for rows of pairs", lambda x: (x.reshape(-1, 6) + x.new_ones(x.shape[0] * x.shape[1] // 2, 1)).unflatten(0,
        (x.shape[0], -1)), **SEQUENCE, other=4, delay=1),
    row("stacked frames", Stacked, **SEQUENCE, other=8, delay=3),
    row("attention inside windows", LocalAttention, shape=(2, 12, 4), time=1, other=8, delay=3),
    row("attention inside windows of five", lambda: LocalAttention(5), shape=(2, 10, 4), time=1, other=15),
    row("both ways inside patches, forward over all", InsideWindows, **SEQUENCE, other=6, delay=2),
    row("sub-pixel, then convolution", SubPixel, delay=1),
    row("pairs as channels and back, with a skip", lambda: Shuffled(False), shape=(2, 3, 12), other=6),
    row("strided down and sub-pixel up, with a skip", lambda: Shuffled(True), shape=(2, 3, 12), other=6),
    row("one output frame", OneFrame, shape=(2, 9, 3, 2), time=1, other=9, delay=8),
    row("colours among the frames", Planes, shape=(2, 12, 4, 5), time=1, other=6),
]  # fmt: skip

REFUSED = [
    no("segments of the clip", lambda x: x.reshape(x.shape[0], 3, 2, -1), "splits time", "unfold|strided", shape=(2, 3, 12)),
    no("rows and columns that were not swapped", lambda x: x.reshape(x.shape[0], x.shape[2], 4).transpose(1, 2), "mixes it with other",
       "permute first", shape=(2, 4, 12)),
    no("channels of pixels that are time", lambda x: torch.pixel_shuffle(x.transpose(1, 2), 2), "takes time, or rows, for channels",
       r"\(B·T, C, H, W\)", shape=(2, 3, 12, 5)),
    no("groups of different sizes", lambda x: x.reshape(x.shape[0], 3, 6, -1).permute(0, 1, 3, 2), "splits time", "unfold",
       shape=(2, 3, 18)),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_frames_taken_together_and_apart(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


@pytest.mark.parametrize(
    ("dims", "target", "time", "together"),
    [
        ((("B",), ("T",), (6,)), (2, 3, 24), 12, 4),
        ((("B",), ("T",), (6,)), (2, 12, 2, 3), 12, 1),
        ((("B",), (3,), ("T",)), (2, 3, 4, 3), 12, 3),
        ((("B", "T"), (6,)), (8, 18), 12, 3),
        ((("B",), ("T",), (4,)), (2, 16, 3), 12, 3),
        ((("B",), ("T", 5), (6,)), (2, 20, 3, 6), 12, 3),
        ((("B",), (6,)), (2, 3, 2), 12, 1),
    ],
)
def test_how_many_frames_a_reshape_takes_together(dims: tuple, target: tuple[int, ...], time: int, together: int) -> None:
    assert frames_together(dims, target, 2, time) == together
    made = regrouped(grouped(dims, together), target, 2, time // together)
    assert made is not None
    assert shape_of(made, 2, time // together) == target


def test_rates_delays_and_notes() -> None:
    clip = torch.randn(2, 12, 3)
    net = co.continual(Stacked().eval(), clip, time_dim=1)
    assert (net.stride, net.delay, net.lengths) == ((4,), 3, "same rest")
    assert net.notes == ("reshape: takes 4 frames together: clips have to be of lengths that give whole groups",)
    up = co.continual(SubPixel().eval(), clip.mT)
    assert (up.stride, up.lengths, up.notes) == ((Fraction(1, 2),), "any", ())


@pytest.mark.parametrize(
    ("build", "shape", "time", "chunk"),
    [(LocalAttention, (2, 20, 4), 1, 4), (SubPixel, (2, 3, 9), 2, 1), (lambda: Shuffled(False), (2, 3, 12), 2, 2)],
    ids=["groups", "sub-pixel", "groups and back"],
)
@torch.no_grad()
def test_programs_take_whole_groups(build: Callable[[], nn.Module], shape: tuple[int, ...], time: int, chunk: int) -> None:
    torch.manual_seed(0)
    module, clip = build().eval(), torch.randn(shape)
    net = co.continual(module, clip, time_dim=time)
    program = co.compile(net, clip.select(time, 0), backend="eager")
    assert program.chunk == chunk
    found = [y for frame in clip.unbind(time) if (y := program.step(frame)) is not None]
    found = [y if y.ndim == len(shape) else y.unsqueeze(time) for y in [*found, program.flush()] if y is not None]
    assert_equal(torch.cat(found, time), module(clip), "a program of chunks")


@torch.no_grad()
def test_streams_that_begin_at_other_times() -> None:
    torch.manual_seed(0)
    module, clip = LocalAttention().eval(), torch.randn(2, 20, 4)
    net = co.continual(module, clip, time_dim=1)
    streams = co.StreamBatch(net, clip[:1, 0], capacity=3, backend="eager")
    first, second, found = streams.open(), streams.open(), dict[object, list[Tensor]]()
    for t in range(20):
        given = {first: clip[0, t]} | ({second: clip[1, t - 3]} if t >= 3 else {})
        for stream, y in streams.step(given).items():
            found.setdefault(stream, []).extend([] if y is None else [y])
    for row_of, stream in enumerate((first, second)):
        y = torch.cat(found[stream])
        assert_equal(y, module(clip)[row_of, : len(y)], f"stream {row_of}")
        assert len(y) == (19, 15)[row_of]
