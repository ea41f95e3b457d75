"""What a module does with its weights in some dtypes, without a computation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .capture import _left_alone, _no_look_at_masks, _quiet
from .replica import Name, filled


class _Listener(TorchDispatchMode):
    """Notes the operations that run, with the shapes and numbers that they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = hashlib.sha256()

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        told = [str(func), *(_told(v) for v in tree_leaves((args, kwargs)))]
        self.digest.update("\n".join(told).encode())
        return func(*args, **kwargs)


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    return "" if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)) else repr(value)


def behaviour(bones: nn.Module, inputs: Sequence[Tensor], dtype_of: Callable[[Name], torch.dtype], device: torch.device) -> str:
    """A digest of the operations that a module runs, their shapes and numbers, but not their dtypes.

    It is run on tensors without data, which takes as long as its calls to torch.

    Args:
        bones: the module without its weights.
        inputs: of a shape and dtype.
        dtype_of: of each weight.
        device: of weights and inputs.
    """
    mode, heard = FakeTensorMode(allow_non_fake_inputs=True), _Listener()

    def fake(t: Tensor, dtype: torch.dtype) -> Tensor:
        with mode:
            return torch.empty_strided(t.shape, t.stride(), dtype=dtype, device=device)

    module = filled(bones, lambda name, t: fake(t, dtype_of(name)))
    given = [fake(x, x.dtype) for x in inputs]
    with _left_alone(module), _quiet(), _no_look_at_masks(), torch.no_grad(), mode, heard:
        module(*given)
    return heard.digest.hexdigest()
