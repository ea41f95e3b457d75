"""A digest of a module's operations in chosen dtypes, without computing them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .skeleton import Name, filled, weights
from .undone import masks_not_inspected, quiet, restored


class _Recorder(TorchDispatchMode):
    """Records the operations that run, with their arguments.

    Args:
        known: the tensors that exist before.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.digest, self.numbers = hashlib.sha256(), dict[int, int]()
        self.kept: list[Tensor] = []  # kept alive, so that no other tensor gets the same id
        self.note(known)

    def note(self, values: Iterable[Any]) -> None:
        """Record values: tensors by their order of appearance."""
        shown = []
        for value in values:
            if isinstance(value, Tensor):
                if id(value) not in self.numbers:
                    self.numbers[id(value)] = len(self.kept)
                    self.kept.append(value)
                shown.append(f"{self.numbers[id(value)]} {tuple(value.shape)}")
            elif not isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
                shown.append(repr(value))
        self.digest.update("\n".join([*shown, ""]).encode())

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.note([str(func), *tree_leaves((args, kwargs))])
        found = func(*args, **kwargs)
        self.note(tree_leaves(found))
        return found


def behaviour(bones: nn.Module, inputs: Sequence[Tensor], dtype_of: Callable[[Name], torch.dtype], device: torch.device) -> str:
    """A digest of the operations that a module runs: their arguments, shapes and numbers, but not their dtypes.

    The run is on tensors without data: it takes as long as its calls to torch.

    Args:
        bones: the module without its weights.
        inputs: tensors whose shape and dtype count.
        dtype_of: the dtype of each weight.
        device: of weights and inputs.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(t: Tensor, dtype: torch.dtype) -> Tensor:
        with mode:
            return torch.empty_strided(t.shape, t.stride(), dtype=dtype, device=device)

    module = filled(bones, lambda name, t: fake(t, dtype_of(name)))
    fakes = [fake(x, x.dtype) for x in inputs]
    recorder = _Recorder([*weights(module).values(), *fakes])
    with restored(module), quiet(), masks_not_inspected(), torch.no_grad(), mode, recorder:
        found = module(*fakes)
    recorder.note(tree_leaves(found))
    return recorder.digest.hexdigest()
