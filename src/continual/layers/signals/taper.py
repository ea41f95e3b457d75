"""Tapers: what the samples of a frame are multiplied by, before a transform or after an inverse one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import NotStreamable

WindowFn = Callable[[int], Tensor]


def sizes_of(
    name: str, n_fft: int, hop_length: int | None, win_length: int | None, window: Tensor | None
) -> tuple[int, int, int]:
    """``n_fft``, the hop and the length of the window, checked; what is not given is as in ``torch.stft``."""
    n = int(n_fft)
    hop = n // 4 if hop_length is None else int(hop_length)
    size = win_length if win_length is not None else n if window is None else len(window)
    if n < 1 or hop < 1 or not 1 <= size <= n:
        raise ValueError(
            f"{name}: n_fft and hop_length are at least 1 and win_length is 1 … n_fft, got n_fft={n_fft}, hop_length={hop}, "
            f"win_length={size}"
        )
    if window is not None and window.shape != (size,):
        raise ValueError(f"{name}: window has the win_length of {size} values, got {tuple(window.shape)}")
    return n, hop, size


def taper_of(window: Tensor | None, size: int) -> Tensor:
    """The values of a window; ones where none is given."""
    return torch.ones(size) if window is None else window.detach().clone()


def centred(window: Tensor, n_fft: int) -> Tensor:
    """A window with zeros on both sides, as long as a transform."""
    left = (n_fft - window.shape[0]) // 2
    return window if window.shape[0] == n_fft else F.pad(window, (left, n_fft - window.shape[0] - left))


def fill_of(name: str, pad_mode: str) -> str:
    """What padded samples hold, from the ``pad_mode`` of ``torch.stft``."""
    if pad_mode == "circular":
        raise NotStreamable(
            f"{name}(pad_mode='circular') pads the start with samples from the end of the clip, which a stream has not seen. Remedies: "
            "pad_mode='reflect', 'replicate' or 'constant' (other functions); or center=False, which pads nothing"
        )
    fills = {"constant": "zeros", "zeros": "zeros", "reflect": "reflect", "replicate": "replicate"}
    if pad_mode not in fills:
        raise ValueError(f"{name}: pad_mode is 'reflect', 'replicate' or 'constant', not {pad_mode!r}")
    return fills[pad_mode]
