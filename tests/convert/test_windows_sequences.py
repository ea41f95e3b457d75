"""Exact windows and outputs with frames: what is a score of the clip, what is a sequence, and one frame of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import continual as co
from tests.convert.windows import Tagger, close, made, noise, stacked, windows_of
from tests.long import by_turns

CLIP = noise(2, 3, 40)


def test_windows_of_a_sequence_that_streams():
    conv = made(nn.Conv1d(3, 4, 3, padding=1))
    with pytest.raises(ValueError, match="output=-1"):
        co.continual(conv, CLIP, every=2)
    net = co.continual(conv, CLIP, output=-1)
    close(net(CLIP), conv(CLIP)[:, :, -1])
    assert net.delay == 39


def test_a_sequence_that_is_no_stream_is_refused_with_the_remedy():
    module = made(Tagger())
    with pytest.raises(
        co.NotStreamable, match=r"bidirectional.*(?s:.)*output=-1.*steps \(output=k: frame k\), of whose multiply-adds"
    ):
        co.continual(module, CLIP)
    with pytest.raises(IndexError, match="output=40 of 40 frames"):
        co.continual(module, CLIP, output=40)
    close(co.continual(module, CLIP, output=-3)(CLIP), module(CLIP)[:, -3])


class Mixed(nn.Module):
    """Frames that are mixed by a product of the clip with itself, where positions can't be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x))
        return torch.cumsum(torch.einsum("bct,bcs->bts", y, y) @ y.transpose(1, 2), 1)


def test_one_frame_where_positions_can_not_be_followed():
    """Found by networks of others: the output was said to have no frames."""
    module = made(Mixed())
    clip = noise(2, 3, 47)
    for frame in (-1, 7):
        net = co.continual(module, CLIP, output=frame, windows=co.WindowPlan())
        close(net.forward_steps(clip), stacked([y[:, frame] for y in windows_of(module, clip, 40, 1)]))
    with pytest.raises(IndexError, match="output=40 of 40 frames"):
        co.continual(module, CLIP, output=40)
    with pytest.raises(co.NotStreamable, match="output=-1"):
        co.continual(module, CLIP)


class Levelled(nn.Module):
    """A signal of its spectra, by the level of the clip. ``istft`` looks at the values of its window: it does not run on shapes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, x: Tensor) -> Tensor:  # (B, T)
        y = torch.stft(x, 16, 4, window=self.window, return_complex=True)
        return torch.istft(y / y.abs().mean((1, 2), keepdim=True), 16, 4, window=self.window)


def test_a_sequence_whose_module_looks_at_values_is_refused():
    """Found by networks of others: it became windows in silence, since nothing was known of its other lengths."""
    with pytest.raises(co.NotStreamable, match="output=-1"):
        co.continual(Levelled().double().eval(), noise(2, 64), time_dim=1)


class Powers(nn.Module):
    """In the manner of ShallowFBCSPNet: a last convolution as long as what a clip leaves; a longer clip gives several scores in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(3, 4, 5), nn.Conv1d(4, 3, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.avg_pool1d(self.conv(x).square(), 6, 3)).flatten(1)


def test_a_score_of_which_a_longer_clip_has_several_in_a_row():
    """Found by networks of others: it was taken for a sequence, since a longer clip gives more."""
    module = made(Powers())
    net = co.continual(module, noise(2, 3, 40), windows=co.WindowPlan())
    clip = noise(2, 3, 53)
    close(net.forward_steps(clip), stacked(windows_of(module, clip, 40, net.windows.every)))


class Mirrored(nn.Module):
    """A layer in both directions over the features of frames, with its frames where ``how`` says."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.rnn = how, nn.GRU(3, 2, batch_first=True, bidirectional=True)
        self.up, self.norm = nn.ConvTranspose1d(4, 6, 4, stride=4), nn.GroupNorm(2, 6)
        self.conv, self.table = nn.Linear(3, 3), nn.Parameter(torch.zeros(20, 4))

    def forward(self, x: Tensor) -> Any:  # (B, 3, T)
        if self.how == "every second":
            return torch.stack([self.table[:3, 0] + torch.tanh(self.conv(x[:, :, t])) for t in range(0, x.shape[2], 2)], 1)
        y = self.rnn(x.transpose(1, 2))[0]
        if self.how == "four for each":
            return self.norm(self.up(y.transpose(1, 2)))
        if self.how == "behind the rows":
            return y.flatten(0, 1)
        if self.how == "before the rows":
            return y.transpose(0, 1).flatten(0, 1)
        if self.how == "two layouts":
            return y, y.transpose(1, 2).exp()
        return torch.einsum("bct,bcs->bts", x, x) @ y + self.table  # positions are lost in products of the clip with itself


FRAMES = {
    "four for each": (lambda y: y[:, :, 33], 33),
    "behind the rows": (lambda y: y.unflatten(0, (-1, 20))[:, 7], 7),
    "before the rows": (lambda y: y.unflatten(0, (20, -1))[-2], -2),
    "two layouts": (lambda y: (y[0][:, 7], y[1][:, :, 7]), 7),
    "of one length": (lambda y: y[:, 7], 7),
    "every second": (lambda y: y[:, 7], 7),
}


@pytest.mark.parametrize("how", by_turns(FRAMES, 2))
def test_one_frame_wherever_frames_are(how):
    """Found by networks of others: refused, or taken for one score of the window."""
    module, clip, (own, frame) = made(Mirrored(how)), noise(2, 3, 24), FRAMES[how]
    net = co.continual(module, clip[:, :, :20], output=frame, windows=co.WindowPlan())
    wanted = [tree_leaves(own(y)) for y in windows_of(module, clip, 20, net.windows.every)]
    for got, want in zip(tree_leaves(net.forward_steps(clip)), zip(*wanted, strict=True), strict=True):
        close(got, stacked(list(want)))
    if how == "every second":
        assert co.continual(module, clip[:, :, :20]).windows is None  # a loop of another pace is a stream
    elif how != "of one length":
        with pytest.raises(co.NotStreamable, match="output=-1"):
            co.continual(module, clip[:, :, :20])


class Parts(nn.Module):
    """In the manner of TSM: clips of 8 frames, of which a longer one holds several in a row; gates over the clip make it no stream."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x.transpose(1, 2).reshape(-1, 8, 3).transpose(1, 2)))
        return self.head((y * self.gate(y.mean(2)).unsqueeze(2)).amax(2))


def test_more_rows_of_a_longer_clip_are_no_frames():
    module, clip = made(Parts()), noise(2, 3, 11)
    net = co.continual(module, clip[:, :, :8])
    close(net.forward_steps(clip), stacked(windows_of(module, clip, 8, 1)))
