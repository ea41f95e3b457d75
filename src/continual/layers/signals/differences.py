"""`PreEmphasis` and `ComputeDeltas`: differences of frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...core.naming import named
from ...core.state import StepSpec
from ...errors import NotStreamable, ShapeMismatch
from ..window import SlidingWindow
from .fir import FIRFilter

FILLS = {"replicate": "replicate", "reflect": "reflect", "constant": "zeros", "zeros": "zeros"}


class PreEmphasis(FIRFilter):
    """Raise high frequencies: ``y_t = x_t - coefficient·x_{t-1}`` along the time of ``(B, C, T, *S)``; the first sample stays as it is.

    This is ``torchaudio.functional.preemphasis``. Its inverse is ``co.IIRFilter([1.0], [1.0, -coefficient])``.

    Args:
        coefficient: how much of the sample before is taken off.

    Example:
        >>> co.PreEmphasis(0.5)(torch.tensor([[[1.0, 1.0, 3.0]]]))
        tensor([[[1.0000, 0.5000, 2.5000]]])
    """

    def __init__(self, coefficient: float = 0.97):
        super().__init__([1.0, -float(coefficient)])
        self.coefficient = float(coefficient)

    def extra_repr(self) -> str:
        return f"{self.coefficient}"


class ComputeDeltas(SlidingWindow):
    """Slopes of each value over the frames around it, as ``torchaudio.transforms.ComputeDeltas``: ``(B, C, T, *S)``.

    ``Σ n·(x_{t+n} - x_{t-n}) / (2·Σ n²)``, ``n = 1 … (win_length - 1) // 2``, which is also the delay.

    Args:
        win_length: frames of a slope, odd and at least 3 (of an even number one is not used).
        mode: what frames beyond the ends hold: ``"replicate"``, ``"reflect"`` or ``"constant"``.

    Raises:
        ValueError: a window below 3, or another mode.
        NotStreamable: ``mode="circular"``.

    Example:
        >>> slopes = co.ComputeDeltas(3)
        >>> slopes(torch.tensor([[[0.0, 1.0, 4.0, 9.0]]])), slopes.delay
        (tensor([[[0.5000, 2.0000, 4.0000, 2.5000]]]), 1)

    Source: Furui, Speaker-independent isolated word recognition using dynamic features of speech spectrum (1986).
    """

    has_products = False

    def __init__(self, win_length: int = 5, mode: str = "replicate"):
        super().__init__()
        if win_length < 3:
            raise ValueError(f"ComputeDeltas: win_length is at least 3, got {win_length}")
        if mode == "circular":
            raise NotStreamable(
                "ComputeDeltas(mode='circular') continues the start with frames from the end of the clip, which a stream has not seen. "
                "Remedies: mode='replicate', 'reflect' or 'constant' (other functions)"
            )
        if mode not in FILLS:
            raise ValueError(f"ComputeDeltas: mode is 'replicate', 'reflect' or 'constant', not {mode!r}")
        self.win_length, self.mode, self.side = win_length, mode, (win_length - 1) // 2
        self.set_window(2 * self.side + 1, 1, self.side, self.side, 1, FILLS[mode])

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        if not frame.dtype.is_floating_point:
            raise ShapeMismatch(f"{named(path, self)}: takes numbers in floating point, got steps of {frame.dtype}")
        return frame

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        taps, n = self.taps(frames), self.side
        total: Any = 0
        for i in range(1, n + 1):
            total = total + (taps[n + i] - taps[n - i]) * i
        return total / (n * (n + 1) * (2 * n + 1) / 3)

    def extra_repr(self) -> str:
        return f"{self.win_length}, mode={self.mode!r}"
