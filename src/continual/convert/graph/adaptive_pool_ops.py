"""Adaptive pools as one operation in an export, whose output size may depend on the clip's length.

torch takes the sizes of these pools as plain numbers (``int[]`` in their schemas; averages over images and volumes have ``SymInt[]``):
in an export ``adaptive_max_pool2d(x, (None, 2))`` behind a stride becomes a pool to the example's number of frames, which nothing
distinguishes from a pool to that number. Here they are operations of this library that take symbols. The exported graph has torch's
operations again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

_library = torch.library.Library("continual", "FRAGMENT")
Sizes = int | None | Sequence[int | None]


def _pooled(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """A tensor of the shape of the result."""
    shape = (*x.shape[: x.ndim - len(sizes)], *sizes)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=suggest_memory_format(x))


def _with_places(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    y = _pooled(x, sizes)
    return y, torch.empty_like(y, dtype=torch.int64)


def _defined(name: str, result: str, shapes: Callable[..., Any]) -> Any:
    """Define the operation that replaces one of torch's."""
    _library.define(f"sized_{name}(Tensor self, SymInt[] output_size) -> {result}")
    _library.impl(f"sized_{name}", shapes, "Meta")  # runs only in an export, for shapes
    return getattr(torch.ops.continual, f"sized_{name}").default


_MAXIMA = {n: _defined(f"adaptive_max_pool{n}d", "(Tensor, Tensor)", _with_places) for n in (1, 2, 3)}
_AVERAGE = _defined("adaptive_avg_pool1d", "Tensor", _pooled)

TORCH_OPS: dict[Any, Any] = {own: getattr(torch.ops.aten, f"adaptive_max_pool{n}d").default for n, own in _MAXIMA.items()}
TORCH_OPS[_AVERAGE] = torch.ops.aten.adaptive_avg_pool1d.default


def _sizes(x: Tensor, output_size: Sizes, n: int) -> list[int]:
    """A size for each of the last dimensions; ``None`` keeps a dimension."""
    each = list(output_size) if isinstance(output_size, Sequence) else [output_size] * n
    return [now if size is None else size for size, now in zip(each, x.shape[-n:], strict=True)]


def _maximum(n: int, input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    y, places = _MAXIMA[n](input, _sizes(input, output_size, n))
    return (y, places) if return_indices else y


def _maximum_and_places(n: int, input: Tensor, output_size: Sizes, return_indices: bool = True) -> Any:
    return _maximum(n, input, output_size, True)


def _average(input: Tensor, output_size: Sizes) -> Tensor:
    y: Tensor = _AVERAGE(input, _sizes(input, output_size, 1))
    return y


def _functions() -> dict[Any, Callable[..., Any]]:
    """The replacements of the functions that modules call."""
    found: dict[Any, Callable[..., Any]] = {torch.adaptive_avg_pool1d: _average, F.adaptive_avg_pool1d: _average}
    for n, lowest in ((1, torch), (2, torch._C._nn), (3, torch._C._nn)):
        found[getattr(F, f"adaptive_max_pool{n}d")] = partial(_maximum, n)
        for where, name in ((F, f"adaptive_max_pool{n}d_with_indices"), (lowest, f"adaptive_max_pool{n}d")):
            found[getattr(where, name)] = partial(_maximum_and_places, n)
    return found


BY_FUNCTION = _functions()
