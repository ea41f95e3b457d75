"""Normalisers with state and differences, against the loops that people write."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, check_gradients
from tests.layers.signals.chunks import streamed

F64 = torch.float64


def loop(clip: Tensor, alpha: float, adjust: bool) -> Tensor:
    """``pandas.DataFrame.ewm(alpha=…, adjust=…).mean()``."""
    outs: list[Tensor] = []
    total, weight = torch.zeros_like(clip[:, :, 0]), 0.0
    for t, x in enumerate(clip.unbind(2)):
        if adjust:
            total, weight = total * (1 - alpha) + x, weight * (1 - alpha) + 1
            outs.append(total / weight)
        else:
            outs.append(x if t == 0 else (1 - alpha) * outs[-1] + alpha * x)
    return torch.stack(outs, 2)


@pytest.mark.parametrize("adjust", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.001])
def test_exponential_mean(alpha: float, adjust: bool) -> None:
    net, clip = co.ExponentialMean(alpha, adjust).eval(), torch.randn(2, 3, 150, 2, dtype=F64) + 5
    assert_equal(net(clip), loop(clip, alpha, adjust))
    assert co.verify(net, clip[:, :, :70]).passed
    check_gradients(net, clip[:, :, :20])


def test_exponential_norm_is_that_of_braindecode() -> None:
    net, clip = co.ExponentialNorm(0.05, eps=0.9).double().eval(), torch.randn(2, 3, 150, dtype=F64) + 5
    apart = clip - loop(clip, 0.05, True)
    assert_equal(net(clip), apart / loop(apart.square(), 0.05, True).sqrt().clamp(min=0.9))
    assert co.verify(net, clip).passed
    check_gradients(net, clip[:, :, :20])


@pytest.mark.parametrize("each", [False, True])
def test_pcen(each: bool) -> None:
    gain, bias, power = (torch.tensor([0.98, 0.8, 0.0]), torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.5, 1.0, 0.3]))
    if not each:
        gain, bias, power = gain[0], bias[0], power[0]
    net, clip = co.PCEN(0.1, nn.Parameter(gain), bias, power).double().eval(), torch.rand(2, 3, 90, 2, dtype=F64) + 0.1
    gain, bias, power = (t.double().view(-1, 1, 1) for t in (net.gain, net.bias, net.power))
    want = (clip / (1e-6 + loop(clip, 0.1, False)) ** gain + bias) ** power - bias**power
    assert_equal(net(clip), want)
    assert co.verify(net, clip).passed
    torch.autograd.backward(net(clip).sum())
    assert net.get_parameter("gain").grad is not None


def test_automatic_gain() -> None:
    net, clip = co.AutomaticGain(0.5, 0.1, 4.0).double().eval(), torch.randn(2, 3, 90, 2, dtype=F64)
    clip[1] *= 0.01
    size = loop(clip.square().mean((1, 3), keepdim=True), 0.1, False).sqrt()
    assert_equal(net(clip), clip * (0.5 / size).clamp(max=4.0))
    assert co.verify(net, clip).passed


def test_averages_stay_double() -> None:
    """A mean of a million frames with a share of a millionth, in a half type."""
    net, clip = co.ExponentialMean(1e-6).half().eval(), torch.full((1, 1, 50_000), 3.0).half()
    with torch.no_grad():
        assert (streamed(net, clip, [5_000]) == 3.0).all()
    assert {t.dtype for t in net.get_state().tensors.values()} == {F64}


# ---- differences ----------------------------------------------------------------------------------------------------------


def test_pre_emphasis() -> None:
    net, clip = co.PreEmphasis(0.75).double().eval(), torch.randn(2, 3, 30, dtype=F64)
    want = clip.clone()
    want[..., 1:] -= 0.75 * clip[..., :-1]
    assert_equal(net(clip), want, "forward")
    back = co.Sequential(net, co.IIRFilter([1.0], [1.0, -0.75])).eval()
    assert_equal(back(clip), clip)
    assert co.verify(back, clip).passed


@pytest.mark.parametrize("mode", ["replicate", "reflect", "constant"])
@pytest.mark.parametrize("length", [3, 4, 9])
def test_deltas(length: int, mode: str) -> None:
    net, clip = co.ComputeDeltas(length, mode).eval(), torch.randn(2, 3, 30, dtype=F64)
    n = (length - 1) // 2
    kernel = torch.arange(-n, n + 1, dtype=F64).expand(3, 1, -1)
    want = F.conv1d(F.pad(clip, (n, n), mode), kernel, groups=3) / (n * (n + 1) * (2 * n + 1) / 3)
    assert_equal(net(clip), want)
    assert co.verify(net, clip).passed
    assert net.delay == n + (mode == "reflect" and n == n + 1)


# ---- sliding windows ---------------------------------------------------------------------------------------------------------


def sliding(clip: Tensor, size: int, least: int, center: bool, norm_vars: bool) -> Tensor:
    """``torchaudio.functional.sliding_window_cmn``, frame by frame."""
    outs, count = [], clip.shape[2]
    for t in range(count):
        first, stop = (t - size // 2, t - size // 2 + size) if center else (t - size, t + 1)
        if first < 0:
            first, stop = 0, stop - first
        if not center and stop > t:
            stop = max(t + 1, least)
        if stop > count:
            first, stop = max(0, first - (stop - count)), count
        window = clip[:, :, first:stop]
        y = clip[:, :, t] - window.mean(2)
        if norm_vars:
            y = y * 0 if stop - first == 1 else y * window.var(2, correction=0).rsqrt()
        outs.append(y)
    return torch.stack(outs, 2)


SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=3)


@given(st.integers(2, 14), st.integers(1, 14), st.booleans(), st.booleans(), st.integers(2, 40), SIZES)
@settings(max_examples=50, deadline=None)
def test_sliding_mean_and_variance(size: int, least: int, center: bool, norm_vars: bool, steps: int, sizes: list[int]) -> None:
    least, clip = min(least, size + 1), torch.randn(2, 3, steps, dtype=F64) + 3
    net = co.SlidingWindowCmn(size, least, center, norm_vars).eval()
    want = sliding(clip, size, least, center, norm_vars)
    assert_equal(net(clip), want)
    with torch.no_grad():
        assert_equal(streamed(net, clip, sizes), want)


def test_a_value_that_does_not_vary() -> None:
    net = co.SlidingWindowCmn(3, 1, norm_vars=True)
    assert net(torch.ones(1, 2, 6)).equal(torch.zeros(1, 2, 6))
    assert net(torch.full((1, 1, 3), torch.nan)).isnan().all()


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "share": (lambda: co.ExponentialMean(0.0), ValueError, "above 0 and at most 1, got 0.0"),
    "share of a norm": (lambda: co.ExponentialNorm(1.5), ValueError, "at most 1, got 1.5"),
    "eps": (lambda: co.ExponentialNorm(eps=0.0), ValueError, "eps is above 0"),
    "eps of pcen": (lambda: co.PCEN(eps=-1.0), ValueError, "eps is above 0"),
    "gain": (lambda: co.PCEN(gain=-0.1), ValueError, "gain is one number .* 0 or above 0"),
    "power": (lambda: co.PCEN(power=torch.zeros(3)), ValueError, "power is one number or one for each channel, above 0"),
    "bias": (lambda: co.PCEN(bias=torch.zeros(3, 1)), ValueError, "bias is one number"),
    "target": (lambda: co.AutomaticGain(0.0), ValueError, "target and most are above 0"),
    "whole numbers": (lambda: co.ExponentialMean(0.5).forward_step(torch.zeros(1, 2, dtype=torch.int64)), co.ShapeMismatch, "int64"),
    "whole numbers of deltas": (lambda: co.ComputeDeltas().forward_step(torch.zeros(1, 2).long()), co.ShapeMismatch, "int64"),
    "whole numbers of windows": (lambda: co.SlidingWindowCmn().forward_step(torch.zeros(1, 2).long()), co.ShapeMismatch, "int64"),
    "deltas": (lambda: co.ComputeDeltas(2), ValueError, "at least 3, got 2"),
    "padding": (lambda: co.ComputeDeltas(5, "circular"), co.NotStreamable, "mode='replicate'"),
    "mode": (lambda: co.ComputeDeltas(5, "odd"), ValueError, "not 'odd'"),
    "windows": (lambda: co.SlidingWindowCmn(0), ValueError, "got 0 and 100"),
    "first window": (lambda: co.SlidingWindowCmn(10, 12), ValueError, "at most cmn_window \\+ 1"),
    "first frames in a program": (
        lambda: co.compile(co.Sequential(co.SlidingWindowCmn(9, 4), co.Delay(5)).eval(), torch.zeros(1, 2), backend="eager"),
        co.NotStreamable,
        "come all at once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, kind, match = REFUSED[name]
    with pytest.raises(kind, match=match):
        make()


def test_delays() -> None:
    assert math.isclose(co.SlidingWindowCmn(10, 4).delay, 3)
    assert [co.SlidingWindowCmn(10, center=True).delay, co.SlidingWindowCmn(10, 1).delay, co.PCEN().delay] == [9, 0, 0]
