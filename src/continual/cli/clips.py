"""The example clips of the command line: random, of the given shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .target import BadInput

_MOST = 1 << 31  # values


def clips_of(net: nn.Module, shapes: Sequence[str], dtypes: Sequence[str], high: int | None, seed: int) -> list[Tensor]:
    """Random clips, one for each shape. The network is converted to the requested floating-point type.

    Args:
        net: the network; without a type, floating-point clips have its type.
        shapes: such as ``"2,3,16,112,112"``.
        dtypes: none, one for all, or one for each, such as ``"float64"``, ``"int64"``.
        high: integers are drawn from 0 to below this; by default the smallest embedding's size, or 2.
        seed: of the numbers.

    Raises:
        BadInput: a shape or a type that there is none of.
    """
    if len(dtypes) not in (0, 1, len(shapes)):
        raise BadInput(f"--dtype is given once for all clips, or for each of the {len(shapes)}, not {len(dtypes)} times")
    if high is not None and high < 1:
        raise BadInput(f"--high {high}: integers are drawn from 0 to below it, so it is at least 1")
    generator = torch.Generator().manual_seed(seed)
    own = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    wanted = [_dtype(name) for name in dtypes] or [own.dtype]
    wanted = wanted * len(shapes) if len(wanted) == 1 else wanted
    floats = [d for d in wanted if d.is_floating_point]
    if floats and floats[0] != own.dtype:
        net.to(floats[0])
    below = high or highest(net)
    return [random(_shape(text), dtype, below, generator).to(own.device) for text, dtype in zip(shapes, wanted, strict=True)]


def highest(net: nn.Module) -> int:
    """The default bound of integers: the size of the smallest embedding, or 2."""
    return min((m.num_embeddings for m in net.modules() if isinstance(m, nn.Embedding)), default=2)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in text.replace("x", ",").strip("() ,").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise BadInput(f"--clip {text}: give the sizes of an example, such as 1,3,16,112,112 (batch, channels, time, space)")
    if torch.Size(shape).numel() > _MOST:
        raise BadInput(f"--clip {text}: {torch.Size(shape).numel():,} values are too many for an example")
    return shape


def _dtype(name: str) -> torch.dtype:
    dtype: Any = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or dtype.is_complex:
        raise BadInput(f"--dtype {name}: give float32, float64, float16, bfloat16, int64, int32 or bool")
    return dtype


def random(shape: Sequence[int], dtype: torch.dtype, high: int, generator: torch.Generator) -> Tensor:
    """Normal random numbers; integers from 0 to below ``high``."""
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, high if dtype != torch.bool else 2, shape, generator=generator).to(dtype)
