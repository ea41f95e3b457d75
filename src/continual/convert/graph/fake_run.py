"""What a module does with its weights in some dtypes, without a computation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .capture import _no_look_at_masks, left_alone, quiet
from .skeleton import Name, filled, weights


class _Listener(TorchDispatchMode):
    """Notes the operations that run: what they take, and the numbers that they are given.

    Args:
        known: tensors that are there before.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.digest, self.numbers = hashlib.sha256(), dict[int, int]()
        self.held: list[Tensor] = []  # so that no other tensor gets the same id
        self.note(known)

    def note(self, values: Iterable[Any]) -> None:
        """What there is: tensors by the order in which they came."""
        told = []
        for value in values:
            if isinstance(value, Tensor):
                if id(value) not in self.numbers:
                    self.numbers[id(value)] = len(self.held)
                    self.held.append(value)
                told.append(f"{self.numbers[id(value)]} {tuple(value.shape)}")
            elif not isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
                told.append(repr(value))
        self.digest.update("\n".join([*told, ""]).encode())

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.note([str(func), *tree_leaves((args, kwargs))])
        found = func(*args, **kwargs)
        self.note(tree_leaves(found))
        return found


def behaviour(bones: nn.Module, inputs: Sequence[Tensor], dtype_of: Callable[[Name], torch.dtype], device: torch.device) -> str:
    """A digest of the operations that a module runs, on what, with which shapes and numbers, but not of dtypes.

    It is run on tensors without data, which takes as long as its calls to torch.

    Args:
        bones: the module without its weights.
        inputs: of a shape and dtype.
        dtype_of: of each weight.
        device: of weights and inputs.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(t: Tensor, dtype: torch.dtype) -> Tensor:
        with mode:
            return torch.empty_strided(t.shape, t.stride(), dtype=dtype, device=device)

    module = filled(bones, lambda name, t: fake(t, dtype_of(name)))
    given = [fake(x, x.dtype) for x in inputs]
    heard = _Listener([*weights(module).values(), *given])
    with left_alone(module), quiet(), _no_look_at_masks(), torch.no_grad(), mode, heard:
        found = module(*given)
    heard.note(tree_leaves(found))
    return heard.digest.hexdigest()
