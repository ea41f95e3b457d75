"""What stands before networks: filters, spectra, features and normalisations, as people write them."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..packages import cls
from ..parts import Causal, Fn

WINDOW = 64
CLIP = "It takes a statistic of the whole clip, which a stream has not seen."
SPECTRUM = "The spectrum of the whole clip: every output depends on the last sample."


def fn(call: Any, **parts: Any) -> Any:
    """A builder of a function; parts are made again each time."""
    return lambda: Fn(call, **{k: v() if callable(v) and not isinstance(v, nn.Module) else v for k, v in parts.items()})


def mel(bins: int = 33, bands: int = 8) -> Tensor:
    """Triangles over a spectrum, evenly spaced."""
    centres = torch.linspace(0, bins - 1, bands + 2)
    at = torch.arange(bins)[:, None]
    width = centres[1] - centres[0]
    return (1 - (at - centres[1:-1]).abs() / width).clamp(min=0)


def power(x: Tensor, hop: int = 16, center: bool = False, mode: str = "reflect") -> Tensor:
    """The power spectrogram ``(B, F, T)``."""
    window = torch.hann_window(WINDOW, dtype=x.dtype)
    return torch.stft(x, WINDOW, hop, window=window, center=center, pad_mode=mode, return_complex=True).abs() ** 2


def logmel(m: Any, x: Tensor, **more: Any) -> Tensor:
    """Logarithms of the energy in bands."""
    return torch.log(m.mel.t() @ power(x, **more) + 1e-6)


def resampled(m: Any, x: Tensor, up: int, down: int, width: int = 6) -> Tensor:
    """Resampling by a rational factor: a convolution with a kernel for each phase, then all phases in turn (Smith 1984)."""
    n = x.shape[-1]
    y = F.conv1d(F.pad(x, (width, width + down))[:, None], m.kernel, stride=down).transpose(1, 2).reshape(x.shape[0], -1)
    return y[..., : -(-n * up // down)]


def kernel(up: int, down: int, width: int = 6) -> Tensor:
    """Windowed sincs, one for each phase."""
    at = torch.arange(-width, width + down)[None] / down - torch.arange(up)[:, None] / up
    rate = 0.9 * min(up / down, 1.0)
    return (torch.sinc(at * down * rate) * rate * torch.cos(at * down / width / 2 * math.pi).clamp(min=0))[:, None]


class Capsule(nn.Module):
    """A module whose spectrum is masked by a small network and turned back into samples."""

    def __init__(self, center: bool):
        super().__init__()
        self.net, self.center = nn.Sequential(Causal(33, 8, 3), nn.ReLU(), Causal(8, 33, 3), nn.Sigmoid()), center

    def forward(self, x: Tensor) -> Tensor:
        window = torch.hann_window(WINDOW, dtype=x.dtype)
        y = torch.stft(x, WINDOW, 16, window=window, center=self.center, return_complex=True)
        y = y * self.net(y.abs())
        if self.center:
            return torch.istft(y, WINDOW, 16, window=window, length=x.shape[-1])
        frames = torch.fft.irfft(y, dim=1) * window[:, None]
        size = (1, (y.shape[2] - 1) * 16 + WINDOW)
        return F.fold(frames, size, (1, WINDOW), stride=(1, 16)).flatten(1)


def ta(name: str, *args: Any, **more: Any) -> Any:
    """A builder of a transform of torchaudio."""
    return lambda: cls(f"torchaudio.transforms.{name}")(*args, **more)


def row(
    name: str, build: Any, source: str, expected: Any = "stream", clip: Any = (2, 400), time_dim: int = 1, **more: Any
) -> Network:
    """A row of this field."""
    return Network(f"front ends/{name}", build, clip, expected, source, time_dim=time_dim, **more)


SIGNAL: dict[str, Any] = {"clip": (2, 3, 64), "time_dim": 2}
AUDIO: dict[str, Any] = {"package": "torchaudio", "clip": (2, 1000)}
OPP, ALLEN = "Oppenheim 1999", "Allen 1977, Proc. IEEE"
NETWORKS = [
    row(
        "z-score of the window",
        fn(lambda m, x: (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True)),
        OPP,
        "refused",
        why=CLIP,
        **SIGNAL,
    ),
    row(
        "z-score and CNN head",
        lambda: Fn(
            lambda m, x: m.head(F.relu(m.conv((x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True))).mean(2)),
            conv=nn.Conv1d(3, 6, 5),
            head=nn.Linear(6, 4),
        ),
        OPP,
        "windows",
        **SIGNAL,
    ),
    row("mean taken off", fn(lambda m, x: x - x.mean(2, keepdim=True)), OPP, "refused", why=CLIP, **SIGNAL),
    row("mean of the last 16 taken off", fn(lambda m, x: x - F.avg_pool1d(F.pad(x, (15, 0)), 16, 1)), OPP, **SIGNAL),
    row(
        "InstanceNorm1d",
        lambda: nn.InstanceNorm1d(3, affine=True),
        "Ulyanov 2016, arXiv:1607.08022",
        "refused",
        why=CLIP,
        **SIGNAL,
    ),
    row(
        "scaled to 0 … 1",
        fn(lambda m, x: (x - x.amin(2, keepdim=True)) / (x.amax(2, keepdim=True) - x.amin(2, keepdim=True))),
        OPP,
        "refused",
        why=CLIP,
        **SIGNAL,
    ),
    row("common average reference", fn(lambda m, x: x - x.mean(1, keepdim=True)), "Ludwig 2009, J. Neurophysiol.", **SIGNAL),
    row("differences", fn(lambda m, x: torch.diff(x, dim=2)), OPP, **SIGNAL),
    row(
        "differences, first frame kept",
        fn(lambda m, x: torch.cat((x[:, :, :1], x[:, :, 1:] - 0.97 * x[:, :, :-1]), 2)),
        OPP,
        **SIGNAL,
    ),
    row("pre-emphasis", fn(lambda m, x: x - 0.97 * F.pad(x, (1, -1))), OPP),
    row(
        "deltas",
        fn(
            lambda m, x: F.conv1d(F.pad(x, (2, 2), mode="replicate"), m.w, groups=3),
            w=lambda: torch.tensor([[[-2.0, -1, 0, 1, 2]]]).repeat(3, 1, 1) / 10,
        ),
        "Furui 1986, IEEE TASSP",
        **SIGNAL,
    ),
    row("moving RMS", fn(lambda m, x: torch.sqrt(F.avg_pool1d(x**2, 9, 1) + 1e-6)), OPP, **SIGNAL),
    row("moving median", fn(lambda m, x: F.pad(x, (2, 2)).unfold(2, 5, 1).median(3).values), "Tukey 1977", **SIGNAL),
    row("moving variance", fn(lambda m, x: F.avg_pool1d(x**2, 8, 4) - F.avg_pool1d(x, 8, 4) ** 2), OPP, **SIGNAL),
    row("running sum", fn(lambda m, x: torch.cumsum(x, 2) / 10), OPP, **SIGNAL),
    row("running maximum", fn(lambda m, x: torch.cummax(x, 2).values), OPP, **SIGNAL),
    row(
        "mask of what is missing",
        fn(lambda m, x: torch.cat((torch.nan_to_num(torch.where(x > 2, torch.nan, x)), (x > 2).to(x.dtype)), 1)),
        "Che 2018, Sci. Rep. (GRU-D)",
        **SIGNAL,
    ),
    row("half the rate, interpolated", fn(lambda m, x: F.interpolate(x, scale_factor=0.5)), OPP, **SIGNAL),
    row("twice the rate, linear", fn(lambda m, x: F.interpolate(x, scale_factor=2.0, mode="linear")), OPP, **SIGNAL),
    row("interpolated to 32 samples", fn(lambda m, x: F.interpolate(x, size=32)), OPP, "windows", **SIGNAL),
    row("FIR low pass", lambda: nn.Conv1d(3, 3, 31, padding=15, groups=3, bias=False), OPP, **SIGNAL),
    row(
        "FIR by FFT",
        fn(
            lambda m, x: torch.fft.irfft(
                torch.fft.rfft(x, n=x.shape[-1] + 15) * torch.fft.rfft(m.w, n=x.shape[-1] + 15), n=x.shape[-1] + 15
            )[..., : x.shape[-1]],
            w=lambda: torch.randn(16),
        ),
        OPP,
    ),
    row(
        "analytic signal by FFT",
        fn(lambda m, x: torch.fft.ifft(torch.fft.fft(x) * (torch.arange(x.shape[-1]) < x.shape[-1] // 2)).abs()),
        "Gabor 1946",
        "refused",
        why=SPECTRUM,
        **SIGNAL,
    ),
    row(
        "band energies of the window",
        fn(lambda m, x: torch.log(torch.fft.rfft(x).abs()[..., 1:17].unflatten(2, (4, 4)).sum(3) + 1)),
        "Welch 1967",
        "windows",
        **SIGNAL,
    ),
    row(
        "covariance of the window",
        fn(lambda m, x: (y := x - x.mean(2, keepdim=True)) @ y.transpose(1, 2) / 63),
        "Barachant 2012, IEEE TBME",
        "windows",
        **SIGNAL,
    ),
    row(
        "unfolded spectra",
        fn(lambda m, x: torch.fft.rfft(x.unfold(2, 16, 8) * torch.hann_window(16, dtype=x.dtype)).abs()),
        ALLEN,
        **SIGNAL,
    ),
    row("spectrogram", fn(lambda m, x: power(x)), ALLEN),
    row("spectrogram, centred", fn(lambda m, x: power(x, center=True)), ALLEN),
    row("spectrogram, centred on zeros", fn(lambda m, x: power(x, center=True, mode="constant")), ALLEN),
    row(
        "phase of the spectrogram",
        fn(
            lambda m, x: torch.stft(
                x, WINDOW, 16, window=torch.hann_window(WINDOW, dtype=x.dtype), center=False, return_complex=True
            ).angle()
        ),
        ALLEN,
    ),
    row("log-mel", fn(logmel, mel=mel), "Davis 1980, IEEE TASSP"),
    row(
        "log-mel, Whisper's clamp",
        fn(lambda m, x: torch.maximum(y := logmel(m, x) / math.log(10), y.amax((1, 2), keepdim=True) - 8.0), mel=mel),
        "Radford 2023, ICML",
        "refused",
        why="Its lower bound is 8 below the largest value of the whole clip.",
    ),
    row(
        "MFCC",
        fn(
            lambda m, x: torch.einsum("bft,fk->bkt", logmel(m, x), m.dct),
            mel=mel,
            dct=lambda: torch.cos(torch.pi / 8 * (torch.arange(8) + 0.5)[:, None] * torch.arange(5)),
        ),
        "Davis 1980, IEEE TASSP",
    ),
    row(
        "log-mel and CNN",
        lambda: Fn(
            lambda m, x: m.net(logmel(m, x)), mel=mel(), net=nn.Sequential(nn.Conv1d(8, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3))
        ),
        "Hershey 2017, ICASSP",
    ),
    row(
        "stacked log-mel frames",
        fn(lambda m, x: logmel(m, x).unfold(2, 4, 4).permute(0, 2, 3, 1).flatten(2), mel=mel),
        "Sak 2015, Interspeech",
    ),
    row(
        "per-utterance mean and deviation",
        fn(lambda m, x: (y := logmel(m, x)) - y.mean(2, keepdim=True), mel=mel),
        "Gulati 2020, Interspeech",
        "refused",
        why=CLIP,
    ),
    row(
        "sliding mean of features",
        fn(lambda m, x: (y := logmel(m, x)) - F.avg_pool1d(F.pad(y, (9, 0)), 10, 1), mel=mel),
        "Povey 2011, ASRU",
    ),
    row("spectral flux", fn(lambda m, x: F.relu(torch.diff(power(x).sqrt(), dim=2)).sum(1)), "Bello 2005, IEEE TSAP"),
    row(
        "zero crossings",
        fn(lambda m, x: F.avg_pool1d((torch.sign(x[:, 1:]) != torch.sign(x[:, :-1])).to(x.dtype)[:, None], 32, 16)),
        "Gouyon 2000, DAFx",
    ),
    row(
        "learned filter bank",
        lambda: Fn(
            lambda m, x: torch.log(F.avg_pool1d(m.conv(x[:, None]) ** 2, 16, 8) + 1e-3), conv=nn.Conv1d(1, 8, 32, bias=False)
        ),
        "Zeghidour 2021, ICLR (LEAF)",
    ),
    row(
        "sinc filters",
        fn(
            lambda m, x: F.conv1d(
                x[:, None],
                (
                    2 * m.high[:, None] * torch.sinc(2 * m.high[:, None] * m.at)
                    - 2 * m.low[:, None] * torch.sinc(2 * m.low[:, None] * m.at)
                )[:, None],
            ),
            low=lambda: nn.Parameter(torch.rand(6) * 0.1 + 0.01),
            high=lambda: nn.Parameter(torch.rand(6) * 0.1 + 0.2),
            at=lambda: torch.arange(-12.0, 13.0),
        ),
        "Ravanelli 2018, SLT",
    ),
    row("resampling 2:1", fn(lambda m, x: resampled(m, x, 1, 2), kernel=lambda: kernel(1, 2)), "Smith 1984, ICASSP"),
    row("resampling 2:3", fn(lambda m, x: resampled(m, x, 3, 2), kernel=lambda: kernel(3, 2)), "Smith 1984, ICASSP"),
    row(
        "resampling 441:160",
        fn(lambda m, x: resampled(m, x, 160, 441), kernel=lambda: kernel(160, 441)),
        "Smith 1984, ICASSP",
        clip=(2, 1764),
    ),
    row("masked spectrum and overlap-add", lambda: Capsule(False), "Allen 1977, IEEE TASSP"),
    row("masked spectrum and ISTFT", lambda: Capsule(True), "Griffin 1984, IEEE TASSP"),
    row(
        "overlap-add by fold",
        fn(
            lambda m, x: F.fold(
                (x.unfold(1, 32, 16) * torch.hann_window(32, dtype=x.dtype)).transpose(1, 2),
                (1, (x.shape[1] - 32) // 16 * 16 + 32),
                (1, 32),
                stride=(1, 16),
            ).flatten(1)
        ),
        "Allen 1977, IEEE TASSP",
    ),
    row(
        "Haar wavelets, two levels",
        fn(
            lambda m, x: F.conv1d(F.conv1d(x[:, None], m.w, stride=2)[:, :1], m.w, stride=2),
            w=lambda: torch.tensor([[[0.7, 0.7]], [[0.7, -0.7]]]),
        ),
        "Mallat 1989, IEEE TPAMI",
    ),
    row("mu-law", fn(lambda m, x: torch.sign(x) * torch.log1p(255 * x.abs().clamp(max=1)) / math.log(256)), "ITU-T G.711"),
    row("delay and sum", fn(lambda m, x: sum(F.pad(x[:, i], (i, -i)) for i in range(3))), "Van Veen 1988, IEEE ASSP", **SIGNAL),
    row(
        "energy gate",
        fn(lambda m, x: x * (F.avg_pool1d(F.pad(x.abs()[:, None], (31, 0)), 32, 1)[:, 0] > 0.7).to(x.dtype)),
        "Rabiner 1975, BSTJ",
    ),
    row("torchaudio spectrogram", ta("Spectrogram", 64), ALLEN, **AUDIO),
    row("torchaudio spectrogram, not centred", ta("Spectrogram", 64, center=False), ALLEN, **AUDIO),
    row("torchaudio mel", ta("MelSpectrogram", 8000, 64, n_mels=8), "Davis 1980, IEEE TASSP", **AUDIO),
    row(
        "torchaudio log-mel, top_db",
        lambda: nn.Sequential(
            cls("torchaudio.transforms.MelSpectrogram")(8000, 64, n_mels=8), cls("torchaudio.transforms.AmplitudeToDB")(top_db=80)
        ),
        "Davis 1980, IEEE TASSP",
        "refused",
        why="Its lower bound is 80 dB below the largest value of the whole batch: rows mix, too.",
        **AUDIO,
    ),
    row(
        "torchaudio log-mel",
        lambda: nn.Sequential(
            cls("torchaudio.transforms.MelSpectrogram")(8000, 64, n_mels=8), cls("torchaudio.transforms.AmplitudeToDB")()
        ),
        "Davis 1980, IEEE TASSP",
        **AUDIO,
    ),
    row(
        "torchaudio MFCC",
        ta("MFCC", 8000, 5, melkwargs={"n_fft": 64, "n_mels": 8}),
        "Davis 1980, IEEE TASSP",
        "refused",
        why="Its decibels are cut off 80 below the largest value of the whole batch: rows mix, too.",
        **AUDIO,
    ),
    row("torchaudio deltas", ta("ComputeDeltas"), "Furui 1986, IEEE TASSP", clip=(2, 5, 60), time_dim=2, package="torchaudio"),
    row("torchaudio resampling 2:1", ta("Resample", 2, 1), "Smith 1984, ICASSP", **AUDIO),
    row("torchaudio resampling 2:3", ta("Resample", 2, 3), "Smith 1984, ICASSP", **AUDIO),
    row(
        "torchaudio low pass biquad",
        lambda: Fn(lambda m, x: cls("torchaudio.functional.lowpass_biquad")(x, 8000, 1000.0)),
        OPP,
        clip=(2, 100),
        package="torchaudio",
    ),
    row("torchaudio de-emphasis", ta("Deemphasis"), OPP, clip=(2, 100), package="torchaudio"),
    row("torchaudio pre-emphasis", ta("Preemphasis"), OPP, **AUDIO),
    row("torchaudio mu-law", ta("MuLawEncoding"), "ITU-T G.711", **AUDIO),
    row("torchaudio spectral centroid", ta("SpectralCentroid", 8000, 64), "Grey 1978, JASA", **AUDIO),
    row("torchaudio sliding CMN", ta("SlidingWindowCmn", 20, 10), "Povey 2011, ASRU", clip=(2, 60, 8), package="torchaudio"),
    row(
        "torchaudio Griffin-Lim",
        lambda: Fn(lambda m, x: m.net(x**2), net=cls("torchaudio.transforms.GriffinLim")(32, n_iter=2, rand_init=False)),
        "Griffin 1984, IEEE TASSP",
        "refused",
        (2, 17, 40),
        2,
        package="torchaudio",
        why="Each iteration takes the phase of a whole signal, whose frames it keeps from one iteration to the next.",
    ),
]
