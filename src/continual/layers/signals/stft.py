"""`STFT`: spectra of overlapping windows, `torch.stft` on streams."""

from __future__ import annotations

import torch
from torch import Tensor

from .frames import SpectralFrames
from .taper import sizes_of, taper_of


class STFT(SpectralFrames):
    """Short-time Fourier transform: ``torch.stft`` of each channel of ``(B, C, T)``, as ``(B, C·F, frames)``.

    The ``F = n_fft // 2 + 1`` frequencies (``n_fft`` of them with ``onesided=False``) are channels: those of the signal's channel ``c`` are
    ``c·F … c·F + F - 1``. A frame sees ``n_fft`` samples (``receptive_field``), and one comes with every ``hop_length`` samples
    (``stride``): the chunk to feed (``step_size``). With ``center=True`` frame ``j`` lies around sample ``j·hop_length``, so that a stream
    has it ``(n_fft - 1) // 2`` samples later; with ``center=False`` it lies around ``j·hop_length + n_fft // 2``, with the same delay
    behind its middle.

    Args:
        n_fft, hop_length, win_length, window, center, pad_mode, normalized, onesided, return_complex: as in ``torch.stft``, whose defaults
            they have; ``return_complex=False`` gives ``(B, C·F, frames, 2)``. Without a ``win_length``, it is the length of ``window``.

    Raises:
        ValueError: sizes that do not fit.
        NotStreamable: ``pad_mode="circular"``.

    Example:
        >>> stft = co.STFT(8, hop_length=4, window=torch.hann_window(8), center=False)
        >>> clip = torch.randn(2, 1, 20)
        >>> y = stft(clip)
        >>> y.shape, y.dtype, stft.delay, stft.step_size
        (torch.Size([2, 5, 4]), torch.complex64, 7, 4)
        >>> by_torch = torch.stft(clip[:, 0], 8, 4, window=stft.window, center=False, return_complex=True)
        >>> torch.allclose(y, by_torch, atol=1e-6)
        True

    Source: Allen and Rabiner, A unified approach to short-time Fourier analysis and synthesis (1977).
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int | None = None,
        win_length: int | None = None,
        window: Tensor | None = None,
        center: bool = True,
        pad_mode: str = "reflect",
        normalized: bool = False,
        onesided: bool = True,
        return_complex: bool = True,
    ):
        super().__init__()
        n, hop, size = sizes_of("STFT", n_fft, hop_length, win_length, window)
        if not isinstance(normalized, bool):
            raise ValueError(f"STFT: normalized is a bool, not {normalized!r}; Spectrogram takes 'window' and 'frame_length'")
        self._set_frames(taper_of(window, size), n, hop, center, pad_mode, "frame_length" if normalized else None, onesided)
        self.normalized = normalized
        self.return_complex = self._complex_out = bool(return_complex)

    def of_spectrum(self, spectrum: Tensor) -> Tensor:
        return spectrum if self.return_complex else torch.view_as_real(spectrum)

    def of_parts(self, parts: Tensor) -> Tensor:
        return parts

    def extra_repr(self) -> str:
        return super().extra_repr() + ", return_complex=False" * (not self.return_complex)
