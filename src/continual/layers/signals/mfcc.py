"""`MFCC`: the cosine transform of log-mel bands."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.state import StateNode, StepSpec
from .mel import MelSpectrogram, refuse_top_db
from .mel_filters import cosines
from .taper import WindowFn

DB_FLOOR, LOG_OFFSET = 1e-10, 1e-6  # of torchaudio


class MFCC(MelSpectrogram):
    """Mel-frequency cepstral coefficients, as ``torchaudio.transforms.MFCC``: ``(B, C, T)`` to ``(B, C·n_mfcc, frames)``.

    The coefficients are channels. torchaudio lifts bands that lie 80 dB below the loudest one of the clip (``top_db``), which a stream
    has not seen. Here no band is lifted, which is that function for clips whose bands lie within 80 dB.

    Args:
        sample_rate: of the signal.
        n_mfcc: how many coefficients, at most ``n_mels``.
        norm: ``"ortho"``, or ``None``.
        log_mels: ``log(mel + 1e-6)`` instead of decibels, ``10·log10(max(mel, 1e-10))``.
        n_fft, win_length, hop_length, f_min, f_max, n_mels, window_fn, power, normalized, center, pad_mode, mel_norm, mel_scale: of the mel
            spectrogram: the ``melkwargs`` of torchaudio, with ``mel_norm`` for their ``norm``.
        top_db: ``None``.

    Raises:
        ValueError: more coefficients than bands; sizes or frequencies that do not fit.
        NotStreamable: ``top_db``; ``pad_mode="circular"``.

    Example:
        >>> mfcc = co.MFCC(16_000, n_mfcc=13, n_fft=512, hop_length=160, n_mels=40)
        >>> mfcc(torch.randn(2, 1, 4000)).shape
        torch.Size([2, 13, 26])

    Source: Davis and Mermelstein, Comparison of parametric representations for monosyllabic word recognition (1980).
    """

    dct_mat: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mfcc: int = 40,
        norm: str | None = "ortho",
        log_mels: bool = False,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        f_min: float = 0.0,
        f_max: float | None = None,
        n_mels: int = 128,
        window_fn: WindowFn = torch.hann_window,
        power: float = 2.0,
        normalized: bool | str = False,
        center: bool = True,
        pad_mode: str = "reflect",
        mel_norm: str | None = None,
        mel_scale: str = "htk",
        top_db: None = None,
    ):
        frames = n_fft, win_length, hop_length
        super().__init__(
            sample_rate, *frames, f_min, f_max, n_mels, window_fn, power, normalized, center, pad_mode, mel_norm, mel_scale
        )
        if not 1 <= n_mfcc <= n_mels:
            raise ValueError(f"MFCC: n_mfcc is 1 … n_mels, got {n_mfcc} of {n_mels} bands")
        refuse_top_db("MFCC", top_db)
        self.n_mfcc, self.log_mels, self.dct_norm = n_mfcc, bool(log_mels), norm
        self.register_buffer("dct_mat", cosines(n_mfcc, n_mels, norm))

    def of_bands(self, bands: Tensor) -> Tensor:
        logs = (bands + LOG_OFFSET).log() if self.log_mels else bands.clamp(min=DB_FLOOR).log10() * 10.0
        return logs @ self.dct_mat.to(logs.dtype)

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return super().macs_per_output(node, frame) + int(node.kept_spec.shape[1]) * self.dct_mat.numel()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n_mfcc={self.n_mfcc}"
