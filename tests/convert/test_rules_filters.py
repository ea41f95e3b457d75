"""Convolutions that code computes by Fourier transforms of the clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.convert.rows import F64, No, Row, check_refused, check_row, fn, no

TAPS = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.75], dtype=F64)


def by_fft(x: Tensor, taps: Tensor, first: int = 0, n: int | None = None) -> Tensor:
    n = x.shape[-1] + taps.shape[-1] - 1 if n is None else n
    y = torch.fft.irfft(torch.fft.rfft(x, n=n) * torch.fft.rfft(taps, n=n), n=n)
    return y[..., first : first + x.shape[-1]]


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
    no("a filter as long as the clip", lambda x: by_fft(x, torch.arange(x.shape[-1]) * 0.5), "spectrum of the whole clip", "fixed length"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_filters(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
