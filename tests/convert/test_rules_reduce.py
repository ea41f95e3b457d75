"""Reductions in graphs: over other dimensions frame by frame, over time as windows, running ones, and in the middle of a network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row, streamed

IMAGES: dict = {"shape": (2, 3, 8, 4)}
CLIP: dict = {"windows": True, "delay": 12, "field": 13}
FRAMES: dict = {"windows": True, "delay": 7, "field": 8}
ROWS = [
    fn("mean and sum of channels", lambda x: x.mean(1) + x.sum(1) + x.mean(-2, keepdim=True).squeeze(1), delay=0),
    fn("mean of channels and space", lambda x: x.mean((1, 3)) + x.sum([1, 3]), **IMAGES, delay=0),
    fn("maxima of space", lambda x: x.amax(3) + x.amin(-1) + x.max(3).values - x.min(3)[0], **IMAGES, delay=0),
    fn("where the maximum is", lambda x: x.max(1).indices.double() + x.argmax(1) - x.argmin(1), delay=0, verify=False),
    fn("spread of channels", lambda x: x.std(1) + x.var(1, unbiased=False) + torch.std(x, 1, correction=0), delay=0),
    fn("spread and mean at once", lambda x: (lambda s, m: s - m)(*torch.std_mean(x, 1)) + torch.var_mean(x, 1,
        keepdim=True)[0].squeeze(1), delay=0),
    fn("log of a sum of exponentials", lambda x: x.logsumexp(1, keepdim=True), delay=0),
    fn("products, norms", lambda x: x.prod(1) + x.norm(2, 1) + x.norm(p=1, dim=1) + torch.linalg.norm(x, dim=1), delay=0),
    fn("truths", lambda x: ((x > 0).any(1) & ~(x > 2).all(1)).to(x.dtype), delay=0),
    fn("counts", lambda x: (x > 0).sum(1).to(x.dtype) + torch.count_nonzero(x.relu(), 1), delay=0, verify=False),
    fn("nansum, nanmean, aminmax", lambda x: x.nansum(1) + x.nanmean(1) + (lambda r: r.max - r.min)(x.aminmax(dim=1)), delay=0),
    fn("cumsum of channels", lambda x: x.cumsum(1) + x.cumprod(1) + x.logcumsumexp(1) + x.cummax(1).values, delay=0),
    fn("mean over time of two views", lambda x: torch.stack((x, x * 2)).mean(0), delay=0),
    fn("trapezoid over channels", lambda x: torch.trapezoid(x, dim=1), delay=0),
]  # fmt: skip

OVER_TIME = [
    fn("mean", lambda x: x.mean(2), **CLIP),
    fn("mean, kept", lambda x: x.mean(2, keepdim=True), **CLIP),
    fn("mean of the last dimension", lambda x: x.mean(-1), **CLIP),
    fn("mean of (B, T, C)", lambda x: x.mean(1), shape=(2, 8, 5), time=1, **FRAMES),
    fn("mean of (T, B, C)", lambda x: x.mean(0), shape=(8, 2, 5), time=0, **FRAMES),
    fn("mean of time and space", lambda x: x.mean((2, 3)), **IMAGES, **FRAMES),
    fn("mean of time and space, kept", lambda x: x.mean([2, 3], keepdim=True), **IMAGES, **FRAMES),
    fn("mean of everything but the rows", lambda x: x.mean((1, 2, 3)), **IMAGES, **FRAMES),
    fn("mean of video", lambda x: x.mean((-3, -2, -1)), shape=(2, 3, 8, 4, 5), **FRAMES),
    fn("sum", lambda x: x.sum(2), **CLIP),
    fn("sum of time and channels", lambda x: x.sum((1, 2)), **CLIP),
    fn("maximum", lambda x: x.amax(2), **CLIP),
    fn("maximum of time and space", lambda x: x.amax((2, 3)), **IMAGES, **FRAMES),
    fn("minimum", lambda x: x.amin(2, keepdim=True), **CLIP),
    fn("max(dim), its values", lambda x: x.max(2).values, **CLIP),
    fn("min(dim), its values", lambda x: x.min(2)[0], **CLIP),
    fn("max(dim), where", lambda x: x.max(2)[1].double(), **CLIP, verify=False),
    fn("max(dim), both, kept", lambda x: (lambda r: r.values + r.indices)(x.max(2, keepdim=True)), **CLIP, verify=False),
    fn("argmax", lambda x: x.argmax(2).double(), **CLIP, verify=False),
    fn("median", lambda x: x.median(2).values, **CLIP),
    fn("k-th value", lambda x: x.kthvalue(4, 2).values, **CLIP),
    fn("quantile", lambda x: x.quantile(0.8, dim=2), **CLIP, verify=False),
    fn("standard deviation", lambda x: x.std(2), **CLIP),
    fn("variance, biased, kept", lambda x: x.var(2, unbiased=False, keepdim=True), **CLIP),
    fn("standard deviation of time and space", lambda x: x.std((2, 3)), **IMAGES, **FRAMES),
    fn("variance of time and channels", lambda x: x.var((1, 2), correction=0), **CLIP),
    fn("statistics pooling", lambda x: torch.cat((x.mean(2), x.std(2)), 1), **CLIP),
    fn("statistics pooling at once", lambda x: torch.cat(torch.std_mean(x, 2), 1), **CLIP),
    fn("log of a sum of exponentials", lambda x: x.logsumexp(2), **CLIP),
    fn("log of a sum of exponentials over time and space", lambda x: x.logsumexp((2, 3)), **IMAGES, **FRAMES),
    fn("norm", lambda x: x.norm(dim=2), **CLIP),
    fn("norm of time and space, order 3", lambda x: torch.linalg.vector_norm(x, 3, (2, 3)), **IMAGES, **FRAMES),
    fn("product", lambda x: x.prod(2), **CLIP),
    fn("truths", lambda x: (x > 1.5).any(2).to(x.dtype) + (x > -2).all(2), **CLIP),
    fn("counts", lambda x: (x > 0).sum(2).to(x.dtype), **CLIP, verify=False),
    fn("power mean", lambda x: x.abs().clamp(min=1e-6).pow(3).mean(2).pow(1 / 3), **CLIP),
    fn("mean by hand", lambda x: x.sum(2) / x.shape[2] + x.mean(2) * (x.size(2) - 1) ** -0.5, **CLIP),
    fn("flattened and averaged", lambda x: x.flatten(2).mean(-1), **IMAGES, **FRAMES),
    fn("flattened, maximum", lambda x: x.flatten(2).max(-1)[0], **IMAGES, **FRAMES),
    fn("flattened, standard deviation", lambda x: x.flatten(2).std(2), **IMAGES, **FRAMES),
    fn("mean of features", lambda m, x: F.linear(F.conv1d(x, m.w).relu().mean(2), m.v), params={"w": (4, 3, 3), "v": (2, 4)},
        windows=True, delay=12),
    fn("mean of strided features", lambda m, x: F.conv1d(x, m.w, stride=2).mean(2), params={"w": (4, 3, 3)}, windows=True, other=0),
    fn("consensus of segments", lambda m, x: F.linear(x.flatten(0, 1), m.w).view(x.shape[0], x.shape[1], -1).mean(1), params={"w": (4,
        5)},
       shape=(2, 8, 5), time=1, **FRAMES),
    row("squeeze, then a head", lambda: nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2)), **CLIP),
]  # fmt: skip

RUNNING = [
    fn("cumsum", lambda x: x.cumsum(2), delay=0),
    fn("running mean", lambda x: x.cumsum(2) / torch.arange(1, x.shape[2] + 1, dtype=x.dtype), delay=0),
    fn("cummax", lambda x: x.cummax(2).values, delay=0),
    fn("cummin", lambda x: torch.cummin(x, 2)[0], delay=0),
    fn("cumprod", lambda x: x.cumprod(2), delay=0),
    fn("logcumsumexp", lambda x: x.logcumsumexp(2), delay=0),
    fn("cumsum of (B, T)", lambda x: x.cumsum(1), shape=(2, 9), time=1, delay=0),
    fn("cumulative trapezoid of channels", lambda x: torch.cumulative_trapezoid(x, dim=1), delay=0),
]  # fmt: skip

REFUSED = [
    no("mean of everything", lambda x: x.mean().expand(2, 3), "whole clip and over the rows", "without the batch's"),
    no("mean of rows", lambda x: x - x.mean(0, keepdim=True), "mixes the rows", "without the batch's"),
    no("maximum of everything", lambda x: x / x.max(), "whole clip and over the rows", "without the batch's.*fixed bound"),
    no("standardised over the clip", lambda x: (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True),
        "whole clip meets the clip's frames",
       'time_pooling="window"'),
    no("squeeze and excitation", lambda x: x * torch.sigmoid(x.mean(2, keepdim=True)), "whole clip meets the clip's frames",
        "time_pooling", op="mean"),
    no("attention pooling", lambda x: (x.softmax(2) * x).sum(2), "softmax over time sees the whole clip", "channels|causal"),
    no("running maximum's place", lambda x: x.cummax(2).indices * 1.0, "positions in the clip", "its values"),
    no("sum of row norms", lambda x: x.norm() * x, "whole clip and over the rows", "without the batch's"),
    no("a product of merged time", lambda x: x.flatten(2).prod(2), "merged with another dimension", "before", shape=(2, 3, 6, 4)),
    no("histogram", lambda x: torch.histc(x.sum((1, 2)), 4) + 0 * x[:, 0, :4], "rule|rows|takes", "", shape=(2, 3, 13)),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_beside_time(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", OVER_TIME)
def test_over_time(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", RUNNING)
def test_running(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def squeeze(x: Tensor) -> Tensor:
    """Squeeze-and-excitation by the mean, and by the maximum, of the clip."""
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True)) + x.amax((2, 3), keepdim=True)


def test_means_in_the_middle_of_windows() -> None:
    """With ``time_pooling="window"``: the last frames, as many as the example has, those that there are at the start."""
    clip = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    net = co.continual(Fn(squeeze).eval(), clip, time_pooling="window")
    assert net.delay == 0
    assert any("another function" in note for note in net.notes)
    x = torch.randn(2, 3, 9, 4, dtype=torch.float64)
    want = torch.stack([squeeze(x[:, :, max(0, t - 5) : t + 1])[:, :, -1] for t in range(9)], 2)
    assert_equal(net(x), want)
    assert_equal(streamed(net, x, [0] * 9, 2), want)
    assert_equal(net(clip)[:, :, -1], squeeze(clip)[:, :, -1], "the last frame of the example, which sees all of it")
    co.verify(net, x)


def test_means_in_the_middle_of_frames() -> None:
    """With ``time_pooling="frame"``: of each frame alone."""
    clip = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    net = co.continual(Fn(squeeze).eval(), clip, time_pooling="frame")
    assert (net.delay, net.receptive_field) == (0, 1)
    want = torch.cat([squeeze(clip[:, :, t : t + 1]) for t in range(6)], 2)
    assert_equal(net(clip), want)
    co.verify(net, clip)
