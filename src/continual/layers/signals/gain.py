"""`PCEN` and `AutomaticGain`: values by their size of late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .exponential import Averaging


class PCEN(Averaging):
    """Per-channel energy normalisation of a mel spectrogram: ``(E / (eps + M)^gain + bias)^power - bias^power``, ``(B, C, T, *S)``.

    ``M`` is the exponential average of each channel, which begins with the first frame. The parameters may be one number, or one for each
    channel.

    Args:
        s: the share of a new frame in the average.
        gain, bias, power: numbers or tensors ``(C,)``; parameters where ``nn.Parameter`` are given, else buffers. Above 0 (``gain`` 0 too).
        eps: what the average is raised by.

    Raises:
        ValueError: numbers out of their range, or of another shape.
        ShapeMismatch: numbers that are not floating point.

    Example:
        >>> pcen = co.Sequential(co.MelSpectrogram(8000, 256, n_mels=20, center=False), co.PCEN())
        >>> pcen(torch.randn(2, 1, 1000)).shape
        torch.Size([2, 20, 6])

    Source: Wang et al., Trainable frontend for robust and far-field keyword spotting (2017).
    """

    gain: Tensor
    bias: Tensor
    power: Tensor

    def __init__(self, s: float = 0.025, gain: Any = 0.98, bias: Any = 2.0, power: Any = 0.5, eps: float = 1e-6):
        super().__init__()
        self._set(s, False)
        if not eps > 0:
            raise ValueError(f"PCEN: eps is above 0, got {eps}")
        self.eps = float(eps)
        for name, value, least in (("gain", gain, 0.0), ("bias", bias, 0.0), ("power", power, 1e-12)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, torch.as_tensor(value, dtype=torch.get_default_dtype()).clone())
            own = getattr(self, name)
            if own.ndim > 1 or (not own.is_meta and bool((own < least).any())):
                raise ValueError(
                    f"PCEN: {name} is one number or one for each channel, {'0 or ' if least == 0 else ''}above 0; got {value}"
                )

    def averaged(self, x: Tensor, mean: Any, places: Sequence[int]) -> Tensor:
        gain, bias, power = (self._over_channels(t, x) for t in (self.gain, self.bias, self.power))
        smooth = (mean(x) + self.eps).pow(-gain)
        return (x * smooth + bias).pow(power) - bias.pow(power)

    def _over_channels(self, value: Tensor, x: Tensor) -> Tensor:
        wide = value.to(x.dtype)
        return wide if wide.ndim == 0 else wide.view(-1, *(1,) * (x.ndim - 2))

    def extra_repr(self) -> str:
        return f"s={self.average.alpha}"


class AutomaticGain(Averaging):
    """Automatic gain control: each frame of ``(B, C, T, *S)`` times what brings its size of late to a target.

    The size is the root of an exponential average of the mean square over all channels and places of a row. It includes the frame itself,
    so that a loud start is held down at once.

    Args:
        target: the root mean square to reach.
        s: the share of a new frame in the average; about ``1 / (seconds · sample rate)``.
        most: the largest gain, that of silence.

    Raises:
        ValueError: numbers that are not above 0, or a share above 1.
        ShapeMismatch: numbers that are not floating point.

    Example:
        >>> agc = co.AutomaticGain(target=1.0, s=0.5)
        >>> agc(torch.tensor([[[4.0, -4.0, 4.0]]])), agc(torch.full((1, 1, 2), 0.001))
        (tensor([[[ 1., -1.,  1.]]]), tensor([[[0.1000, 0.1000]]]))
    """

    def __init__(self, target: float = 0.1, s: float = 1e-3, most: float = 100.0):
        super().__init__()
        self._set(s, False)
        if not target > 0 or not most > 0:
            raise ValueError(f"AutomaticGain: target and most are above 0, got {target} and {most}")
        self.target, self.most = float(target), float(most)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[0], *(1,) * (x.ndim - 1))

    def averaged(self, x: Tensor, mean: Any, places: Sequence[int]) -> Tensor:
        power: Tensor = mean(x.square().mean([*places], keepdim=True))
        return x * (self.target * power.clamp(min=(self.target / self.most) ** 2).rsqrt())

    def extra_repr(self) -> str:
        return f"target={self.target}, s={self.average.alpha}, most={self.most}"
