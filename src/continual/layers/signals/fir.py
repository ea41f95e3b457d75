"""`FIRFilter`: a filter of the last samples, `scipy.signal.lfilter` with one polynomial on streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.naming import named
from ...core.state import StateNode, StepSpec
from ...errors import ShapeMismatch
from ..local import check_home, parameter
from ..window import SlidingWindow
from .linear_filter import signal_package


class FIRFilter(SlidingWindow):
    """A filter of the last samples: ``scipy.signal.lfilter(taps, 1, x)`` along the time of ``(B, C, T, *S)``.

    ``y_t = taps[0]·x_t + taps[1]·x_{t-1} + …``, with zeros before the first sample; a sample gives its output at once. Each channel
    and place is filtered apart, all by the same taps or each channel by its own.

    Args:
        taps: ``(K,)`` or ``(C, K)``, the newest sample's first. They are a buffer, or a parameter if a ``nn.Parameter`` is given.

    Raises:
        ValueError: another shape.
        ShapeMismatch: another number of channels.

    Example:
        >>> step_up = co.FIRFilter([1.0, -1.0])
        >>> step_up(torch.tensor([[[1.0, 3.0, 2.0]]])), step_up.forward_step(torch.ones(1, 1)), step_up.delay
        (tensor([[[ 1.,  2., -1.]]]), tensor([[1.]]), 0)

    Source: Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 6.
    """

    weight: Tensor

    def __init__(self, taps: Any):
        super().__init__()
        if isinstance(taps, nn.Parameter):
            self.register_parameter("weight", taps)
        else:
            self.register_buffer("weight", torch.as_tensor(taps).detach().clone().to(torch.get_default_dtype()))
        if self.weight.ndim not in (1, 2) or not self.weight.shape[-1]:
            raise ValueError(f"FIRFilter: taps have the shape (K,) or (channels, K), got {tuple(self.weight.shape)}")
        self.set_window(self.weight.shape[-1], start=self.weight.shape[-1] - 1)

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        name, weight = named(path, self), parameter(self, "weight")
        if weight.ndim == 2 and frame.shape[1] != weight.shape[0]:
            raise ShapeMismatch(f"{name}: has taps for {weight.shape[0]} channels, got steps {tuple(frame.shape)}")
        if not frame.dtype.is_floating_point:
            raise ShapeMismatch(f"{name}: filters real numbers in floating point, got steps of {frame.dtype}")
        check_home(weight, frame, name, mixed=torch.is_autocast_enabled(frame.device.type))
        return frame

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        taps, channels = parameter(self, "weight").flip(-1), frames.shape[1]
        rows = taps.expand(channels, 1, -1) if taps.ndim == 1 else taps.unsqueeze(1)
        if frames.ndim == 3:
            return F.conv1d(frames, rows, groups=channels)
        places = frames.flatten(3).movedim(3, 1)  # (B, places, C, n)
        y = F.conv1d(places.flatten(0, 1), rows, groups=channels).unflatten(0, places.shape[:2])
        return y.movedim(1, 3).unflatten(3, frames.shape[3:])

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return math.prod(frame.shape[1:]) * self._taps

    @staticmethod
    def design(
        taps: int, frequencies: float | Sequence[float], sample_rate: float, kind: str = "lowpass", window: str = "hamming"
    ) -> FIRFilter:
        """A filter of linear phase, by ``scipy.signal.firwin``; it delays by ``(taps - 1) / 2`` samples.

        Args:
            taps: how many; odd ones where the highest frequencies pass.
            frequencies: the edge, or both, in Hz.
            sample_rate: Hz.
            kind: ``"lowpass"``, ``"highpass"``, ``"bandpass"`` or ``"bandstop"``.
            window: of scipy.

        Raises:
            ImportError: scipy is not installed.
        """
        signal = signal_package("FIRFilter.design")
        return FIRFilter(torch.as_tensor(signal.firwin(taps, frequencies, window=window, pass_zero=kind, fs=sample_rate)))

    def extra_repr(self) -> str:
        return f"{self._taps} taps" + f" for each of {len(self.weight)} channels" * (self.weight.ndim == 2)
