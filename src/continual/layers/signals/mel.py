"""`MelSpectrogram` and `LogMel`: energies of bands that are as wide as hearing has them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.state import StateNode, StepSpec
from ...errors import NotStreamable
from .mel_filters import mel_filters
from .spectrogram import Spectrogram
from .taper import WindowFn

LOGS = ("natural", "log10", "db")


class MelSpectrogram(Spectrogram):
    """Mel spectrogram, as ``torchaudio.transforms.MelSpectrogram``: ``(B, C, T)`` to ``(B, C·n_mels, frames)``.

    The bands are channels. For the times of frames see :class:`STFT`. One layer computes it all; half types are computed in float32.
    ``librosa.feature.melspectrogram`` is ``mel_scale="slaney", norm="slaney", pad_mode="constant"``.

    Args:
        sample_rate, n_fft, win_length, hop_length, f_min, f_max, n_mels, window_fn, power, normalized, center, pad_mode, norm, mel_scale:
            as in ``torchaudio.transforms.MelSpectrogram``, whose defaults they have.

    Raises:
        ValueError: sizes or frequencies that do not fit.
        NotStreamable: ``pad_mode="circular"``.

    Example:
        >>> mel = co.MelSpectrogram(16_000, n_fft=512, hop_length=160, n_mels=80, center=False)
        >>> mel.step_size, mel.forward_steps(torch.randn(1, 1, 512)).shape, mel.forward_steps(torch.randn(1, 1, 160)).shape
        (160, torch.Size([1, 80, 1]), torch.Size([1, 80, 1]))

    Source: Davis and Mermelstein, Comparison of parametric representations for monosyllabic word recognition (1980).
    """

    has_products = True
    fb: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
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
        norm: str | None = None,
        mel_scale: str = "htk",
    ):
        super(Spectrogram, self).__init__()
        if power is None:
            raise ValueError(f"{type(self).__name__}: power is a number: bands are of power or magnitude, not of complex spectra")
        self._set_spectrogram(n_fft, win_length, hop_length, window_fn, power, normalized, center, pad_mode)
        self.sample_rate, self.n_mels, self.f_min = sample_rate, n_mels, float(f_min)
        self.f_max = float(sample_rate // 2) if f_max is None else float(f_max)
        self.norm, self.mel_scale = norm, mel_scale
        self.register_buffer("fb", mel_filters(self.bins, self.f_min, self.f_max, n_mels, sample_rate, norm, mel_scale))

    def of_windows(self, windows: Tensor, taper: Tensor) -> Tensor:
        spectrum, filters = self.spectrum(windows, taper), self._buffers["fb"]
        if self.power != 2 or filters is None:
            return self.of_spectrum(spectrum)
        parts = torch.view_as_real(spectrum).flatten(-2)
        summed: Tensor = self._laid_out("fb", filters, _for_parts)
        return self.of_bands(parts.square() @ (summed if summed.dtype == parts.dtype else summed.to(parts.dtype)))

    def of_values(self, values: Tensor) -> Tensor:
        return self.of_bands(values @ self.fb.to(values.dtype))

    def of_bands(self, bands: Tensor) -> Tensor:
        """What leaves of the bands ``(…, n_mels)``."""
        return bands

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return int(node.kept_spec.shape[1]) * self.fb.numel()

    def extra_repr(self) -> str:
        return f"{self.sample_rate}, {super().extra_repr()}, n_mels={self.n_mels}"


def _for_parts(filters: Tensor) -> Tensor:
    """Filters for squares of real and imaginary parts side by side: their sum is the power."""
    return filters.repeat_interleave(2, 0)


class LogMel(MelSpectrogram):
    """The logarithm of a mel spectrogram: ``(B, C, T)`` to ``(B, C·n_mels, frames)``, the usual input of speech and sound networks.

    ``log(max(mel, floor))``, of each value alone. ``top_db`` of torchaudio and librosa, which lifts values far below the loudest one, needs
    the whole clip: :class:`TopDB` uses the loudest one so far.

    Args:
        sample_rate, n_fft, win_length, hop_length, f_min, f_max, n_mels, window_fn, power, normalized, center, pad_mode, norm, mel_scale:
            as in :class:`MelSpectrogram`.
        log: ``"natural"``; ``"log10"``; or ``"db"``: ten times ``log10`` of the power, and 20 times that of the magnitude (``power=1``).
        floor: what smaller values are replaced by.
        top_db: ``None``.

    Raises:
        ValueError: sizes or frequencies that do not fit, another ``log``, or a floor that is not above 0.
        NotStreamable: ``top_db``; ``pad_mode="circular"``.

    Example:
        >>> net = co.Sequential(
        ...     co.LogMel(16_000, n_fft=512, hop_length=160, n_mels=80, center=False), co.Conv1d(80, 16, 3), nn.ReLU()
        ... ).eval()
        >>> net.receptive_field, net.stride, net.delay, net.step_size
        (832, (160,), 831, 160)
        >>> net.forward_steps(torch.randn(1, 1, 832)).shape, net.forward_steps(torch.randn(1, 1, 160)).shape
        (torch.Size([1, 16, 1]), torch.Size([1, 16, 1]))
    """

    def __init__(
        self,
        sample_rate: int = 16000,
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
        norm: str | None = None,
        mel_scale: str = "htk",
        log: str = "natural",
        floor: float = 1e-10,
        top_db: None = None,
    ):
        frames = n_fft, win_length, hop_length
        super().__init__(
            sample_rate, *frames, f_min, f_max, n_mels, window_fn, power, normalized, center, pad_mode, norm, mel_scale
        )
        if log not in LOGS:
            raise ValueError(f"{type(self).__name__}: log is 'natural', 'log10' or 'db', not {log!r}")
        if not floor > 0:
            raise ValueError(f"{type(self).__name__}: floor is above 0, whose logarithm exists; got {floor}")
        refuse_top_db(type(self).__name__, top_db)
        self.log, self.floor = log, floor

    def of_bands(self, bands: Tensor) -> Tensor:
        bands = bands.clamp(min=self.floor)
        if self.log == "natural":
            return bands.log()
        bands = bands.log10()
        return bands * (20.0 / (self.power or 2)) if self.log == "db" else bands

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, log={self.log!r}"


def refuse_top_db(name: str, top_db: float | None) -> None:
    """Refuse a floor below the loudest value of a clip."""
    if top_db is not None:
        raise NotStreamable(
            f"{name}(top_db={top_db}) lifts values more than {top_db} dB below the loudest one of the whole clip, of which a stream has "
            f"seen a part. Remedies: top_db=None; or behind it co.TopDB({top_db}), which takes the loudest one so far (another function)"
        )
