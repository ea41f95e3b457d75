"""Spectra of windows, against ``torch.stft`` and ``torch.istft``, and against values of torchaudio."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, check_gradients
from tests.layers.signals.chunks import streamed

F64 = torch.float64
COMPLEX = {torch.complex64: torch.float32, torch.complex128: F64}


def by_torch(clip: Tensor, n_fft: int, *args: Any, **options: Any) -> Tensor:
    """``torch.stft`` of each channel, frequencies in the channels."""
    b, c, t = clip.shape
    y = torch.stft(clip.reshape(b * c, t), n_fft, *args, return_complex=True, **options)
    return y.unflatten(0, (b, c)).flatten(1, 2)


def close(a: Tensor, b: Tensor) -> None:
    assert_equal(*(torch.view_as_real(t) if t.is_complex() else t for t in (a, b)))


@st.composite
def transforms(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of both transforms, with a window that is nowhere zero."""
    n = draw(st.integers(2, 24))
    size = draw(st.integers(1, n))
    window = torch.rand(size, dtype=F64, generator=torch.Generator().manual_seed(n)) + 0.2
    return {
        "n_fft": n, "hop_length": draw(st.integers(1, size)), "win_length": size, "window": window, "center": draw(st.booleans()),
        "normalized": draw(st.booleans()), "onesided": draw(st.booleans()),
    }  # fmt: skip


@given(transforms(), st.sampled_from(["reflect", "constant", "replicate"]), st.lists(st.integers(1, 30), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_stft_equals_that_of_torch(options: dict[str, Any], pad_mode: str, sizes: list[int]) -> None:
    clip = torch.randn(2, 3, 61, dtype=F64)
    net = co.STFT(**options, pad_mode=pad_mode).double()
    want = by_torch(clip, **options, pad_mode=pad_mode)
    close(net(clip), want)
    with torch.no_grad():
        close(streamed(net, clip, sizes), want)


@given(transforms(), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_istft_equals_that_of_torch(options: dict[str, Any], sizes: list[int], pairs: bool) -> None:
    n, one = options["n_fft"], options["onesided"]
    clip = torch.randn(2, 3 * (n // 2 + 1 if one else n), 9, 2, dtype=F64)
    frames = clip if pairs else torch.view_as_complex(clip)
    separate = torch.view_as_complex(clip).unflatten(1, (3, -1)).flatten(0, 1)
    try:
        want = torch.istft(separate, **options).unflatten(0, (2, 3))
    except RuntimeError:  # the sum of the windows is zero between them
        with pytest.raises((ValueError, co.ShapeMismatch)):
            co.InverseSTFT(**options).double()(frames)
        return
    net = co.InverseSTFT(**options).double()
    close(net(frames), want)
    with torch.no_grad():
        close(streamed(net, frames, sizes), want)


INVERSES = {
    "a window that overlaps": {"n_fft": 12, "hop_length": 5, "window": torch.hann_window(12)},
    "without padding": {"n_fft": 9, "hop_length": 4, "window": torch.hamming_window(9), "center": False, "normalized": True},
    "complex signals": {"n_fft": 6, "hop_length": 6, "onesided": False, "return_complex": True},
    "cut so far that outputs wait": {"n_fft": 8, "hop_length": 7},
}


@pytest.mark.parametrize("name", INVERSES)
def test_the_inverse_keeps_the_contract(name: str) -> None:
    net = co.InverseSTFT(**INVERSES[name]).eval().double()
    clip = torch.randn(2, 2 * net.bins, 11, dtype=torch.complex128)
    assert co.verify(net, clip).passed
    assert co.verify(net, torch.view_as_real(clip)).passed


def test_a_signal_there_and_back() -> None:
    window = torch.hann_window(16, dtype=F64)
    net = co.Sequential(co.STFT(16, 4, window=window), co.InverseSTFT(16, 4, window=window)).double().eval()
    clip = torch.randn(2, 3, 64, dtype=F64)
    assert_equal(net(clip), clip)
    assert co.verify(net, clip).passed
    check_gradients(net, clip)


def test_complex_samples() -> None:
    net, clip = co.STFT(8, 3, center=False, onesided=False).double().eval(), torch.randn(2, 2, 30, dtype=torch.complex128)
    close(net(clip), by_torch(clip, 8, 3, center=False, onesided=False, window=net.window))
    assert co.verify(net, clip).passed
    with pytest.raises(co.ShapeMismatch, match=r"STFT: takes real samples \(complex ones with onesided=False\)"):
        co.STFT(8, 3).double().forward_step(clip[:, :, 0])


def test_counts_say_how_late_frames_are() -> None:
    """A frame lies around its sample with ``center``: half a window later, and a sample more where the start is mirrored."""
    for center, n, pad_mode, delay in (
        (True, 16, "constant", 7),
        (True, 16, "reflect", 8),
        (True, 15, "reflect", 7),
        (False, 16, "", 15),
    ):
        net = co.STFT(n, 5, center=center, pad_mode=pad_mode or "reflect")
        assert (net.delay, net.receptive_field, net.stride, net.step_size) == (delay, n, (5,), 5)


def test_the_state_is_not_in_the_weights() -> None:
    net = co.LogMel(8000, 32, hop_length=8, n_mels=5)
    net.forward_steps(torch.randn(1, 1, 50))
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == {"window": (32,), "fb": (17, 5)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_computed_in_single_precision(dtype: torch.dtype) -> None:
    clip = torch.randn(2, 2, 120).to(dtype)
    net = co.LogMel(8000, 32, hop_length=8, n_mels=5).to(dtype).eval()
    want = co.LogMel(8000, 32, hop_length=8, n_mels=5)
    want.load_state_dict({k: v.float() for k, v in net.state_dict().items()})
    assert net(clip).dtype == dtype
    assert_equal(net(clip), want(clip.float()).to(dtype))
    assert co.verify(net, clip).passed
    with pytest.raises(co.ShapeMismatch, match="STFT: gives complex numbers, whose parts are float32 or float64"):
        co.STFT(8).to(dtype).forward_step(clip[:, :, 0])


# ---- bands --------------------------------------------------------------------------------------------------------------


def bands(clip: Tensor, net: co.MelSpectrogram, power: float) -> Tensor:
    spectra = by_torch(clip, net.n_fft, net.hop_length, net.win_length, window=net.window).unflatten(1, (clip.shape[1], -1))
    return torch.einsum("bcft,fm->bcmt", spectra.abs().pow(power), net.fb).flatten(1, 2)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_bands_of_powers(power: float) -> None:
    net = co.MelSpectrogram(8000, 40, 30, 12, n_mels=6, power=power).double().eval()
    clip = torch.randn(2, 2, 200, dtype=F64)
    assert_equal(net(clip), bands(clip, net, power))
    log = co.LogMel(8000, 40, 30, 12, n_mels=6, power=power, log="db", floor=0.5).double()
    assert_equal(log(clip), (20 / power) * net(clip).clamp(min=0.5).log10())
    check_gradients(log.eval(), clip)


def test_filters_of_torchaudio() -> None:
    """``torchaudio.transforms.MelSpectrogram(8000, 32, n_mels=4, …).mel_scale.fb`` of 2.11, whose filters are made in float32."""
    second = [0, 0, 0.36964777, 0.89611262, 0.71126032, 0.35153627, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert torch.allclose(co.MelSpectrogram(8000, 32, n_mels=4).fb[:, 1], torch.tensor(second), atol=2e-6)
    slaney = [0, 0, 1.2631027e-4, 1.1400406e-3, 1.6980425e-3, 8.8300009e-4, 6.7957735e-5, *[0] * 10]
    found = co.MelSpectrogram(8000, 32, n_mels=4, norm="slaney", mel_scale="slaney").fb[:, 1]
    assert torch.allclose(found, torch.tensor(slaney), atol=2e-9)


def test_coefficients_of_torchaudio() -> None:
    """``torchaudio.transforms.MFCC(8000, 3, melkwargs={"n_mels": 4, "n_fft": 32, "hop_length": 16})`` of 2.11.

    Its first frame is left out: there a band lies below the floor that torchaudio takes from the loudest one of the clip.
    """
    clip = torch.sin(torch.arange(64) * 0.3).view(1, 1, -1) * torch.linspace(0, 1, 64)
    want = [
        [-37.42868, -22.591469, -18.538952, 10.378983],
        [47.010517, 43.397964, 46.506172, 15.282286],
        [-8.5875187, -6.6519880, -8.0750981, -2.4474082],
    ]
    net = co.MFCC(8000, 3, n_mels=4, n_fft=32, hop_length=16)
    assert torch.allclose(net(clip)[:, :, 1:], torch.tensor([want]), atol=2e-3)
    table = co.MFCC(8000, 4, n_mels=4, n_fft=32).dct_mat.double()
    assert torch.allclose(table.T @ table, torch.eye(4, dtype=F64), atol=1e-6)
    assert torch.allclose(co.MFCC(8000, 4, None, n_mels=4, n_fft=32).dct_mat[:, 0], torch.full((4,), 2.0))


def test_a_floor_below_the_loudest_value_so_far() -> None:
    net, clip = co.TopDB(1.5).double().eval(), torch.randn(3, 2, 40, 2, dtype=F64)
    peak = clip.amax((1, 3)).cummax(1).values.view(3, 1, 40, 1)
    assert_equal(net(clip), torch.maximum(clip, peak - 1.5))
    assert co.verify(net, clip).passed


# ---- steps of a hop ------------------------------------------------------------------------------------------------------


def test_hops_take_the_short_way_from_any_phase() -> None:
    """Chunks of a hop, after a start that puts them at odd places of the ring, and longer ones that complete one window too."""
    net = co.Sequential(co.LogMel(8000, 24, hop_length=10, n_mels=5, center=False), co.Conv1d(5, 4, 3), nn.ReLU()).double().eval()
    clip = torch.randn(2, 1, 400, dtype=F64)
    want = net(clip)
    for first in (0, 3, 24, 27, 60):
        for hop in (10, 7, 13):
            with torch.no_grad():
                assert_equal(
                    streamed(net, torch.cat((clip[:, :, :first], clip[:, :, first:]), 2), [first or hop, *[hop] * 60]), want
                )


def test_the_size_of_a_step() -> None:
    """The chunk that always completes as many outputs: down and up again, that of the stride inside."""
    down, up = co.Conv1d(2, 2, 4, stride=3), co.ConvTranspose1d(2, 2, 2, stride=2)
    sizes = [net.step_size for net in (co.Conv1d(2, 2, 3), down, up, co.Sequential(down, up), co.Sequential(down, down))]
    assert sizes == [1, 3, 1, 3, 9]


def test_hops_in_programs() -> None:
    net = co.Sequential(co.LogMel(8000, 24, hop_length=10, n_mels=5), co.Conv1d(5, 2, 3)).double().eval()
    clip = torch.randn(2, 1, 100, dtype=F64)
    program = co.compile(net, clip[:, :, 0], backend="eager")
    assert (program.chunk, program.outputs) == (net.step_size, 1) == (10, 1)
    outs = [y for x in clip.unbind(2) if (y := program.step(x)) is not None]
    assert_equal(torch.cat([*(y.unsqueeze(2) for y in outs), program.flush()], 2), net(clip))


# ---- what is refused ------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "circular padding": (lambda: co.STFT(8, pad_mode="circular"), co.NotStreamable, "pad_mode='reflect', 'replicate'"),
    "top_db": (lambda: co.LogMel(top_db=80.0), co.NotStreamable, r"top_db=None; or behind it co.TopDB\(80.0\)"),
    "top_db of MFCC": (lambda: co.MFCC(top_db=60), co.NotStreamable, r"co.TopDB\(60\)"),
    "padding": (lambda: co.STFT(8, pad_mode="odd"), ValueError, "not 'odd'"),
    "a hop": (lambda: co.STFT(8, 0), ValueError, "hop_length=0"),
    "a window": (lambda: co.STFT(8, window=torch.ones(3), win_length=4), ValueError, r"win_length of 4 values, got \(3,\)"),
    "a long window": (lambda: co.STFT(8, win_length=9), ValueError, "win_length=9"),
    "norms of STFT": (lambda: co.STFT(8, normalized="window"), ValueError, "Spectrogram takes 'window'"),
    "norms": (lambda: co.Spectrogram(normalized="frame"), ValueError, "not 'frame'"),
    "power": (lambda: co.Spectrogram(power=0.0), ValueError, "power is above 0"),
    "complex bands": (lambda: co.MelSpectrogram(power=None), ValueError, "power is a number"),
    "logarithm": (lambda: co.LogMel(log="ln"), ValueError, "not 'ln'"),
    "floor": (lambda: co.LogMel(floor=0.0), ValueError, "floor is above 0"),
    "scale": (lambda: co.LogMel(mel_scale="bark"), ValueError, "not 'bark'"),
    "norm of filters": (lambda: co.LogMel(norm="ortho"), ValueError, "not 'ortho'"),
    "frequencies": (lambda: co.LogMel(f_min=9000.0), ValueError, "0 <= f_min < f_max"),
    "coefficients": (lambda: co.MFCC(n_mfcc=41, n_mels=40), ValueError, "got 41 of 40"),
    "norm of coefficients": (lambda: co.MFCC(norm="slaney"), ValueError, "not 'slaney'"),
    "peak": (lambda: co.TopDB(0.0), ValueError, "above 0"),
    "windows that are zero": (
        lambda: co.InverseSTFT(8, 4, window=torch.hann_window(8), center=False), ValueError, "sum of the squared windows is 0"
    ),
    "windows apart": (lambda: co.InverseSTFT(8, 5, 4), ValueError, "got 5 and 4"),
    "half a complex signal": (lambda: co.InverseSTFT(8, return_complex=True), ValueError, "onesided=False"),
    "frequencies of frames": (
        lambda: co.InverseSTFT(8).forward_step(torch.zeros(1, 6, dtype=torch.complex64)), co.ShapeMismatch, r"\(B, C·5\) of complex"
    ),
    "frames of half types": (
        lambda: co.InverseSTFT(8).half().forward_step(torch.zeros(1, 5, 2).half()), co.ShapeMismatch, "float32 or float64"
    ),
    "images": (lambda: co.STFT(8).forward_step(torch.zeros(1, 2, 3)), co.ShapeMismatch, r"takes steps \(B, C\)"),
    "another precision": (lambda: co.STFT(8).forward_step(torch.zeros(1, 2, dtype=F64)), co.ShapeMismatch, "weights are torch.float32"),
    "a short clip": (lambda: co.STFT(8)(torch.zeros(1, 1, 4)), co.ShapeMismatch, "a clip of 4 steps is too short"),
    "one frame": (lambda: co.InverseSTFT(8)(torch.zeros(1, 5, 1, 2)), co.ShapeMismatch, "a clip of 1 steps is too short"),
    "complex numbers of a file": (
        lambda: co.export(co.STFT(8).eval(), torch.zeros(1, 1), "net.onnx"),
        co.NotStreamable,
        "co.export: STFT takes, gives or keeps complex.*return_complex=False",
    ),
    "complex frames of a file": (
        lambda: co.export(co.InverseSTFT(8).eval(), torch.zeros(1, 5, dtype=torch.complex64), "net.onnx"),
        co.NotStreamable,
        "STFT with return_complex=False before it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, kind, match = REFUSED[name]
    with pytest.raises(kind, match=match):
        make()


def test_the_angle_of_a_transform_by_products() -> None:
    """Programs for runtimes without complex numbers: the same values, of long transforms too."""
    from continual.layers.signals.transforms import forward_matrix, inverse_matrix

    x = torch.randn(3, 401, dtype=F64)
    for n in (400, 401):
        bins = n // 2 + 1
        parts = (x[:, :n] @ forward_matrix(n, bins, 1.0, x)).unflatten(1, (bins, 2))
        assert_equal(parts, torch.view_as_real(torch.fft.rfft(x[:, :n])))
        assert_equal(parts.flatten(1) @ inverse_matrix(n, bins, 1.0, x), x[:, :n])
    assert math.isclose(forward_matrix(4, 3, 0.5, x)[1, 3].item(), -0.5)
