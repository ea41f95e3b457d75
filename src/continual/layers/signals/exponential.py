"""Exponential averages of a stream: `ExponentialMean`, `ExponentialNorm`, and what `PCEN` and `AutomaticGain` are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.precision import widest
from ...errors import ShapeMismatch
from ..recurrence import Recurrence, States
from .blocks import Blocks


class Exponential:
    """Weighted means of all values so far, with weights that fall by ``1 - alpha`` from value to value.

    The state of a mean is the weighted sum ``(…)`` and the sum of the weights ``(B,)``, which is 0 before the first value.

    Args:
        alpha: the share of a new value.
        adjust: whether the mean of the first values is over those alone, as in ``pandas.ewm``; without it, the first value stands for all
            that came before.
    """

    def __init__(self, alpha: float, adjust: bool):
        self.alpha, self.keep, self.adjust = alpha, 1.0 - alpha, adjust
        one = torch.ones(1, dtype=torch.float64)
        self.blocks = Blocks.of(one.view(1, 1) * self.keep, one * self.keep, one[0])
        self.first = 1.0 if adjust else 1.0 / alpha  # the weight of the first value

    def step(self, x: Tensor, total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean after a value ``(B, …)``, and the state."""
        own = torch.where(weight == 0, torch.full_like(weight, self.first), 1.0)
        total, weight = total * self.keep + x * _rows(own, x), weight * self.keep + own
        return total / _rows(weight, x), total, weight

    def chunk(self, x: Tensor, total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The means after the values of a chunk ``(B, …, n)``, and the state."""
        own = torch.where(weight == 0, torch.full_like(weight, self.first), 1.0)
        inputs = torch.cat((x[..., :1] * _rows(own, x), x[..., 1:]), -1)
        blocks = Blocks(
            *(t.to(x.device) for t in (self.blocks.response, self.blocks.ringing, self.blocks.entering, self.blocks.powers))
        )
        totals, _ = blocks.run(inputs, (total * self.keep).unsqueeze(-1))
        faded = self.keep ** torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
        begun = (weight * self.keep + own).unsqueeze(1) * faded  # of the first value and what came before
        weights = begun + (1 - faded) / self.alpha
        rows = weights.view(weights.shape[0], *(1,) * (x.ndim - 2), -1)
        return totals / rows, totals[..., -1], weights[:, -1]


def _rows(value: Tensor, like: Tensor) -> Tensor:
    return value.view(-1, *(1,) * (like.ndim - 1))


class Averaging(Recurrence, ABC):
    """Base class of layers that carry exponential averages, in float64. A subclass defines :meth:`averaged`."""

    has_products = False
    _wide = True
    means = 1  # averages that are carried

    def _set(self, alpha: float, adjust: bool) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"{type(self).__name__}: the share of a new value is above 0 and at most 1, got {alpha}")
        self.average = Exponential(float(alpha), adjust)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of an average, for steps like ``x``."""
        return tuple(x.shape)

    def initial_state(self, x: Tensor) -> States:
        if not x.dtype.is_floating_point:
            raise ShapeMismatch(f"{type(self).__name__}: takes numbers in floating point, got steps of {x.dtype}")
        zeros = torch.zeros(self.shape(x), dtype=widest(x.device), device=x.device)
        names = [f"total{i}" for i in range(self.means)]
        return {**{name: zeros for name in names}, "weight": zeros.new_zeros(x.shape[0])}

    def recur(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        return self._averaged(x, x.to(state["weight"].dtype), state, self.average.step, range(1, x.ndim))

    def recur_chunk(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        y, new = self._averaged(x, x.to(state["weight"].dtype).movedim(2, -1), state, self.average.chunk, range(1, x.ndim - 1))
        return y.movedim(-1, 2), new

    def _averaged(self, x: Tensor, wide: Tensor, state: States, average: Any, places: range) -> tuple[Tensor, States]:
        names, new = iter(range(self.means)), dict(state)

        def mean(values: Tensor) -> Tensor:
            name = f"total{next(names)}"
            found: Tensor
            found, new[name], new["weight"] = average(values, state[name], state["weight"])
            return found

        return self.averaged(wide, mean, [*places]).to(x.dtype), new

    @abstractmethod
    def averaged(self, x: Tensor, mean: Any, places: Sequence[int]) -> Tensor:
        """What leaves, of a step or of a chunk.

        Args:
            x: ``(B, C, *S)`` or ``(B, C, *S, n)``, in float64.
            mean: gives the average of such values; to be called as often as there are ``means``.
            places: the dimensions of channels and space.
        """


class ExponentialMean(Averaging):
    """The exponentially weighted mean of all frames up to now: ``pandas.Series.ewm(alpha=…).mean()`` along time, for ever.

    Of ``(B, C, T, *S)``, each channel and place apart. The state is float64.

    Args:
        alpha: the share of a new frame, above 0 and at most 1.
        adjust: whether weights are normalised over the frames that have come; without it the first frame stands for all before it.

    Raises:
        ValueError: another ``alpha``.
        ShapeMismatch: numbers that are not floating point.

    Example:
        >>> mean = co.ExponentialMean(0.5, adjust=False)
        >>> mean(torch.tensor([[[4.0, 0.0, 0.0]]])), co.ExponentialMean(0.5)(torch.tensor([[[4.0, 1.0]]]))
        (tensor([[[4., 2., 1.]]]), tensor([[[4., 2.]]]))
    """

    def __init__(self, alpha: float, adjust: bool = True):
        super().__init__()
        self._set(alpha, adjust)

    def averaged(self, x: Tensor, mean: Any, places: Sequence[int]) -> Tensor:
        found: Tensor = mean(x)
        return found

    def extra_repr(self) -> str:
        return f"{self.average.alpha}" + ", adjust=False" * (not self.average.adjust)


class ExponentialNorm(Averaging):
    """Standardise by exponentially weighted mean and variance: braindecode's ``exponential_moving_standardize``, for ever.

    ``(x - m) / max(eps, √v)``, with ``m`` the mean of all frames up to now and ``v`` that of ``(x - m)²``; each channel and place of
    ``(B, C, T, *S)`` apart.

    Args:
        factor_new: the share of a new frame.
        eps: the least deviation.
        adjust: as in :class:`ExponentialMean`.

    Raises:
        ValueError: a share that is not above 0 and at most 1, or an ``eps`` that is not above 0.
        ShapeMismatch: numbers that are not floating point.

    Example:
        >>> norm = co.ExponentialNorm(0.1)
        >>> norm(torch.tensor([[[5.0, 5.0, 8.0]]])).round(decimals=2)
        tensor([[[0.0000, 0.0000, 1.6500]]])

    Source: Schirrmeister et al., Deep learning with convolutional neural networks for EEG decoding and visualization (2017).
    """

    means = 2

    def __init__(self, factor_new: float = 1e-3, eps: float = 1e-4, adjust: bool = True):
        super().__init__()
        self._set(factor_new, adjust)
        if not eps > 0:
            raise ValueError(f"ExponentialNorm: eps is above 0, got {eps}")
        self.eps = float(eps)

    def averaged(self, x: Tensor, mean: Any, places: Sequence[int]) -> Tensor:
        apart = x - mean(x)
        scale: Tensor = mean(apart.square()).clamp(min=self.eps**2).rsqrt()
        return apart * scale

    def extra_repr(self) -> str:
        return f"{self.average.alpha}, eps={self.eps}"
