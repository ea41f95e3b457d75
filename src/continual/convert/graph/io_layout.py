"""What a converted module shows of the module it was made of: its layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.inputs import check_lengths
from ...core.state import Wire
from ...errors import ShapeMismatch
from .axes import TIME, View


class Input:
    """Where an input of the module is in the clip: its time and rows; ``None`` for what it has not."""

    def __init__(self, time: int | None, batch: int | None, example: Tensor):
        self.time, self.batch, self.shape, self.dtype = time, batch, tuple(example.shape), example.dtype

    def __str__(self) -> str:
        return "(" + ", ".join("T" if i == self.time else str(n) for i, n in enumerate(self.shape)) + ")"

    def example(self, device: Any) -> Tensor:
        """A step of zeros as the example had them."""
        shape = self.shape if self.time is None else (*self.shape[: self.time], *self.shape[self.time + 1 :])
        return torch.zeros(shape, dtype=self.dtype, device=device)

    def chunk(self, x: Tensor) -> Tensor:
        """A chunk of the module's layout as ``(B, C, n, *S)``."""
        if self.time == 2 and self.batch == 0:
            return x
        if self.time == 0:
            x = x.movedim(0, 1)  # (B, n, …)
        return x.unsqueeze(1) if x.ndim == 2 else x.movedim(self.time or 1, 2)

    def step(self, x: Tensor) -> Tensor:
        """A step of the module's layout as ``(B, C, *S)``."""
        return x.unsqueeze(1) if x.ndim == 1 else x


class IOLayout:
    """The inputs of a converted module, in the order of its ``forward``.

    Args:
        name: of the module, for errors.
        inputs: streams, and what goes along with them.
    """

    def __init__(self, name: str, inputs: Sequence[Input]):
        self.name, self.inputs = name, list(inputs)
        self._shapes = [i.shape for i in inputs if i.time is None]

    def arrive(self, inputs: Sequence[Any], chunk: bool) -> tuple[Wire, list[Tensor]]:
        """The streams as chunks ``(B, C, n, *S)`` or steps, and the inputs that are no streams."""
        if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) and len(self.inputs) > 1:
            inputs = inputs[0]
        if len(inputs) != len(self.inputs):
            raise ShapeMismatch(f"{self.name}: takes {len(self.inputs)} inputs, as the module does; got {len(inputs)}")
        streams: list[Wire] = []
        given: list[Tensor] = []
        for number, (own, x) in enumerate(zip(self.inputs, inputs, strict=True)):
            if not isinstance(x, Tensor):
                raise ShapeMismatch(f"{self.name}: input {number} is a tensor, not {type(x).__name__}")
            if own.time is None:
                given.append(x)
                continue
            shape = own.shape if chunk else (*own.shape[: own.time], *own.shape[own.time + 1 :])
            if x.ndim != len(shape):
                what = f"a chunk, with time in dim {own.time}," if chunk else "a step"
                raise ShapeMismatch(
                    f"{self.name}: {what} has {len(shape)} dimensions here, as the example {tuple(shape)} had; got {tuple(x.shape)}"
                )
            streams.append(own.chunk(x) if chunk else own.step(x))
        if chunk:
            check_lengths(self.name, streams, True)
        return (streams if len(self.inputs) > 1 else streams[0]), given

    def together(self, wire: Any, given: list[Tensor], time: int) -> Wire:
        """Inputs that are no streams go along, as frames that are always the same."""
        if not given:
            return wire
        frames = wire[0].shape[2] if time else 0
        flat = [g.reshape(*g.shape, *(1,) * (2 - g.ndim)) for g in given]
        return [*wire, *(g.unsqueeze(2).expand(*g.shape[:2], frames, *g.shape[2:]) if time else g for g in flat)]

    def unpadded(self, index: int, value: Tensor) -> Tensor:
        """An input that is no stream, in its own shape."""
        rank = len(self._shapes[index])
        return value.reshape(value.shape[:rank]) if rank < 2 else value


class Output:
    """How what leaves is laid out.

    Attributes:
        view: from the module's layout to a chunk.
        windows: whether it is a clip-level output: the module's layout has no time, and windows are stacked in dim 2.
    """

    def __init__(self, view: View, windows: bool):
        self.view, self.windows = view, windows
        self.time = min(2, len(view.dims)) if windows else view.dims.index((TIME,))

    def chunk(self, y: Tensor) -> Tensor:
        """A chunk ``(B, C, n, *S)`` in the module's layout."""
        if self.windows:
            y = y.squeeze(1) if self.view.lonely else y
            return y
        return self.view.leave(y, y.shape[0], y.shape[2])

    def step(self, y: Tensor) -> Tensor:
        """A step ``(B, C, *S)`` in the module's layout."""
        return y.squeeze(1) if self.view.lonely else y


def with_flag(inputs: Sequence[Any], flag: bool) -> tuple[Sequence[Any], bool]:
    """`forward_step(x, False)`: the flag may be given by position."""
    return (inputs[:-1], inputs[-1]) if inputs and isinstance(inputs[-1], bool) else (inputs, flag)
