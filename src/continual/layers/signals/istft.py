"""`InverseSTFT`: signals of overlapping windows' spectra, `torch.istft` on streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.program.context import CallRows, KernelContext, Run
from ...core.state import StepSpec
from ...errors import ShapeMismatch
from ..local import check_home
from ..weight_cache import PackedWeight
from .frames import HALF
from .overlap import OverlapAdd
from .taper import centred, sizes_of, taper_of
from .transforms import inverse_matrix

LEAST = 1e-11  # of the sum of squared windows, as torch.istft has it
KEPT = 16  # envelopes that are kept


class InverseSTFT(OverlapAdd, PackedWeight):
    """The signal of a short-time Fourier transform: ``torch.istft`` of ``(B, C·F, frames)``, as ``(B, C, T)``.

    Windows are added where they overlap, and divided by the sum of the squared windows that lie there: fewer at both ends. A frame gives
    ``hop_length`` samples, stacked (``stride`` is ``1 / hop_length``); with ``center=True`` the first ``n_fft // 2`` are cut off, and as
    many at the end. :class:`STFT` and this, in a row, delay a signal by about ``n_fft`` samples.

    Args:
        n_fft, hop_length, win_length, window, center, normalized, onesided, return_complex: as in ``torch.istft``, with its defaults.
            Without a ``win_length``, it is the length of ``window``. Frames are complex, or ``(B, C·F, frames, 2)``. To cut a signal off
            at a ``length``, cut the outputs.

    Raises:
        ValueError: sizes that do not fit, or windows whose sum is zero somewhere (``torch.istft`` raises an error then).

    Example:
        >>> stft = co.STFT(8, hop_length=2, window=torch.hann_window(8))
        >>> inverse = co.InverseSTFT(8, hop_length=2, window=torch.hann_window(8))
        >>> clip = torch.randn(2, 3, 20)
        >>> torch.allclose(inverse(stft(clip)), clip, atol=1e-6)
        True
        >>> inverse.stride, inverse.forward_step(torch.zeros(2, 5, dtype=torch.complex64)) is None
        ((Fraction(1, 2),), True)

    Source: Griffin and Lim, Signal estimation from modified short-time Fourier transform (1984).
    """

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop_length: int | None = None,
        win_length: int | None = None,
        window: Tensor | None = None,
        center: bool = True,
        normalized: bool = False,
        onesided: bool = True,
        return_complex: bool = False,
    ):
        super(OverlapAdd, self).__init__()
        n, hop, size = sizes_of("InverseSTFT", n_fft, hop_length, win_length, window)
        if hop > size:
            raise ValueError(f"InverseSTFT: hop_length is 1 … win_length, so that windows touch; got {hop} and {size}")
        if return_complex and onesided:
            raise ValueError("InverseSTFT: return_complex=True needs onesided=False: half of a spectrum is that of a real signal")
        self.n_fft, self.hop_length, self.win_length = n, hop, size
        self.center, self.normalized, self.onesided = bool(center), bool(normalized), bool(onesided)
        self.return_complex = bool(return_complex)
        self.register_buffer("window", taper_of(window, size))
        self._set_patches(n, hop, n // 2 if center else 0)
        self._check_envelope()

    @property
    def bins(self) -> int:
        """Frequencies of a spectrum."""
        return self.n_fft // 2 + 1 if self.onesided else self.n_fft

    def _check_envelope(self) -> None:
        if self.window.is_meta:
            return
        for frames in range(1, 2 * (self.n_fft // self.hop_length) + 3):
            count = self._timing.ended(frames)
            least = self._envelope(frames, self._cut, count).min().item() if count else 1.0
            if least < LEAST:
                raise ValueError(
                    f"InverseSTFT: the sum of the squared windows is {least:.3g} somewhere in {frames} frames, and torch.istft divides by "
                    f"it ({self.extra_repr()}). Remedies: a "
                    "window whose ends are not zero (torch.hamming_window), center=True, or a smaller hop_length"
                )

    # ---- frames and samples ---------------------------------------------------------------------------------------------

    def patch_of(self, frame: StepSpec, name: str) -> StepSpec:
        pairs = not frame.dtype.is_complex
        if len(frame.shape) != 2 + pairs or frame.shape[1] % self.bins or (pairs and frame.shape[2] != 2):
            raise ShapeMismatch(
                f"{name}: takes steps (B, C·{self.bins}) of complex numbers, or (B, C·{self.bins}, 2): n_fft={self.n_fft} has {self.bins} "
                f"frequencies; got {frame}"
            )
        if frame.dtype in HALF or not (frame.dtype.is_complex or frame.dtype.is_floating_point):
            raise ShapeMismatch(f"{name}: takes complex numbers with parts in float32 or float64, got {frame}")
        real = torch.empty(0, dtype=frame.dtype).real.dtype
        home = StepSpec((frame.shape[0], frame.shape[1] // self.bins, self.n_fft), real, frame.device)
        check_home(self.window, home, name, mixed=False)
        self._forget_layouts()
        return replace(
            home, dtype=(torch.complex128 if real == torch.float64 else torch.complex64) if self.return_complex else real
        )

    def patches_of(self, x: Tensor) -> Tensor:
        x = x if x.is_complex() else torch.view_as_complex(x.contiguous())
        spectra = x.unflatten(1, (-1, self.bins)).transpose(2, 3)  # (B, C, m, F)
        norm = "ortho" if self.normalized else None
        if self.return_complex:
            windows = torch.fft.ifft(spectra, norm=norm)
        else:
            windows = torch.fft.irfft(spectra[..., : self.n_fft // 2 + 1], self.n_fft, norm=norm)
        return windows * centred(self.window, self.n_fft)

    def program(self, ctx: KernelContext) -> Run:
        if ctx.target.real and (self.return_complex or ctx.node.in_spec.dtype.is_complex):
            raise ctx.refuse(
                "takes or gives complex numbers, which this runtime lacks. Use STFT with return_complex=False before it, whose parts are "
                "a last dimension of 2, and return_complex=False here; or the format 'pt2'"
            )
        return super().program(ctx)

    def patches_in_program(self, ctx: KernelContext) -> Callable[[Tensor], Tensor]:
        if not ctx.target.real:
            return self.patches_of
        half = self.n_fft // 2 + 1
        matrix = inverse_matrix(self.n_fft, half, self.n_fft**0.5 if self.normalized else 1.0, self.window)

        def patches(x: Tensor) -> Tensor:
            spectra = x.unflatten(1, (-1, self.bins))[:, :, :half].permute(0, 1, 3, 2, 4)  # (B, C, m, F, 2)
            return (spectra.flatten(-2) @ matrix) * centred(self.window, self.n_fft)

        return patches

    def joined(self, patches: Tensor, first: int, start: int, stop: int) -> Tensor:
        total = super().joined(patches, first, start, stop)
        return total / self._kept_envelope(patches.shape[2], start - first * self.hop, stop - start)

    def joined_in_rows(self, patches: Tensor, first: int, start: int, stop: int, ctx: KernelContext, rows: CallRows) -> Tensor:
        """As :meth:`joined`; which windows exist differs from row to row."""
        total = super().joined(patches, first, start, stop)
        index = rows.index(ctx.in_schedule)[:, :1] + (first - ctx.in_schedule.first)
        index = index + torch.arange(patches.shape[2], device=index.device)
        exists = index >= 0
        if ctx.plan.flush:
            exists = exists & (index < rows.ended(ctx.before).unsqueeze(1))
        squares = centred(self.window, self.n_fft).square()
        lying = exists.to(squares.dtype).unsqueeze(1).unsqueeze(3) * squares  # (B, 1, m, n_fft)
        weights = self.added(lying).narrow(2, start - first * self.hop, stop - start)
        return total / torch.where(weights > 0, weights, 1.0)  # where no window lies, no output exists

    def _envelope(self, patches: int, offset: int, count: int) -> Tensor:
        """The sum of squared windows at ``count`` places, from ``offset`` on, of so many patches."""
        squares = centred(self.window, self.n_fft).square().expand(1, 1, patches, -1)
        return self.added(squares).narrow(2, offset, count)

    def _kept_envelope(self, patches: int, offset: int, count: int) -> Tensor:
        window = self._buffers["window"]
        if window is None:
            return self._envelope(patches, offset, count)
        made: dict[Any, Tensor] = self._laid_out("envelopes", window, lambda _: {})
        key = patches, offset, count
        found = made.get(key)
        if found is None:
            if len(made) >= KEPT:
                made.clear()
            with torch.inference_mode(False), torch.no_grad():
                found = made[key] = self._envelope(patches, offset, count)
        return found

    def extra_repr(self) -> str:
        parts = [f"n_fft={self.n_fft}", f"hop_length={self.hop_length}"]
        parts += [f"win_length={self.win_length}"] * (self.win_length != self.n_fft) + ["center=False"] * (not self.center)
        parts += ["normalized=True"] * self.normalized + ["onesided=False"] * (not self.onesided)
        return ", ".join(parts + ["return_complex=True"] * self.return_complex)
