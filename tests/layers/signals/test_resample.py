"""Resampling, against the filter written out, and against values of torchaudio."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import continual as co
from continual.core.polyphase import Polyphase
from tests.contract import assert_equal, check_gradients
from tests.layers.signals.chunks import streamed

F64 = torch.float64


def by_definition(clip: Tensor, orig: int, new: int, width: int, rolloff: float, beta: float | None) -> Tensor:
    """Each output as the sum over all samples, with the filter of torchaudio."""
    common = math.gcd(orig, new)
    orig, new = orig // common, new // common
    edge = min(orig, new) * rolloff
    count = math.ceil(clip.shape[2] * new / orig)
    apart = torch.arange(clip.shape[2], dtype=F64) / orig - torch.arange(count, dtype=F64).unsqueeze(1) / new
    t = (apart * edge).clamp(-width, width)
    if beta is None:
        window = torch.cos(t * math.pi / width / 2) ** 2
    else:
        window = torch.i0(beta * torch.sqrt(1 - (t / width) ** 2)) / torch.i0(torch.tensor(beta, dtype=F64))
    kernel = torch.where(t.abs() < width, torch.sinc(t) * window * (edge / orig), 0.0)
    return torch.einsum("bct,jt->bcj", clip, kernel)


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 7), st.sampled_from([0.99, 0.9, 0.5]), st.booleans(), SIZES)
@settings(max_examples=50, deadline=None)
def test_equals_the_filter(orig: int, new: int, width: int, rolloff: float, kaiser: bool, sizes: list[int]) -> None:
    clip = torch.randn(2, 3, 70, dtype=F64)
    options = ("sinc_interp_kaiser", width, rolloff, 9.0) if kaiser else ("sinc_interp_hann", width, rolloff)
    net = co.Resample(orig, new, *options).eval()
    want = clip if orig == new else by_definition(clip, orig, new, width, rolloff, 9.0 if kaiser else None)
    assert_equal(net(clip), want)
    with torch.no_grad():
        assert_equal(streamed(net, clip, sizes), want)


@pytest.mark.parametrize(("orig", "new"), [(2, 1), (1, 2), (3, 2), (10, 27), (27, 10), (5, 5)])
def test_keeps_the_contract(orig: int, new: int) -> None:
    net, clip = co.Resample(orig, new, lowpass_filter_width=3).double().eval(), torch.randn(2, 2, 60, dtype=F64)
    assert co.verify(net, clip).passed
    assert net.step_size == orig // math.gcd(orig, new)
    check_gradients(net, clip)


def test_values_of_torchaudio() -> None:
    """``torchaudio.functional.resample(sin(k²/50), orig, new)`` of 2.11, in float64, outputs 3 … 6."""
    clip = torch.sin(torch.arange(20, dtype=F64).square() / 50).view(1, 1, -1)
    for (orig, new, method), want in VALUES.items():
        assert torch.allclose(co.Resample(orig, new, method)(clip)[0, 0, 3:7], torch.tensor(want, dtype=F64), atol=1e-9)


VALUES = {
    (2, 1, "sinc_interp_hann"): [0.659384075285, 0.959107033602, 0.909009112292, 0.254490936171],
    (3, 4, "sinc_interp_hann"): [0.101500322463, 0.179056510481, 0.277729684886, 0.394445554153],
    (3, 2, "sinc_interp_kaiser"): [0.394029733786, 0.659374066933, 0.902261648908, 0.998800093077],
    (44100, 16000, "sinc_interp_hann"): [0.965218760902, 0.685972878459, -0.678918652967, -0.586199414408],
}


@given(st.integers(1, 9), st.integers(1, 9), st.fractions(Fraction(1, 2), 9, max_denominator=20))
def test_counts(down: int, up: int, reach: Fraction) -> None:
    """Output ``j`` comes with the last sample that it sees, and a clip has those that begin before its end."""
    common = math.gcd(down, up)
    timing = Polyphase(down // common, up // common, reach)
    places = range(30 * 9)
    for n in range(0, 30, 3):
        ended = sum(Fraction(j * timing.down, timing.up) < n for j in places)
        come = sum(timing.sees(j)[1] < n for j in places)
        assert timing.counts(n, n) == (come, ended)
    spans = [timing.sees(j) for j in range(4 * timing.up)]
    assert timing.receptive_field == max(last - first + 1 for first, last in spans)
    assert all(first >= j * timing.stride - timing.start for j, (first, _) in enumerate(spans))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ((0, 1), "above 0, got 0 and 1"),
        ((1, 2.5), "whole numbers"),
        ((1, 2, "linear"), "not 'linear'"),
        ((1, 2, "sinc_interp_hann", 0), "at least 1"),
        ((1, 2, "sinc_interp_hann", 6, 0.99, 3.0), "beta is for"),
    ],
)
def test_refused(options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        co.Resample(*options)


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(co.ShapeMismatch, match="Resample: takes samples in floating point, got steps of torch.int16"):
        co.Resample(1, 2).forward_step(torch.zeros(1, 1, dtype=torch.int16))
