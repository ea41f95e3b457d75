"""Convolutions that code computes by Fourier transforms of the clip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import F64, No, Row, check_refused, check_row, fn, no

TAPS = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.75], dtype=F64)


def by_fft(x: Tensor, taps: Tensor, first: int = 0, n: int | None = None) -> Tensor:
    n = x.shape[-1] + taps.shape[-1] - 1 if n is None else n
    y = torch.fft.irfft(torch.fft.rfft(x, n=n) * torch.fft.rfft(taps, n=n), n=n)
    return y[..., first : first + x.shape[-1]]


class LongConv(nn.Module):
    """A state space of real decays as a convolution with a kernel as long as the clip: ``(B, 3, T)``."""

    def __init__(self, fft: bool) -> None:
        super().__init__()
        self.decay, self.gain, self.fft = nn.Parameter(torch.rand(3, 2) + 0.1), nn.Parameter(torch.randn(3, 2)), fft

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[2]
        kernel = (self.gain[..., None] * torch.exp(-self.decay[..., None] * torch.arange(n, dtype=x.dtype))).sum(1)
        if self.fft:
            return torch.fft.irfft(torch.fft.rfft(x, n=2 * n) * torch.fft.rfft(kernel, n=2 * n), n=2 * n)[..., :n]
        return F.conv1d(F.pad(x, (n - 1, 0)), kernel.flip(1)[:, None], groups=3)


ROWS = [
    fn("one filter", lambda m, x: by_fft(x, m.w), params={"w": (5,)}, delay=0),
    fn("of sound, centred", lambda m, x: by_fft(x, m.w, 2), params={"w": (5,)}, shape=(2, 30), time=1, delay=2),
    fn("one for each channel", lambda m, x: by_fft(x.relu(), m.w) + x, params={"w": (3, 3)}, delay=0),
    fn("just long enough", lambda m, x: by_fft(x, m.w, 1, x.shape[-1] + 5), params={"w": (1, 3, 6)}, delay=1),
    fn("the next multiple of 16", lambda m, x: by_fft(x, m.w, 0, -(-(x.shape[-1] + 3) // 16) * 16), params={"w": (4,)}, delay=0),
]  # fmt: skip
REFUSED = [
    no("two zeros", lambda x: by_fft(x, TAPS, 0, x.shape[-1] + 2), "transform of 15 values for a clip of 13 frames: with 5 taps", "n >= x"),
    no("twice the clip", lambda x: by_fft(x, TAPS, 0, 2 * x.shape[-1]), "of 6 values for a clip of 3 frames: with 5 taps", "n >= x"),
    no("half of it", lambda x: by_fft(x, TAPS, 3)[..., : x.shape[-1] // 2], "first 6 frames", "a shift by"),
    no("all of it", lambda x: torch.fft.irfft(torch.fft.rfft(x, n=40 + x.shape[-1]), n=40 + x.shape[-1])[..., : x.shape[-1]],
       "spectrum of the whole clip", "unfold"),
    no("squared", lambda x: torch.fft.rfft(x, n=2 * x.shape[-1]).abs(), "spectrum of the whole clip", "unfold"),
    no("a filter as long as the clip", lambda x: by_fft(x, torch.arange(x.shape[-1]) * 0.5), "kernel as long as the clip", "co.S4D"),
    no("a state space by FFT", lambda: LongConv(True), "kernel as long as the clip", "co.S4D.*co.scan"),
    no("a state space by convolution", lambda: LongConv(False), "kernel as long as the clip", "co.S4D.*co.scan"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_filters(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


def test_the_remedy_of_a_kernel_as_long_as_the_clip() -> None:
    """A state space is the same in `co.S4D`, with time steps of 1 and without an imaginary part."""
    module, clip = LongConv(True).eval().to(F64), torch.randn(2, 3, 50, dtype=F64)
    layer = co.S4D(3, state_size=4, dtype=F64).eval()
    with torch.no_grad():
        for own, value in ((layer.log_dt, 0.0), (layer.A_imag, 0.0), (layer.D, 0.0), (layer.C, 0.0)):
            own.fill_(value)
        layer.log_A_real.copy_(module.decay.log())
        layer.C[..., 0] = module.gain * module.decay / (1 - torch.exp(-module.decay)) / 2
        assert_equal(layer(clip), module(clip), "a clip")
        assert_equal(torch.stack([layer.forward_step(frame) for frame in clip.unbind(2)], 2), module(clip), "steps")
