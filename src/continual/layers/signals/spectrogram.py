"""`Spectrogram`: power or magnitude of the spectra of overlapping windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .frames import SpectralFrames
from .taper import WindowFn, sizes_of

SCALES: dict[Any, str | None] = {False: None, True: "window", "window": "window", "frame_length": "frame_length"}


class Spectrogram(SpectralFrames):
    """Spectra of overlapping windows, as ``torchaudio.transforms.Spectrogram`` has them: ``(B, C, T)`` to ``(B, C·F, frames)``.

    The ``F = n_fft // 2 + 1`` frequencies are channels, those of the signal's first channel first. For the times of frames see
    :class:`STFT`. Half types are computed in float32.

    Args:
        n_fft, win_length, hop_length, window_fn, power, normalized, center, pad_mode, onesided: as in
            ``torchaudio.transforms.Spectrogram``: by default the window is as long as the transform, and the hop
            is half of it. ``power=None`` gives complex spectra.

    Raises:
        ValueError: sizes that do not fit.
        NotStreamable: ``pad_mode="circular"``.

    Example:
        >>> power = co.Spectrogram(n_fft=8, hop_length=4, center=False)
        >>> power(torch.ones(1, 2, 20)).shape
        torch.Size([1, 10, 4])
        >>> [power.forward_steps(torch.ones(1, 2, 4)) is None for _ in range(3)]
        [True, False, False]
    """

    def __init__(
        self,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        window_fn: WindowFn = torch.hann_window,
        power: float | None = 2.0,
        normalized: bool | str = False,
        center: bool = True,
        pad_mode: str = "reflect",
        onesided: bool = True,
    ):
        super().__init__()
        self._set_spectrogram(n_fft, win_length, hop_length, window_fn, power, normalized, center, pad_mode, onesided)

    def _set_spectrogram(
        self,
        n_fft: int,
        win_length: int | None,
        hop_length: int | None,
        window_fn: WindowFn,
        power: float | None,
        normalized: bool | str,
        center: bool,
        pad_mode: str,
        onesided: bool = True,
    ) -> None:
        """Set the transform."""
        name = type(self).__name__
        if normalized not in SCALES:
            raise ValueError(f"{name}: normalized is a bool, 'window' or 'frame_length', not {normalized!r}")
        if power is not None and power <= 0:
            raise ValueError(f"{name}: power is above 0, or None for complex spectra; got {power}")
        size = n_fft if win_length is None else win_length
        n, hop, size = sizes_of(name, n_fft, size // 2 if hop_length is None else hop_length, size, None)
        self._set_frames(window_fn(size), n, hop, center, pad_mode, SCALES[normalized], onesided)
        self.power, self.normalized, self._complex_out = power, normalized, power is None

    def of_spectrum(self, spectrum: Tensor) -> Tensor:
        if self.power is None:
            return spectrum
        if self.power == 2:
            return self.of_parts(torch.view_as_real(spectrum))
        magnitude = spectrum.abs()
        return self.of_values(magnitude if self.power == 1 else magnitude.pow(self.power))

    def of_parts(self, parts: Tensor) -> Tensor:
        squares, power = parts.square().sum(-1), self.power
        return self.of_values(squares if power is None or power == 2 else squares.pow(power / 2))

    def of_values(self, values: Tensor) -> Tensor:
        """What leaves of the power or magnitude ``(…, bins)``."""
        return values

    def extra_repr(self) -> str:
        return super().extra_repr() + f", power={self.power}"
