"""Layers whose weight and bias can absorb the norm behind them: `co.fuse`."""

from __future__ import annotations

from torch import Tensor, nn


class FoldsNorms(nn.Module):
    """Base class of layers with a weight, a bias and output channels that a norm may follow."""

    @property
    def norm_channels(self) -> int | None:
        """The number of channels that a norm sees; ``None`` where it sees something else."""
        return int(self.out_channels)  # type: ignore[arg-type]

    def scaled_weight(self, weight: Tensor, factor: Tensor) -> Tensor:
        """A weight ``(O, …)`` times a factor ``(O,)`` of each output channel."""
        return scaled(weight, factor)


def scaled(weight: Tensor, factor: Tensor) -> Tensor:
    """A weight ``(O, …)`` times a factor ``(O,)``."""
    return weight * factor.view(-1, *(1,) * (weight.ndim - 1))
