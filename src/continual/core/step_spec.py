"""What wires carry: the shape, dtype and device of steps, and wires of one or several tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..errors import ShapeMismatch

T = TypeVar("T")
Nested: TypeAlias = "T | list[Nested[T]]"
Wire: TypeAlias = "Nested[Tensor]"  # a tensor, or a (nested) list of tensors between Broadcast and Reduce
Inputs: TypeAlias = "Tensor | Sequence[Inputs]"  # what users give: a tensor, or a (nested) list or tuple


@dataclass(frozen=True)
class StepSpec:
    """What one step ``(B, C, *S)`` looks like: shape, dtype, device."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(step: Inputs) -> Any:
        """The frame of a step, or a list of frames for a list of steps."""
        if isinstance(step, Tensor):
            return StepSpec(tuple(step.shape), step.dtype, step.device)
        if isinstance(step, (list, tuple)) and step:
            return [StepSpec.of(s) for s in step]
        raise ShapeMismatch(f"a step is a tensor (B, C, *S) or a list of them, not {type(step).__name__}")

    @staticmethod
    def of_chunk(chunk: Tensor) -> StepSpec:
        """The frame of the steps in a chunk ``(B, C, T, *S)``, which may be empty."""
        return StepSpec(tuple(chunk.shape[:2] + chunk.shape[3:]), chunk.dtype, chunk.device)

    def fits(self, x: Tensor, chunk: bool) -> bool:
        """Whether a step, or a chunk, is of such frames."""
        shape = x.shape
        if chunk:
            same_shape = len(shape) == len(self.shape) + 1 and shape[:2] + shape[3:] == self.shape
        else:
            same_shape = shape == self.shape
        return same_shape and x.dtype == self.dtype and x.device == self.device

    @property
    def nbytes(self) -> int:
        """Bytes on the CPU."""
        return math.prod(self.shape) * self.dtype.itemsize if self.device.type == "cpu" else 0

    def resized(self, *shape: int) -> StepSpec:
        """The same dtype and device with another shape."""
        return replace(self, shape=shape)

    def zeros(self, *time: int) -> Tensor:
        """A step of zeros, or with ``time`` a chunk of so many."""
        return torch.zeros(*self.shape[:2], *time, *self.shape[2:], dtype=self.dtype, device=self.device)

    def __str__(self) -> str:
        return f"{tuple(self.shape)} {str(self.dtype).removeprefix('torch.')} on {self.device}"


def frames(tree: Any) -> list[StepSpec]:
    """All frames in a nested list."""
    return [tree] if isinstance(tree, StepSpec) else [f for t in tree for f in frames(t)]


def rewire(fn: Callable[..., T], *wires: Any) -> Nested[T]:
    """Apply ``fn`` to tensors (or frames), or to the tensors in equally nested lists of them."""
    if isinstance(wires[0], (list, tuple)):
        return [rewire(fn, *w) for w in zip(*wires, strict=True)]
    return fn(*wires)


def by_frame(chunk: Wire) -> Sequence[Wire]:
    """The frames of a chunk, one after another."""
    if isinstance(chunk, (list, tuple)):
        return [list(parts) for parts in zip(*map(by_frame, chunk), strict=True)]
    return chunk.unbind(2)


def joined(steps: Sequence[Wire]) -> Wire:
    """Frames one after another, as a chunk."""
    if isinstance(steps[0], (list, tuple)):
        return [joined(parts) for parts in zip(*steps, strict=True)]
    return torch.stack(list(steps), 2)  # type: ignore[arg-type]


def length(wire: Wire | None) -> int:
    """The number of frames in a chunk (``None`` has none)."""
    while isinstance(wire, (list, tuple)):
        wire = wire[0]
    return 0 if wire is None else wire.shape[2]
