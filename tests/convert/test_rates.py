"""Streams of several rates: inputs of which a step has several frames, branches that are repeated, two rates at a clip-level head."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal

F64 = torch.float64
Clip = tuple[Tensor, ...]


class Path(nn.Module):
    """A convolution over time with a norm."""

    def __init__(self, channels: int, out: int, size: int = 3, stride: int = 1):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(channels, out, size, stride, size // 2), nn.BatchNorm1d(out)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Pair(nn.Module):
    """A slow and a fast input, 1 frame in 4."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.slow, self.fast, self.head = how, Path(3, 4), Path(2, 4, 5), nn.Linear(8, 3)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        a, b = self.slow(slow), self.fast(fast)
        if self.how == "repeated":
            return a.repeat_interleave(4, 2) - b
        if self.how == "by the lengths":
            return a.repeat_interleave(b.shape[2] // a.shape[2], 2) * b
        if self.how == "interpolated":
            return F.interpolate(a, size=b.shape[2], mode="linear") + b
        if self.how == "strided":
            return torch.cat((a, b[:, :, 1::4]), 1)
        if self.how == "pooled in time":
            return a * F.max_pool1d(b, 4)
        return self.head(torch.cat((a.mean(2), b.amax(2)), 1))


class WaveRNN(nn.Module):
    """Samples and spectra, 5 in 1: spectra are repeated, a recurrent layer runs over samples."""

    def __init__(self) -> None:
        super().__init__()
        self.spectra, self.rnn, self.head = Path(4, 6), nn.GRU(7, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, samples: Tensor, spectra: Tensor) -> Tensor:
        given = self.spectra(spectra).repeat_interleave(5, 2).transpose(1, 2)
        return self.head(self.rnn(torch.cat((samples.unsqueeze(-1), given), -1))[0])


class SlowFast(nn.Module):
    """Two pathways of one clip, with a lateral connection, to a head over the clip."""

    def __init__(self, every: str, lateral: bool):
        super().__init__()
        self.every, self.lateral = every, nn.Conv1d(2, 3, 5, 4, 2) if lateral else None
        self.slow, self.fast, self.fused = Path(3, 4), Path(3, 2, 5), Path(7 if lateral else 4, 5)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[2]
        if self.every == "linspace":
            slow = x.index_select(2, torch.linspace(0, t - 1, t // 4).long())
        elif self.every == "arange":
            slow = x.index_select(2, torch.arange(0, t, 4))
        else:
            slow = x[:, :, ::4] if self.every == "slices" else F.avg_pool1d(x, 4)
        a, b = self.slow(slow), self.fast(x)
        a = self.fused(a if self.lateral is None else torch.cat((a, self.lateral(b)), 1))
        return self.head(torch.cat((a.mean(2), b.mean(2)), 1))


def pair(steps: int, seed: int = 0) -> Clip:
    torch.manual_seed(seed)
    return torch.randn(2, 3, steps, dtype=F64), torch.randn(2, 2, 4 * steps, dtype=F64)


def sound(steps: int, seed: int = 0) -> Clip:
    torch.manual_seed(seed)
    return torch.randn(2, 5 * steps, dtype=F64), torch.randn(2, 4, steps, dtype=F64)


def cut(net: Any, clip: Clip, first: int, steps: int) -> list[Tensor]:
    """Steps of a clip."""
    return [x.narrow(d, first * r, steps * r) for x, d, r in zip(clip, net.time_dims, net.frames_per_step, strict=True)]


def single(net: Any, clip: Clip, at: int) -> list[Tensor]:
    """One step: an input with several frames has them in the dimension of time."""
    of = zip(cut(net, clip, at, 1), net.time_dims, net.frames_per_step, strict=True)
    return [x.squeeze(d) if r == 1 else x for x, d, r in of]


def streamed(net: Any, clip: Clip, seed: int) -> Tensor:
    """The outputs of a clip in steps and chunks."""
    rng, found, at, steps = random.Random(seed), list[Tensor](), 0, _steps(net, clip)
    net.clean_state()
    while at < steps:
        size = rng.randint(0, min(3, steps - at))
        if size == 0 and at + 1 < steps:
            y = net.forward_step(*single(net, clip, at))
            if y is not None and y.ndim < len(net.io_layout.outputs[0].view.dims) + net.io_layout.outputs[0].windows:
                y = y.unsqueeze(net.output_time_dims[0])
        else:
            size = size or 1
            y = net.forward_steps(*cut(net, clip, at, size), pad_end=at + size == steps)
        at += size or 1
        if y is not None:
            found.append(y)
    return torch.cat(found, net.output_time_dims[0])


def _steps(net: Any, clip: Clip) -> int:
    return min(x.shape[d] for x, d in zip(clip, net.time_dims, strict=True))


def check(net: Any, clip: Clip, want: Tensor) -> None:
    for seed in range(3):
        assert_equal(streamed(net, clip, seed), want, f"a stream of {_steps(net, clip)} steps")


@pytest.mark.parametrize("how", ["repeated", "by the lengths", "interpolated", "strided", "pooled in time"])
def test_a_step_has_several_frames_of_an_input(how: str) -> None:
    module = Pair(how).eval().double()
    net = co.continual(module, pair(5), time_dim=(2, 2))
    assert net.frames_per_step == (1, 4)
    assert net.timing.stride == (1 if how in ("strided", "pooled in time") else torch.tensor(0.25).item())
    with torch.no_grad():
        for steps in (5, 11):
            clip = pair(steps, steps)
            assert_equal(net(*clip), module(*clip))
            check(net, clip, module(*clip))


def test_samples_and_spectra() -> None:
    """The faster input comes first, and has no channels."""
    module = WaveRNN().eval().double()
    net = co.continual(module, sound(4), time_dim=(1, 2))
    assert net.frames_per_step == (5, 1)
    with torch.no_grad():
        for steps in (4, 9):
            check(net, sound(steps, steps), module(*sound(steps, steps)))


@pytest.mark.parametrize("made", [lambda: (Pair("repeated"), pair, (2, 2)), lambda: (WaveRNN(), sound, (1, 2))])
def test_the_contract(made: Any) -> None:
    module, clip, dims = made()
    net = co.continual(module.eval().double(), clip(4), time_dim=dims)
    co.verify(net, clip(9, 1), reference=module)


def test_windows_of_two_inputs() -> None:
    """A head over the clip: the module's own score of each window, of both inputs."""
    module = Pair("a head").eval().double()
    net = co.continual(module, pair(5), time_dim=(2, 2))
    assert net.windows is not None
    assert net.windows.length == 5
    clip = pair(12, 7)
    with torch.no_grad():
        want = torch.stack([module(*cut(net, clip, i, 5)) for i in range(0, 8, net.windows.every)], 2)
        assert_equal(net(*clip), want)
        check(net, clip, want)
    co.verify(net, pair(9, 1))


@pytest.mark.parametrize("every", ["slices", "linspace", "arange", "means"])
@pytest.mark.parametrize("lateral", [False, True])
def test_two_pathways_of_a_clip(every: str, lateral: bool) -> None:
    module = SlowFast(every, lateral).eval().double()
    x = torch.randn(2, 3, 16, dtype=F64)
    net = co.continual(module, x)
    assert net.windows is not None
    assert net.windows.mode == "exact"
    stream, step = torch.randn(2, 3, 29, dtype=F64), net.windows.every
    with torch.no_grad():
        want = torch.stack([module(stream[:, :, i : i + 16]) for i in range(0, 14, step)], 2)
        assert_equal(net(stream), want)


@pytest.mark.parametrize("every", ["slices", "means"])
@pytest.mark.parametrize("lateral", [False, True])
def test_values_of_the_clip_at_two_rates(every: str, lateral: bool) -> None:
    """As a stream of its own: scores come at the slower rate, and that of the first window is the module's where nothing follows it."""
    module = SlowFast(every, lateral).eval().double()
    x = torch.randn(2, 3, 16, dtype=F64)
    net = co.continual(module, x, windows="stream")
    assert net.timing.stride == 4
    clip = torch.randn(2, 3, 40, dtype=F64)
    with torch.no_grad():
        assert_equal(net(x), module(x))
        assert_equal(net.forward_steps(x, pad_end=True), module(x).unsqueeze(2))
        net.clean_state()
        whole = net(clip)
        parts = [net.forward_steps(clip[:, :, i : i + 4], pad_end=i == 36) for i in range(0, 40, 4)]
        assert_equal(torch.cat([p for p in parts if p is not None], 2), whole)


def test_rows_out_of_step() -> None:
    """A step program of two rates: streams that begin at other times, as each alone."""
    module = Pair("repeated").eval().double()
    net = co.continual(module, pair(5), time_dim=(2, 2))
    clip = pair(9, 3)
    batch = co.StreamBatch(net, single(net, tuple(x[:1] for x in clip), 0), capacity=2, backend="eager")
    found: dict[int, list[Tensor]] = {0: [], 1: []}
    starts = {0: 0, 1: 3}
    for t in range(9):
        open_now = [row for row in (0, 1) if t >= starts[row]]
        for row in (r for r in open_now if t == starts[r]):
            batch.open(row)
        given: dict[int, Sequence[Any]] = {r: [x[0] for x in single(net, _row(clip, r), t - starts[r])] for r in open_now}
        for row, y in batch.step(given).items():
            found[row] += [] if y is None else [y]  # type: ignore[list-item]
    for row, outputs in found.items():
        net.clean_state()
        with torch.no_grad():
            alone = net.forward_steps(*cut(net, _row(clip, row), 0, 9 - starts[row]))
        assert_equal(torch.cat(outputs, 1).unsqueeze(0), alone)


def _row(clip: Clip, row: int) -> Clip:
    return tuple(x[row : row + 1] for x in clip)


def test_refused() -> None:
    module = Pair("repeated").eval()
    with pytest.raises(co.ShapeMismatch, match=r"whole multiples of the shortest, got \{0: 5, 1: 19\} frames"):
        co.continual(module, (torch.randn(2, 3, 5), torch.randn(2, 2, 19)), time_dim=(2, 2))
    net = co.continual(module, (torch.randn(2, 3, 5), torch.randn(2, 2, 20)), time_dim=(2, 2))
    with pytest.raises(co.ShapeMismatch, match="input 1 has 4 frames in each step.* got 7"):
        net.forward_steps(torch.randn(2, 3, 2), torch.randn(2, 2, 7))
    with pytest.raises(co.ShapeMismatch, match="input 1 has 4 frames in each step.* got 3"):
        net.forward_step(torch.randn(2, 3), torch.randn(2, 2, 3))
    with pytest.raises(co.ShapeMismatch, match="equal lengths"):
        net.forward_steps(torch.randn(2, 3, 2), torch.randn(2, 2, 12))
    assert net.forward_step(torch.randn(2, 3), torch.randn(2, 2, 4)) is None  # what was refused has not entered
