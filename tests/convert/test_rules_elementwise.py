"""Operations on every element in graphs: arithmetic, comparisons, choices, constants beside a stream."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row

NOW: dict = {"delay": 0, "field": 1}
ROWS = [
    row("activations", lambda: nn.Sequential(nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU(0.2)), **NOW),
    row("more activations", lambda: nn.Sequential(nn.Hardswish(), nn.Hardtanh(), nn.SELU(), nn.CELU(), nn.Mish(), nn.Softplus()), **NOW),
    row("still more", lambda: nn.Sequential(nn.Softsign(), nn.Tanhshrink(), nn.Hardshrink(0.1), nn.Softshrink(0.1), nn.LogSigmoid()),
        **NOW),
    row("and more", lambda: nn.Sequential(nn.Threshold(0.1, 20), nn.ReLU6(), nn.Hardsigmoid(), nn.RReLU()), **NOW),
    row("in place", lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.ReLU(inplace=True), nn.Dropout(inplace=True), nn.ELU(inplace=True)),
        **NOW),
    row("prelu", lambda: nn.PReLU(), **NOW),
    row("prelu of channels", lambda: nn.PReLU(3), **NOW),
    row("prelu of channels, video", lambda: nn.PReLU(3), shape=(2, 3, 7, 4), **NOW),
    row("glu over channels", lambda: nn.GLU(1), shape=(2, 4, 9), **NOW),
    row("glu, channels last", lambda: nn.GLU(), shape=(2, 9, 6), time=1, **NOW),
    row("gated by hand", lambda: Fn(lambda m, x: torch.tanh(x @ m.a) * torch.sigmoid(x @ m.b), a=(5, 4), b=(5, 4)), shape=(2, 8, 5),
        time=1, **NOW),
    row("dropouts", lambda: nn.Sequential(nn.Dropout(), nn.Dropout1d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()), **NOW),
    row("dropout 3d", lambda: nn.Sequential(nn.Dropout3d(), nn.Dropout2d(0.3)), shape=(2, 3, 7, 4), **NOW, verify=False),
    row("softmax of channels", lambda: nn.Softmax(1), **NOW),
    row("log softmax, channels last", lambda: nn.LogSoftmax(-1), shape=(2, 8, 5), time=1, **NOW),
    row("softmin of space", lambda: nn.Softmin(3), shape=(2, 3, 8, 4), **NOW),
    row("softmax 2d", lambda: nn.Softmax2d(), shape=(2, 3, 8, 4), **NOW),
    row("constants of numbers", lambda: Fn(lambda x: 2 * x - 1 / (x.abs() + 3) + 10 ** (x / 9) - (x % 0.7) // 0.2), **NOW),
    fn("arithmetic of streams", lambda x: x * x.exp() - x / (x.pow(2) + 1) + torch.maximum(x, -x) - torch.fmod(x, 0.3), **NOW),
    fn("functions", lambda x:
       x.abs().sqrt() + x.sin().cos() + x.sigmoid().log() + x.round().sign() + x.floor().ceil() + x.erf() + x.tan(), **NOW),
    fn("functions of two", lambda x:
       torch.atan2(x, x.roll(1, 1)) + torch.hypot(x, x) + torch.logaddexp(x, -x) + torch.copysign(x,
        x.sin()), **NOW),
    fn("a parameter for each channel", lambda m, x: x * m.g + m.b, params={"g": (3, 1), "b": (1, 3, 1)}, **NOW),
    fn("a parameter that makes the stream larger", lambda m, x: x.unsqueeze(1) * m.g, params={"g": (4, 1, 1)}, **NOW),
    fn("a parameter of one number", lambda m, x: x * m.g.exp(), params={"g": ()}, **NOW),
    fn("a constant of one channel", lambda m, x: x.mean(1, keepdim=True) * m.g, params={"g": (1, 3, 1)}, **NOW),
    fn("addcmul, addcdiv, lerp", lambda m, x: torch.addcmul(x, m.a, x, value=0.5) + torch.addcdiv(x, m.a, x.exp()) + torch.lerp(x, x * 2,
        0.3),
       params={"a": (3, 1)}, **NOW),
    fn("lerp by a tensor", lambda m, x: torch.lerp(x, m.a, m.w.sigmoid()), params={"a": (3, 1), "w": (1, 1)}, **NOW),
    fn("comparison and where", lambda x: torch.where(x > 0.2, x, x * 0.1) + torch.where(x < 0, 0.0, 1.0), **NOW),
    fn("where of constants", lambda m, x: torch.where(x >= m.a, m.a, x), params={"a": (3, 1)}, **NOW),
    fn("masked fill", lambda x: x.masked_fill(x > 1, 0.5) + x.masked_fill((x < 0) & (x > -1), -2), **NOW),
    fn("masked fill of the channels of a constant", lambda x: x.masked_fill(torch.tensor([[True], [False], [True]]), 3.0), **NOW),
    fn("clamp", lambda x: x.clamp(-0.5, 0.8) + x.clamp(min=0.1) + torch.clip(x, max=0.3), **NOW),
    fn("clamp by tensors", lambda m, x: x.clamp(-m.a.abs(), m.a.abs()), params={"a": (3, 1)}, **NOW),
    fn("logic", lambda x: ((x > 0) ^ (x > 1)).to(x.dtype) + torch.logical_not(x > 0).double() + (x.isnan() | (x == x)).type_as(x), **NOW),
    fn("casts", lambda x: x.float().to(torch.float64) + x.long().double() + x.to(x.dtype), delay=0, verify=False),
    fn("integers", lambda x: (x // 2 + x % 3 * (x & 1)).double() + (x << 1), shape=(2, 3, 9), classes=50, delay=0),
    fn("complex numbers", lambda x: torch.view_as_real(torch.polar(x.abs(), x) * torch.complex(x, -x)), delay=0, verify=False),
    fn("complex parts", lambda x: (torch.complex(x, x * 2) * 1j).real + torch.complex(x, x).abs(), delay=0),
    fn("nan to num", lambda x: torch.nan_to_num(x.clamp(min=0).log(), nan=0.0, neginf=-3.0), delay=0),
    fn("bucketize", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype)).double() * 0.3, delay=0),
    fn("quantised", lambda x: torch.fake_quantize_per_tensor_affine(x.float(), 0.1, 0, -128, 127).double(), delay=0, verify=False),
    fn("xlogy, frexp", lambda x: torch.xlogy(x, x.abs() + 1) + torch.frexp(x)[0], delay=0, verify=False),
    fn("a mean of channels taken away", lambda x: x - x.mean(1, keepdim=True), delay=0),
    fn("a gate of channels, frame by frame", lambda m, x: x * torch.sigmoid(m.w @ x.mean(3)).unsqueeze(3), params={"w": (3, 3)},
       shape=(2, 3, 8, 4), delay=0),
    fn("a difference from the frame before", lambda x: F.pad(x[:, :, 1:] - x[:, :, :-1], (1, 0)), delay=0),
    fn("zeros like", lambda x: x + torch.zeros_like(x) + torch.full_like(x, 2.0) * torch.ones_like(x), delay=0),
    fn("new zeros of the clip's length", lambda x: x + x.new_zeros(x.shape) + x.new_ones(x.shape[0], 1, x.shape[2]) * 3, delay=0),
    fn("torch.zeros of the clip's shape", lambda x: x + torch.ones(x.shape[0], 1, x.shape[2], dtype=x.dtype), delay=0),
    fn("torch.zeros of rows", lambda x: x + torch.full((x.shape[0], 3, 1), 0.5, dtype=x.dtype), delay=0),
    fn("a constant made in forward", lambda x: x * torch.tensor([[1.0], [2.0], [3.0]], dtype=x.dtype) + torch.eye(3, dtype=x.dtype)[:,
        :1], delay=0),
    fn("a triangle of channels", lambda x: torch.tril(torch.ones(3, 3, dtype=x.dtype), -1) @ x + torch.triu(torch.ones(3, 3,
        dtype=x.dtype)) @ x, delay=0, verify=False),
    fn("a still product", lambda m, x: x + (m.a * m.b).sum(), params={"a": (4, 1), "b": (1, 4)}, delay=0),
]  # fmt: skip

REFUSED = [
    no("softmax over time", lambda: nn.Softmax(2), "softmax over time sees the whole clip", "causal attention|channels", op="softmax"),
    no("log softmax over time", lambda: nn.LogSoftmax(2), "over time sees the whole clip", "channels"),
    no("softmax over rows", lambda: nn.Softmax(0), "mixes the rows", "stream of its own"),
    no("glu over time", lambda: nn.GLU(2), "half of the clip", "over channels", op="glu", shape=(2, 3, 12)),
    no("prelu of frames", lambda: nn.PReLU(8), "slope for every frame", "channels in dim 1", shape=(2, 8, 5), time=1),
    no("active dropout", lambda x: F.dropout(x, 0.5), "dropout is active although", "training=self.training"),
    no("noise", lambda x: x + torch.randn_like(x), "draws random numbers", "leave it out"),
    no("noise of its own shape", lambda x: x + torch.randn(x.shape, dtype=x.dtype), "draws random numbers", "leave it out"),
    no("noise in place", lambda x: x.clone().bernoulli_(0.5) * x, "draws random numbers", "leave it out"),
    no("gumbel softmax", lambda x: F.gumbel_softmax(x, dim=1), "draws random numbers", "leave it out"),
    no("a bias for every frame", lambda: Fn(lambda m, x: x + m.b, b=(3, 13)), "a value for each of 13 frames", "positions that go on"),
    no("a bias for every row", lambda: Fn(lambda m, x: x + m.b, b=(2, 1, 1)), "2 rows, as many as the example", "x.shape"),
    no("fourier transform of the clip", lambda x: torch.fft.rfft(x).abs(), "spectrum of the whole clip", "stft.*unfold", op="fft_rfft"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_elements(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
