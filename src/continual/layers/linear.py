"""`Linear` over channels."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.registry import TorchLayer
from ..core.state import StateNode, StepSpec
from ..errors import NotStreamable, ShapeMismatch
from .folds_norms import FoldsNorms
from .local import LocalInTime, check_parameters
from .native import product


class Linear(TorchLayer, LocalInTime, FoldsNorms, nn.Linear):
    """``nn.Linear`` on one dimension of a clip.

    Args:
        in_features, out_features, bias, device, dtype: as ``torch.nn.Linear``.
        channel_dim: which dimension of the clip ``(B, C, T, *S)`` holds the features; 1 for channels. The default -1 is the
            last one, which in a clip ``(B, C, T)`` is time: this is refused.

    Example:
        >>> head = co.Linear(4, 2, channel_dim=1)
        >>> head(torch.randn(3, 4, 10)).shape, head.forward_step(torch.randn(3, 4)).shape
        (torch.Size([3, 2, 10]), torch.Size([3, 2]))
        >>> co.Linear(10, 2).forward(torch.randn(3, 4, 10))  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        continual.errors.NotStreamable: Linear(channel_dim=-1) on a clip with 3 dimensions would mix time …
    """

    channel_dim = -1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        channel_dim: int = -1,
    ):
        super().__init__(in_features, out_features, bias, device, dtype)
        self.channel_dim = channel_dim

    def _dim(self, ndim: int, name: str) -> int:
        dim = self.channel_dim % ndim if -ndim <= self.channel_dim < ndim else -1
        if dim in (-1, 0, 2) and ndim > 2:
            what = {-1: "names no dimension", 0: "is the batch", 2: "would mix time"}[dim]
            raise NotStreamable(
                f"{name}(channel_dim={self.channel_dim}) on a clip with {ndim} dimensions {what}. Use channel_dim=1 for the channels; on "
                "clips (B, T, C), co.forward_stepping(nn.Linear(…), dim=1)"
            )
        return dim

    def forward(self, input: Tensor) -> Tensor:
        """``(B, …, in, …)`` to ``(B, …, out, …)``."""
        dim = self._dim(input.ndim, type(self).__name__)
        if dim == input.ndim - 1:
            return F.linear(input, self.weight, self.bias)
        return F.linear(input.movedim(dim, -1), self.weight, self.bias).movedim(-1, dim)

    def local_step(self, x: Tensor) -> Tensor:
        if x.ndim == 2 or self.channel_dim == -1:
            return product.linear(x, self.weight, self.bias)
        return super().local_step(x)

    def check(self, frame: StepSpec, path: str) -> None:
        dim = self._dim(len(frame.shape) + 1, path)
        check_parameters(self, frame, path)
        features = frame.shape[dim - (dim > 2)]
        if features != self.in_features:
            raise ShapeMismatch(
                f"{path}: expects {self.in_features} features in dim {dim} of the clip, got steps {tuple(frame.shape)}"
            )

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return self.in_features * math.prod(frame.shape[1:])

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        return 0 if self.bias is None else math.prod(frame.shape[1:])

    @property
    def norm_channels(self) -> int | None:
        return self.out_features if self.channel_dim == 1 else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, channel_dim={self.channel_dim}"
