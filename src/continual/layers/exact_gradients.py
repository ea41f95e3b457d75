"""Norms of torch whose gradients do not depend on how tensors lie in memory.

On a CPU the backward of ``torch.batch_norm`` (torch 2.13; training and eval mode; ``torch.instance_norm`` calls it) reads the incoming
gradient in the memory order of the norm's input, although the two may lie otherwise. Images of which a dimension has size 1 are the
usual case: such a tensor counts as contiguous in two memory formats at once. The gradients of input, weight and bias are then those of
other values. With both in the default format they are right; docs/training.md has a reproduction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_wanted = torch.is_grad_enabled  # asked at every call


def exact(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A norm with gradients that are right for every memory layout, and the same values.

    Inputs of less than four dimensions have one memory format, and other devices have kernels of their own.
    """

    @functools.wraps(norm)
    def run(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not _wanted() or input.ndim < 4 or not input.is_cpu or torch.compiler.is_compiling():
            return norm(input, *args, **kwargs)
        y = norm(input.contiguous(), *args, **kwargs)
        if y.requires_grad:
            y.register_hook(_contiguous)
        return y

    return run


def _contiguous(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.contiguous()


_EXACT: dict[Any, Callable[..., Tensor]] = {
    norm: exact(norm) for norm in (torch.batch_norm, F.batch_norm, torch.instance_norm, F.instance_norm)
}
batch_norm, instance_norm = _EXACT[torch.batch_norm], _EXACT[torch.instance_norm]


class _ExactNorms(TorchFunctionMode):
    """In this context every call of a norm is exact, whoever makes it."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return _EXACT.get(func, func)(*args, **(kwargs or {}))


def with_exact_norms(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose code may call norms."""

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        with _ExactNorms():
            return forward(*args, **kwargs)

    return run
