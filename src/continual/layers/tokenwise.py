"""Modules that work on the last dimension, on streams whose second dimension is the channels."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..core.state import StepSpec
from .local import LocalInTime, check_parameters
from .wrapped import WrappedTorch, wrapped_class


class Tokenwise(WrappedTorch):
    """Base class: the channels of clips ``(B, C, T)`` are last where the wrapped class looks for them."""

    _own_forward = True

    def forward(self, input: Tensor) -> Tensor:
        """Every token on its own."""
        return self.clip(input)

    def clip(self, x: Tensor) -> Tensor:
        return self._torch_class.forward(self, x.movedim(1, -1)).movedim(-1, 1)

    def local_step(self, x: Tensor) -> Tensor:
        return self._torch_class.forward(self, x) if x.ndim == 2 else self.clip(x)

    def check(self, frame: StepSpec, path: str) -> None:
        check_parameters(self, frame.resized(*frame.shape[:1], *frame.shape[2:], frame.shape[1]), path)


def tokenwise(module: nn.Module, memo: dict[int, Any] | None = None) -> LocalInTime:
    """A copy of a module that works on the last dimension (a norm, say), to work on the channels of every step instead."""
    made: Any = copy.deepcopy(module, memo)
    made.__class__ = wrapped_class(type(module), type(module).__name__, Tokenwise)
    result: LocalInTime = made
    return result
