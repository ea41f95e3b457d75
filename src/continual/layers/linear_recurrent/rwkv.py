"""`RWKV`: time mixing by a mean over the past that decays in each channel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..recurrence import States
from .base import LinearRecurrence, Projection
from .diagonal import diagonal

LEAST = -1e38  # below all exponents


class RWKV(LinearRecurrence):
    """Time mixing of RWKV: a mean of the values up to now, each weighted by ``exp(k_s - (t - 1 - s) w)``, the newest by ``exp(k_t + u)``.

    Keys, values and receptances are maps of a mixture of the step with the one before it. Numerator and denominator are kept divided by
    the exponential of the largest exponent so far, so that no key is too large. Names and shapes of parameters are those of
    ``RwkvSelfAttention`` of transformers.

    Args:
        channels: of the steps ``(B, C)`` and clips ``(B, C, T)``, and of the outputs.
        hidden_size: channels of the mean; by default those of the steps.
        device, dtype: as in ``torch.nn``.

    Raises:
        ShapeMismatch: steps of another shape or type.

    Example:
        >>> layer, clip = co.RWKV(8), torch.randn(2, 8, 10)
        >>> steps = [layer.forward_step(clip[:, :, t]) for t in range(10)]
        >>> torch.allclose(torch.stack(steps, 2), layer(clip), atol=1e-6)
        True

    Source: Peng et al. (2023), RWKV: Reinventing RNNs for the Transformer Era, section 3 and appendix D.
    """

    diagonal_state = "sums"

    time_mix_key: Tensor
    time_mix_value: Tensor
    time_mix_receptance: Tensor

    def __init__(self, channels: int, hidden_size: int | None = None, device: Any = None, dtype: Any = None):
        super().__init__()
        home, hidden = {"device": device, "dtype": dtype}, channels if hidden_size is None else hidden_size
        self.channels, self.hidden_size = channels, hidden
        self.time_decay = nn.Parameter(torch.linspace(-5, 3, hidden, **home))
        self.time_first = nn.Parameter(torch.full((hidden,), math.log(0.3), **home))
        for name in ("key", "value", "receptance"):
            setattr(self, f"time_mix_{name}", nn.Parameter(torch.linspace(0, 1, channels, **home).view(1, 1, -1)))
        self.key, self.value, self.receptance = (Projection(channels, hidden, False, **home) for _ in range(3))
        self.output = Projection(hidden, channels, False, **home)

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.hidden_size}"

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        return {"before": (self.channels,), "sums": (2, self.hidden_size), "exponent": (1, self.hidden_size)}

    def initial_state(self, x: Tensor) -> States:
        state = super().initial_state(x)
        return {**state, "exponent": torch.full_like(state["exponent"], LEAST)}

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        if x.ndim == 2:
            y, state = self.mix(x.unsqueeze(1), state)
            return y.squeeze(1), state
        before = _before(x, state["before"].to(x.dtype).unsqueeze(1))
        key = self.key(torch.lerp(before, x, self.time_mix_key))
        value = self.value(torch.lerp(before, x, self.time_mix_value))
        receptance = torch.sigmoid(self.receptance(torch.lerp(before, x, self.time_mix_receptance)))
        y, kept = self._mean(self.wide(key), value, state)
        return self.output(receptance * y.to(x.dtype)), {"before": x[:, -1].to(state["before"].dtype), **kept}

    def _mean(self, key: Tensor, value: Tensor, state: States) -> tuple[Tensor, States]:
        """The weighted means ``(B, T, H)``, and what is kept of the steps up to now."""
        start, sums = state["exponent"], state["sums"]
        key, value, rate, first = (t.to(sums.dtype) for t in (key, value, self.time_decay, self.time_first))
        rate = rate.exp()
        exponent = _exponents(key, rate, start)
        earlier = _before(exponent, start)
        both = torch.stack((value, torch.ones_like(value)), 2)
        kept, last = diagonal((earlier - rate - exponent).exp().unsqueeze(2), (key - exponent).exp().unsqueeze(2) * both, sums)
        now = key + first
        largest = torch.maximum(earlier, now)
        past = _before(kept, sums.unsqueeze(1))
        seen = (earlier - largest).exp().unsqueeze(2) * past + (now - largest).exp().unsqueeze(2) * both
        return seen[:, :, 0] / seen[:, :, 1], {"sums": last, "exponent": exponent[:, -1:]}


def _before(x: Tensor, first: Tensor) -> Tensor:
    """What stood before each step: ``(B, T, …)`` moved by one."""
    return first if x.shape[1] == 1 else torch.cat((first, x[:, :-1]), 1)


def _exponents(key: Tensor, rate: Tensor, start: Tensor) -> Tensor:
    """The largest exponent of the terms of the sums behind each step, ``(B, T, H)``, from that before, ``(B, 1, H)``.

    By doubling: ``torch.cummax`` is in no ONNX.
    """
    found, span = torch.cat((start, key), 1), 1
    while span < found.shape[1]:
        found = torch.cat((found[:, :span], torch.maximum(found[:, span:], found[:, :-span] - span * rate)), 1)
        span *= 2
    return found[:, 1:]
