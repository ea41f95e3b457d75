"""Spectra in graphs: of windows of time, and of other dimensions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import F64, Fn, No, Row, check_refused, check_row, fn, no

SOUND: dict = {"shape": (2, 30), "time": 1}
ROWS = [
    fn("magnitudes", lambda m, x: torch.stft(x, 8, 4, window=m.w, center=False, return_complex=True).abs(),
       buffers=lambda: {"w": torch.hann_window(8)}, **SOUND, delay=7, field=8),
    fn("power, default hop", lambda x: torch.stft(x, 8, window=torch.ones(8, dtype=x.dtype), center=False,
        return_complex=True).abs() ** 2,
       **SOUND, delay=7, verify=False),
    fn("a window shorter than the transform", lambda m, x: torch.stft(x, 8, 3, 5, m.w, center=False, return_complex=True).abs(),
       buffers=lambda: {"w": torch.hamming_window(5)}, **SOUND, delay=7),
    fn("normalised, two-sided", lambda m, x: torch.stft(x, 8, 3, window=m.w, center=False, normalized=True, onesided=False,
       return_complex=True).abs(), buffers=lambda: {"w": torch.hann_window(8)}, **SOUND, delay=7),
    fn("centered, padded with zeros", lambda m, x: torch.stft(x, 8, 4, window=m.w, pad_mode="constant", return_complex=True).abs(),
       buffers=lambda: {"w": torch.hann_window(8)}, **SOUND, delay=3, field=8),
    fn("centered, mirrored", lambda m, x: torch.stft(x, 8, 4, window=m.w, return_complex=True).abs(),
       buffers=lambda: {"w": torch.hann_window(8)}, **SOUND, field=8),
    fn("a mel filter bank", lambda m, x: torch.log(m.mel.abs() @ torch.stft(x, 8, 4, window=m.w, center=False,
        return_complex=True).abs() + 1e-3),
       params={"mel": (3, 5)}, buffers=lambda: {"w": torch.hann_window(8)}, **SOUND, delay=7),
    fn("rfft of windows", lambda x: torch.fft.rfft(x.unfold(2, 6, 2)).abs(), delay=5),
    fn("fft of channels", lambda x: torch.fft.fft(x, dim=1).real + torch.fft.ifft(x, dim=1).imag, delay=0),
    fn("fft of images", lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=(4, 5)), shape=(2, 3, 7, 4, 5), delay=0),
    fn("shifted spectrum of images", lambda x: torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1)).abs(), shape=(2, 3, 7, 4, 5), delay=0),
    fn("patches over time", lambda x: F.unfold(x, (3, 1)), shape=(2, 3, 9, 1), delay=2, verify=False),
    fn("patches over time and space, merged", lambda x: F.unfold(x, (3, 2), padding=(1, 0), stride=(1, 2)).unflatten(2, (x.shape[2], -1)),
       shape=(2, 3, 8, 5), delay=1),
    fn("patches, dilated", lambda x: F.unfold(x, (3, 2), dilation=(2, 1), padding=(4, 0)).unflatten(2, (-1, 4))[:, :, : x.shape[2]],
       shape=(2, 3, 8, 5), delay=0),
    fn("patches of frames", lambda x: F.unfold(x.flatten(0, 1), (2, 2), stride=2).unflatten(0, (x.shape[0], -1)), shape=(2, 7, 3, 4, 6),
        time=1,
       delay=0),
    fn("patches of frames put together", lambda x: F.fold(F.unfold(x.flatten(0, 1), 2), (4, 5), 2).unflatten(0, (x.shape[0], -1)),
       shape=(2, 7, 3, 4, 5), time=1, delay=0),
    fn("windows of tensor.unfold", lambda m, x: (x.unfold(2, 4, 3) * m.w).sum(-1), params={"w": (4,)}, delay=3, field=4),
    fn("windows of tensor.unfold, channels last", lambda x: x.unfold(1, 3, 1).amax(-1), shape=(2, 8, 5), time=1, delay=2),
    fn("windows of sound", lambda x: x.unfold(1, 4, 2).std(-1), **SOUND, delay=3),
    fn("unfold of channels", lambda x: x.unfold(1, 2, 1).mean(-1), delay=0),
]  # fmt: skip

REFUSED = [
    no("spectrum of the clip", lambda x: torch.fft.rfft(x, dim=2).abs(), "spectrum of the whole clip", "unfold"),
    no("spectrum over rows", lambda x: torch.fft.fft(x, dim=0).abs(), "mixes the rows", "other dimensions"),
]  # fmt: skip


class Plain(nn.Module):
    """A window that is no buffer: it stays in float32 when the module moves."""

    def __init__(self) -> None:
        super().__init__()
        self.window = torch.hann_window(8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stft(x, 8, 4, window=self.window, center=False, return_complex=True).abs()


@pytest.mark.parametrize("before", [True, False], ids=["module moves", "stream moves"])
def test_a_window_that_is_no_buffer_follows_the_dtype_of_the_clip(before: bool) -> None:
    module, clip = Plain().eval(), torch.randn(2, 30, dtype=torch.float64)
    net = co.continual(module.double(), clip, time_dim=1) if before else co.continual(module, clip.float(), time_dim=1).double()
    outs = [net.forward_steps(clip[:, :9]), net.forward_steps(clip[:, 9:], pad_end=True)]
    assert_equal(torch.cat([y for y in outs if y is not None], 2), module.double()(clip))


@pytest.mark.parametrize("case", ROWS)
def test_spectra_and_windows(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


PADDED = {
    "as torch.stft pads": (lambda x: F.pad(x.unsqueeze(0), (4, 4), "reflect").squeeze(0), True),
    "by zeros, on one side": (lambda x: F.pad(x.unsqueeze(0), (3, 0)).squeeze(0), True),
    "repeated": (lambda x: F.pad(x.unsqueeze(0), (2, 5), "replicate").squeeze(0), True),
    "by ones": (lambda x: F.pad(x.unsqueeze(0), (3, 3), value=1.0).squeeze(0), False),
    "used twice": (lambda x: F.pad(x.unsqueeze(0), (3, 3)).squeeze(0), False),
}


@pytest.mark.parametrize("name", PADDED)
def test_what_is_padded_before_a_transform_is_its_own(name: str) -> None:
    pad, own = PADDED[name]

    def spectra(m: nn.Module, x: Tensor) -> Tensor:
        y = pad(x)
        found = torch.stft(y, 8, 3, window=m.w, center=False, return_complex=True, normalized=True).abs()
        return found + y.unfold(1, 8, 3)[..., 0].unsqueeze(1) if name == "used twice" else found

    module, clip = Fn(spectra, {"w": torch.rand(8, dtype=F64)}).eval(), torch.randn(2, 40, dtype=F64)
    net = co.continual(module, clip, time_dim=1)
    kinds = [type(layer.module).__name__ for layer in net._program.layers]
    assert "STFT" in kinds
    assert any("Pad" in kind for kind in kinds) != own
    assert co.verify(net, clip, module).passed
    if own:
        program = co.compile(net, clip[:, 0], backend="eager")
        outs = [y.unsqueeze(2) for x in clip.unbind(1) if (y := program.step(x)) is not None]
        assert_equal(torch.cat([*outs, *filter(lambda y: y is not None, [program.flush()])], 2), module(clip))
