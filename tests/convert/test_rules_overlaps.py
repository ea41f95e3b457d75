"""Windows of time that are put together again: `F.fold`, `torch.istft`, and networks around them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.layers.signals.overlap import OverlapAdd
from tests.contract import assert_equal
from tests.convert.rows import F64, Fn, No, Row, check_refused, check_row, fn, in_turns, no, row


class Masked(nn.Module):
    """A mask for spectra, by a recurrent layer: ``(B, T)``."""

    def __init__(self, length: bool = False) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(8))
        self.length, self.rnn, self.out = length, nn.GRU(5, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        spectra = torch.stft(x, 8, 4, window=self.window, return_complex=True)
        mask = torch.sigmoid(self.out(self.rnn(spectra.abs().transpose(1, 2))[0])).transpose(1, 2)
        return torch.istft(spectra * mask, 8, 4, window=self.window, length=x.shape[1] if self.length else None)


class OverlappingAttention(nn.Module):
    """Attention inside windows that overlap by half, as mean of both: ``(B, C, T)``."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unfold(2, 6, 3)
        b, c, n, size = windows.shape
        y = windows.permute(0, 2, 3, 1).reshape(b * n, size, c)
        y = self.attention(y, y, y, need_weights=False)[0].view(b, n, size, c).permute(0, 3, 2, 1).reshape(b, c * size, n)
        return F.fold(y / 2, (1, 3 * n + 3), (1, 6), stride=(1, 3)).squeeze(2)


class Decoder(nn.Module):
    """A filter bank, a convolution over its frames, and a synthesis of overlapping frames: ``(B, 1, T)``."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.middle = nn.Conv1d(1, 5, 6, stride=2), nn.Conv1d(5, 5, 3, padding=1)
        self.decode = nn.Linear(5, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.encode(x).relu()
        y = self.decode((y * self.middle(y).sigmoid()).transpose(1, 2)).transpose(1, 2)
        return F.fold(y, (2 * y.shape[2] + 4, 1), (6, 1), stride=(2, 1)).squeeze(3)


def hann() -> dict[str, Tensor]:
    return {"w": torch.hann_window(8, dtype=F64)}


def patches(size: int, hop: int, padding: int = 0):  # type: ignore[no-untyped-def]
    """A linear map of each patch of ``(B, 2, T)``, and the patches put together."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        options = {"kernel_size": (size, 1), "stride": (hop, 1), "padding": (padding, 0)}
        y = m.w @ F.unfold(x.unsqueeze(3), **options)
        return F.fold(y, ((y.shape[2] - 1) * hop + size - 2 * padding, 1), **options).squeeze(3)

    return run


SPECTRA: dict = {"shape": (2, 5, 9), "buffers": hann}
SOUND: dict = {"shape": (2, 32), "time": 1, "other": 8, "buffers": hann}
ROWS = [
    fn("patches that overlap", patches(4, 2), params={"w": (8, 8)}, shape=(2, 2, 12), other=4, delay=3),
    fn("patches of a size that the hop does not divide", patches(7, 3), params={"w": (14, 14)}, shape=(2, 2, 13), other=6),
    fn("patches with padding", patches(5, 1, 2), params={"w": (10, 10)}, shape=(2, 2, 11)),
    fn("patches side by side", lambda m, x: F.fold(m.w @ x, (3 * x.shape[2], 1), (3, 1), stride=(3, 1)), params={"w": (6, 4)},
        shape=(2, 4, 9), delay=0),
    fn("patches along columns", lambda m, x: F.fold(m.w @ x, (1, 2 * x.shape[2] + 3), (1, 5), stride=(1, 2)), params={"w": (10, 4)},
        shape=(2, 4, 9), delay=0),
    fn("patches of joints", lambda m, x: F.fold(m.w @ F.unfold(x, (3, 1), padding=(1, 0)), x.shape[2:], (3, 1), padding=(1, 0)),
        params={"w": (6, 6)}, shape=(2, 2, 9, 5)),
    fn("inverse spectra", lambda m, x: torch.istft(torch.complex(x, x.flip(1)), 8, 2, window=m.w), **SPECTRA),
    fn("inverse spectra, default hop", lambda m, x: torch.istft(torch.complex(x, x.flip(1)), 8, window=m.w), **SPECTRA),
    fn("inverse spectra, normalised, two-sided", lambda m, x: torch.istft(torch.complex(x, x.flip(1)), 8, 2, window=m.w, normalized=True,
        onesided=False), shape=(2, 8, 9), buffers=hann),
    fn("inverse spectra, not centred", lambda x: torch.istft(torch.complex(x, x.flip(1)), 8, 3, center=False, window=torch.ones(8,
        dtype=x.dtype)), shape=(2, 5, 9), delay=0),
    fn("inverse spectra, a shorter window", lambda m, x: torch.istft(torch.complex(x, x.flip(1)), 12, 2, 8, window=m.w), shape=(2, 7, 9),
        buffers=hann),
    fn("inverse spectra of one row", lambda m, x: torch.istft(torch.complex(x, x.flip(1))[:, 0], 8, 2, window=m.w), shape=(2, 1, 5, 9),
        time=3, buffers=hann),
    fn("spectra and back", lambda m, x: torch.istft(torch.stft(x, 8, 2, window=m.w, return_complex=True) * 2, 8, 2, window=m.w), **SOUND),
    row("masked spectra", Masked, shape=(2, 40), time=1, other=16),
    row("masked spectra, to the length of the clip", lambda: Masked(True), shape=(2, 40), time=1, other=16),
    row("masked spectra, to a length that leaves a rest", lambda: Masked(True), shape=(2, 42), time=1, other=16),
    row("attention inside windows that overlap", OverlappingAttention, shape=(2, 4, 12), other=9, delay=5),
    row("a filter bank and its synthesis", Decoder, shape=(2, 1, 20), other=6),
]  # fmt: skip

REFUSED = [
    no("patches over time and space", lambda x: F.fold(F.unfold(x, 2), x.shape[2:], 2), "over time and space at once", r"\(k, 1\)",
       shape=(2, 3, 9, 4)),
    no("patches with gaps", lambda x: F.fold(x, (3 * x.shape[2] - 1, 1), (2, 1), stride=(3, 1)), "lie apart", "stride of k",
       shape=(2, 4, 9)),
    no("places in a patch that are frames", lambda x: F.fold(x.transpose(1, 2), (4, 1), (3, 1)), "for the places in a patch",
       r"\(B, C·k, T\)", shape=(2, 2, 12)),
    no("inverse spectra over other dimensions", lambda x: torch.istft(torch.complex(x, x).transpose(1, 2), 8, 2,
       window=torch.ones(8, dtype=x.dtype)), "does not run over time here", r"\(B, F, T\)", shape=(2, 9, 5)),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_windows_put_together(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


@pytest.mark.parametrize(("size", "hop"), [(1, 1), (4, 4), (5, 1), (6, 2), (7, 3), (9, 4)])
def test_the_layer_keeps_the_contract(size: int, hop: int) -> None:
    layer, clip = OverlapAdd(size, hop).eval(), torch.randn(2, 3, 9, 2, size)
    columns = clip.permute(0, 1, 3, 4, 2).reshape(2, -1, 9)
    want = F.fold(columns, ((9 - 1) * hop + size, 1), (size, 1), stride=(hop, 1)).view(2, 3, 2, -1).movedim(-1, 2)
    assert_equal(layer(clip), want, "forward")
    co.verify(layer, clip)


@pytest.mark.parametrize(("size", "hop"), [(3, 3), (5, 2), (4, 1)])
def test_the_layer_in_a_program(size: int, hop: int) -> None:
    layer, clip = OverlapAdd(size, hop).eval(), torch.randn(2, 3, 7, size)
    program = co.compile(layer, clip[:, :, 0], backend="eager")
    found = [y for frame in clip.unbind(2) if (y := program.step(frame)) is not None]
    found = [y.unsqueeze(2) if y.ndim == 2 else y for y in found]
    if (rest := program.flush()) is not None:
        found.append(rest)
    assert_equal(torch.cat(found, 2), layer(clip), "a program")


@pytest.mark.filterwarnings("ignore:The length of signal is shorter")
def test_zeros_behind_the_last_window() -> None:
    window = torch.ones(8, dtype=F64)
    check_refused(No("", lambda: Fn(lambda x: torch.istft(torch.complex(x, x), 8, 2, window=window, length=60)),
                     "zeros behind the last window", "no length", shape=(2, 5, 13)))  # fmt: skip


def test_a_patch_longer_than_the_layer_takes() -> None:
    with pytest.raises(co.ShapeMismatch, match=r"takes patches \(B, C, \*S, 4\)"):
        OverlapAdd(4, 2).forward_step(torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match=r"1 … 2 frames"):
        OverlapAdd(2, 3)
