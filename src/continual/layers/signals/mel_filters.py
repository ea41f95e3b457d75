"""Mel filters and the cosine transform, from their formulas.

The scales: "htk" is ``2595·log10(1 + f/700)`` (O'Shaughnessy, Speech Communication: Human and Machine, 1987); "slaney" is linear, 15 mels
for 1000 Hz, and above that logarithmic, 27 mels for a factor of 6.4 (Slaney, Auditory Toolbox, 1998).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LINEAR = 200.0 / 3.0  # Hz for a mel, below
_BREAK = 1000.0  # Hz
_LOG_STEP = math.log(6.4) / 27.0
SCALES = ("htk", "slaney")


def hertz_to_mel(hertz: float, scale: str = "htk") -> float:
    """A frequency on a mel scale."""
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    if hertz < _BREAK:
        return hertz / _LINEAR
    return _BREAK / _LINEAR + math.log(hertz / _BREAK) / _LOG_STEP


def mel_to_hertz(mel: Tensor, scale: str = "htk") -> Tensor:
    """The inverse."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    middle = _BREAK / _LINEAR
    return torch.where(mel < middle, mel * _LINEAR, _BREAK * torch.exp(_LOG_STEP * (mel - middle)))


def mel_filters(bins: int, f_min: float, f_max: float, n_mels: int, sample_rate: int, norm: str | None, scale: str) -> Tensor:
    """Triangular filters ``(bins, n_mels)``: each rises from the middle of the one before to its own, and falls to that of the next.

    Args:
        bins: frequencies, equally spaced from 0 to half of the sample rate.
        f_min, f_max: the lowest and the highest frequency, Hz.
        n_mels: how many filters.
        sample_rate: Hz.
        norm: ``"slaney"`` divides a filter by half of its width in Hz, so that all have the same area; ``None`` does not.
        scale: ``"htk"`` or ``"slaney"``.
    """
    if norm not in (None, "slaney"):
        raise ValueError(f"mel filters: norm is None or 'slaney', not {norm!r}")
    if scale not in SCALES:
        raise ValueError(f"mel filters: mel_scale is 'htk' or 'slaney', not {scale!r}")
    if n_mels < 1 or not 0 <= f_min < f_max:
        raise ValueError(f"mel filters: n_mels is at least 1 and 0 <= f_min < f_max; got {n_mels}, {f_min} and {f_max}")
    wide = torch.float64
    edges = torch.linspace(hertz_to_mel(f_min, scale), hertz_to_mel(f_max, scale), n_mels + 2, dtype=wide)
    places = mel_to_hertz(edges, scale)
    hertz = torch.linspace(0, sample_rate // 2, bins, dtype=wide).unsqueeze(1)
    width = places.diff()
    rising = (hertz - places[:-2]) / width[:-1]
    falling = (places[2:] - hertz) / width[1:]
    filters = torch.minimum(rising, falling).clamp(min=0)
    if norm == "slaney":
        filters = filters * (2.0 / (places[2:] - places[:-2]))
    return filters.to(torch.get_default_dtype())


def cosines(n_mfcc: int, n_mels: int, norm: str | None) -> Tensor:
    """The cosine transform of type II, ``(n_mels, n_mfcc)``; ``norm="ortho"`` makes its columns orthonormal."""
    if norm not in (None, "ortho"):
        raise ValueError(f"MFCC: norm is None or 'ortho', not {norm!r}")
    place = torch.arange(n_mels, dtype=torch.float64).unsqueeze(1) + 0.5
    order = torch.arange(n_mfcc, dtype=torch.float64)
    table = 2.0 * torch.cos(math.pi / n_mels * place * order)
    if norm == "ortho":
        table = table * math.sqrt(0.5 / n_mels)
        table[:, 0] *= math.sqrt(0.5)
    return table.to(torch.get_default_dtype())
