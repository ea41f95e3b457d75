"""Layers whose output is a function of the spectrum of a window of samples, at a hop from window to window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.naming import named
from ...core.program.context import CallRows, KernelContext, Run
from ...core.state import StateNode, StepSpec
from ...errors import ShapeMismatch
from ..local import check_home
from ..weight_cache import PackedWeight
from ..window import SlidingWindow
from ..window_program import windows_of
from .taper import centred, fill_of
from .transforms import forward_matrix

HALF = (torch.float16, torch.bfloat16)


class SpectralFrames(SlidingWindow, PackedWeight):
    """Base class of layers on the spectra of windows. A subclass defines :meth:`of_spectrum`, or :meth:`of_windows` as a whole.

    The channels ``C`` of the signal are transformed apart; ``n`` values of each frame lie side by side in the channels of the output,
    those of the signal's first channel first.
    """

    has_products = False
    window: Tensor
    normalized: bool | str = False
    _complex_out = False

    def _set_frames(
        self,
        window: Tensor,
        n_fft: int,
        hop: int,
        center: bool,
        pad_mode: str,
        scale: str | None,
        onesided: bool = True,
    ) -> None:
        """Set the geometry: windows of ``n_fft`` samples, ``hop`` apart.

        Args:
            window: the values of the window.
            n_fft: the length of a transform.
            hop: samples from window to window.
            center: whether the first window lies around the first sample.
            pad_mode: what the samples before the first and after the last one hold.
            scale: whether spectra are divided by the root of ``n_fft`` (``"frame_length"``) or by the norm of the window (``"window"``).
            onesided: whether the negative frequencies of real signals are left out.
        """
        name = type(self).__name__
        self.n_fft, self.hop_length, self.win_length = n_fft, hop, window.shape[0]
        self.center, self.pad_mode, self.onesided = bool(center), pad_mode, bool(onesided)
        self._scale = scale
        self._plain_taper = window.shape[0] == n_fft and scale != "window"
        self.register_buffer("window", window)
        half = n_fft // 2 if center else 0
        self.set_frames(half, half, fill_of(name, pad_mode) if center else "zeros")

    def set_frames(self, start: int, end: int, fill: str) -> None:
        """Set what is padded over time."""
        hop = self.hop_length
        self.set_window(self.n_fft, hop, start, end, 1, fill)
        if hop > 1:  # so that a chunk of a hop is at few places of the ring
            self._kept = -(-self._kept // hop) * hop

    @property
    def bins(self) -> int:
        """Frequencies of a spectrum."""
        return self.n_fft // 2 + 1 if self.onesided else self.n_fft

    def _taper(self) -> Tensor:
        """What the samples of a window are multiplied by, ``(n_fft,)``."""
        window = centred(self.window, self.n_fft)
        return window / self.window.square().sum().sqrt() if self._scale == "window" else window

    def _kept_taper(self) -> Tensor:
        """The same, made once."""
        window = self._buffers["window"]
        if window is None:
            return self._taper()
        if self._plain_taper:
            return window
        made: Tensor = self._laid_out("taper", window, lambda _: self._taper())
        return made

    # ---- what a layer defines ---------------------------------------------------------------------------------------

    def of_spectrum(self, spectrum: Tensor) -> Tensor:
        """What leaves, ``(…, n)`` or ``(…, n, *S)``, of spectra ``(…, bins)``."""
        return spectrum

    def of_parts(self, parts: Tensor) -> Tensor:
        """The same of real and imaginary parts, ``(…, bins, 2)``."""
        return self.of_spectrum(torch.view_as_complex(parts))

    def of_windows(self, windows: Tensor, taper: Tensor) -> Tensor:
        """The same of windows ``(…, n_fft)`` and their taper."""
        return self.of_spectrum(self.spectrum(windows, taper))

    def spectrum(self, windows: Tensor, taper: Tensor) -> Tensor:
        """The spectra of windows, ``(…, bins)``."""
        norm = "ortho" if self._scale == "frame_length" else None
        if self.onesided:
            return torch.fft.rfft(windows * taper, norm=norm)
        return torch.fft.fft(windows * taper, norm=norm)

    # ---- kernel -----------------------------------------------------------------------------------------------------

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        name = named(path, self)
        if len(frame.shape) != 2:
            raise ShapeMismatch(f"{name}: takes steps (B, C), a sample of each channel, got {tuple(frame.shape)}")
        self._check_dtype(frame, name)
        check_home(self.window, replace(frame, dtype=_real(frame.dtype)), name, mixed=frame.dtype in HALF)
        self._forget_layouts()
        with torch.no_grad():
            y = self.over_time(frame.zeros(self._window.receptive_field), 0, None)
        return StepSpec.of_chunk(y)

    def _check_dtype(self, frame: StepSpec, name: str) -> None:
        if not frame.dtype.is_floating_point and not (frame.dtype.is_complex and not self.onesided):
            raise ShapeMismatch(f"{name}: takes real samples (complex ones with onesided=False), got {frame.dtype}")
        if frame.dtype in HALF and self._complex_out:
            raise ShapeMismatch(f"{name}: gives complex numbers, whose parts are float32 or float64; got steps of {frame.dtype}")

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        return self._computed(frames, self._kept_taper(), self.of_windows)

    def _computed(self, frames: Tensor, taper: Tensor, compute: Any, apart: bool = False) -> Tensor:
        """All windows of samples ``(B, C, n)``, half types in float32; ``apart``: without the operation ``unfold``."""
        dtype = frames.dtype
        if dtype in HALF:
            frames, taper = frames.float(), taper.float()
        if frames.shape[2] == self.n_fft:  # one window
            y = compute(frames, taper)  # (B, C, n, *S)
            y = y.reshape(y.shape[0], -1, 1, *y.shape[3:])
        else:
            size, hop = self.n_fft, self.hop_length
            if apart:
                starts = range(0, frames.shape[2] - size + 1, hop)
                windows = torch.stack([frames[:, :, i : i + size] for i in starts], 2)
            else:
                windows = frames.unfold(2, size, hop)
            y = compute(windows, taper)  # (B, C, m, n, *S)
            y = y.transpose(2, 3).flatten(1, 2)
        return y.to(dtype) if dtype in HALF else y

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(p.transpose(1, 2) for p in pieces)

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        return self.over_time(torch.cat((*parts, x.unsqueeze(2)), 2), 0, None).squeeze(2)

    def program(self, ctx: KernelContext) -> Run:
        windows = windows_of(ctx, self)
        real = ctx.target.real and not self._complex_out and not ctx.node.kept_spec.dtype.is_complex
        transform = self._real_transform() if real else self.spectrum

        def run(x: Tensor, rows: CallRows) -> Tensor:
            compute = self.of_parts if real else self.of_spectrum
            frames = windows.frames(rows, x)
            return self._computed(frames, self._taper(), lambda w, taper: compute(transform(w, taper)), ctx.target.real)

        return run

    def _real_transform(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The spectra of windows as real and imaginary parts, ``(…, bins, 2)``, by a matrix product."""
        matrix = forward_matrix(self.n_fft, self.bins, self.n_fft**-0.5 if self._scale == "frame_length" else 1.0, self.window)
        return lambda windows, taper: ((windows * taper) @ matrix.to(taper.dtype)).unflatten(-1, (-1, 2))

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return 0

    def extra_repr(self) -> str:
        parts = [f"n_fft={self.n_fft}", f"hop_length={self.hop_length}"]
        parts += [f"win_length={self.win_length}"] * (self.win_length != self.n_fft)
        parts += [f"pad_mode={self.pad_mode!r}" if self.center else "center=False"]
        parts += [f"normalized={self.normalized!r}"] * bool(self.normalized) + ["onesided=False"] * (not self.onesided)
        return ", ".join(parts)


def _real(dtype: torch.dtype) -> torch.dtype:
    return {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(dtype, dtype)
