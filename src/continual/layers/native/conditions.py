"""Where a compiled kernel may stand in for operations of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.tracing_guard import in_dispatch, is_dynamo_compiling, is_tracing

_PLAIN = (Tensor, nn.Parameter)
_in_transform: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack


def usable(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nothing but the result is asked for: float32 on a CPU, without gradients, and nobody watches or transforms operations."""
    return (
        not torch.is_grad_enabled()
        and not is_dynamo_compiling()
        and not in_dispatch()
        and not is_tracing()
        and type(x) is Tensor
        and type(weight) in _PLAIN
        and x.dtype == weight.dtype == torch.float32
        and x.is_cpu
        and weight.is_cpu
        and (bias is None or (bias.dtype == torch.float32 and bias.is_contiguous()))
        and not x.is_neg()
        and not torch.is_autocast_enabled("cpu")
        and _in_transform() is None
    )
