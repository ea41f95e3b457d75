"""The layout of a converted network: that of the module which it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ...core.inputs import check_lengths
from ...core.io_layout import IOLayout
from ...core.state import Wire
from ...core.step_spec import Inputs
from ...errors import ShapeMismatch
from .axes import BATCH, TIME, View
from .capture import entry_dims


class Input:
    """An input of the module.

    Args:
        time: the dimension of time in the clip; ``None`` for an input that is not a stream.
        batch: the dimension of the batch; ``None`` for an input without one.
        example: the example's input.
        rate: frames of it in one step. Where there are several, a step has them in the dimension of time.
        number: of the input, for errors.
    """

    def __init__(self, time: int | None, batch: int | None, example: Tensor, rate: int = 1, number: int = 0):
        self.number = number
        self.time, self.batch, self.shape, self.dtype = time, batch, tuple(example.shape), example.dtype
        self.rate, self.view = rate, None if time is None else View(entry_dims(example.shape, time, batch, rate))
        self.step_rank, self.chunk_rank = len(self.shape_of(chunk=False)), len(self.shape)

    def __str__(self) -> str:
        return self.shape_in_words(self.shape)

    def shape_in_words(self, shape: Sequence[int]) -> str:
        """The shape of a clip, such as ``(1, 3, T)``."""
        return "(" + ", ".join("T" if i == self.time else str(n) for i, n in enumerate(shape)) + ")"

    def shape_of(self, chunk: bool) -> tuple[int, ...]:
        """The example's shape, of a clip or of a step."""
        if chunk or self.time is None:
            return self.shape
        return (*self.shape[: self.time], *(() if self.rate == 1 else (self.rate,)), *self.shape[self.time + 1 :])

    def zeros(self, device: torch.device) -> Tensor:
        """A step of zeros like the example's."""
        return torch.zeros(self.shape_of(chunk=False), dtype=self.dtype, device=device)

    def first(self, x: Tensor) -> Tensor:
        """The first step of a clip; an input that is not a stream, as it is."""
        if self.time is None:
            return x
        return x.select(self.time, 0) if self.rate == 1 else x.narrow(self.time, 0, self.rate)

    def chunk(self, x: Tensor) -> Tensor:
        """A chunk of the module's layout as ``(B, C, n, *S)``."""
        if self.rate > 1:
            return self._of_several(x)
        if self.time == 2 and self.batch == 0:
            return x
        if self.time == 0:
            x = x.movedim(0, 1)  # (B, n, …)
        return x.unsqueeze(1) if x.ndim == 2 else x.movedim(self.time or 1, 2)

    def step(self, x: Tensor) -> Tensor:
        """A step of the module's layout as ``(B, C, *S)``."""
        if self.rate > 1:
            return self._of_several(x, 1).select(2, 0)
        return x.unsqueeze(1) if x.ndim == 1 else x

    def _of_several(self, x: Tensor, steps: int | None = None) -> Tensor:
        """A tensor with several frames for each step, as a chunk."""
        time = cast(int, self.time)
        frames = x.shape[time]
        if frames % self.rate or frames // self.rate != (steps or frames // self.rate):
            raise ShapeMismatch(f"input {self.number} has {self.rate} frames in each step, as in the example; got {frames}")
        steps, view = frames // self.rate, cast(View, self.view)
        return view.enter(x.unflatten(time, (steps, self.rate)), x.shape[self.batch or 0], steps)


class Output:
    """An output of the module.

    Args:
        view: between its layout and chunks.
        windows: whether it is a clip-level output: the module's layout has no time, and windows are stacked in dim 2.

    Attributes:
        time, batch: these dimensions in a chunk of the module's layout.
        batch_of_step: that of the batch in a step.
    """

    def __init__(self, view: View, windows: bool):
        self.view, self.windows, self._chunk_rank = view, windows, len(view.order) + view.lonely
        self.time = min(2, len(view.dims)) if windows else view.dims.index((TIME,))
        place = next(i for i, d in enumerate(view.dims) if BATCH in d)
        self.batch = place + (windows and self.time <= place)
        self.batch_of_step = self.batch - (self.time < self.batch)

    @property
    def rank(self) -> int:
        """The number of dimensions of a chunk for the caller."""
        return len(self.view.dims) + self.windows

    def chunk(self, y: Tensor) -> Tensor:
        """A chunk ``(B, C, n, *S)`` in the module's layout."""
        if not self.windows:
            return self.view.leave(y, y.shape[0], y.shape[2])
        if self.view.lonely:
            return y.squeeze(1)
        return y.movedim((0, 2), (self.batch, self.time)) if self.batch else y

    def step(self, y: Tensor) -> Tensor:
        """A step ``(B, C, *S)`` in the module's layout; of a module that emits bursts, a chunk."""
        if y.ndim == self._chunk_rank:
            return self.chunk(y)
        y = y.squeeze(1) if self.view.lonely else y
        return y.movedim(0, self.batch_of_step) if self.batch_of_step else y

    def first_row(self, score: Tensor) -> Tensor:
        """The first row of a score, in the module's layout."""
        return score.narrow(self.batch_of_step, 0, 1)

    def rows(self, y: Tensor, chunk: bool) -> Tensor:
        """A chunk or a step in the module's layout, but with the batch first."""
        return self.chunk(y).movedim(self.batch, 0) if chunk else self.step(y).movedim(self.batch_of_step, 0)


class ModuleLayout(IOLayout):
    """The layout of a module's inputs and outputs, in the order of its ``forward``.

    Inputs that are not streams go along with the streams inside, as frames that are always the same.

    Args:
        name: of the module, for errors.
        inputs: the inputs.
        outputs: the outputs.
        nested: whether the module gives a tuple of outputs.

    Attributes:
        nesting: how the module nests its outputs, with their numbers in place of them, where that is more than a list.
    """

    nesting: Any = None

    def __init__(self, name: str, inputs: Sequence[Input], outputs: Sequence[Output], nested: bool):
        self.name, self.inputs, self.outputs, self.nested = name, list(inputs), list(outputs), nested
        self._constant_ranks = [len(i.shape) for i in inputs if i.time is None]
        only = inputs[0] if len(inputs) == 1 else None
        self._step_rank, self._chunk_rank = (
            (only.step_rank, only.chunk_rank) if only is not None else (-1, -1)
        )  # of the only input

    def step_in(self, x: Inputs) -> Wire:
        if isinstance(x, Tensor) and x.ndim == self._step_rank:
            return self.inputs[0].step(x)
        streams, constants = self.split(x, chunk=False)
        return self._joined([*streams, *map(_with_channels, constants)])

    def chunk_in(self, x: Inputs) -> Wire:
        if isinstance(x, Tensor) and x.ndim == self._chunk_rank:
            return self.inputs[0].chunk(x)
        streams, constants = self.split(x, chunk=True)
        frames = streams[0].shape[2]
        flat = [g.unsqueeze(2) for g in map(_with_channels, constants)]
        return self._joined([*streams, *(g.expand(*g.shape[:2], frames, *g.shape[3:]) for g in flat)])

    def step_out(self, y: Wire) -> Wire:
        if isinstance(y, Tensor) and not self.nested and self.nesting is None:
            return self.outputs[0].step(y)
        return self.as_module([out.step(v) for out, v in zip(self.outputs, tensors_of(y), strict=True)])

    def chunk_out(self, y: Wire) -> Wire:
        if isinstance(y, Tensor) and not self.nested and self.nesting is None:
            return self.outputs[0].chunk(y)
        return self.as_module([out.chunk(v) for out, v in zip(self.outputs, tensors_of(y), strict=True)])

    def rows(self, y: Wire, chunk: bool) -> Any:
        return self.as_module([out.rows(v, chunk) for out, v in zip(self.outputs, tensors_of(y), strict=True)])

    def as_module(self, outputs: list[Tensor]) -> Any:
        """Outputs nested as the module gives them."""
        if self.nesting is None:
            return self.leaving(outputs)
        return tree_map(lambda number: None if number is None else outputs[number], self.nesting)

    def leaving(self, outputs: list[Tensor]) -> Wire:
        """One output, or a list where the module gives several."""
        return cast(Wire, outputs) if self.nested else outputs[0]

    def step_batch_dim(self, index: int) -> int | None:
        own = self.inputs[index]
        if own.batch is None or own.time is None:
            return own.batch
        return own.batch - (own.time < own.batch)

    def chunk_batch_dim(self, index: int) -> int | None:
        return self.inputs[index].batch

    def split(self, x: Inputs, chunk: bool) -> tuple[list[Tensor], list[Tensor]]:
        """The streams, as chunks ``(B, C, n, *S)`` or steps, and the inputs that are not streams, as they are.

        Raises:
            ShapeMismatch: not the module's inputs.
        """
        inputs = list(x) if isinstance(x, (list, tuple)) and (len(self.inputs) > 1 or len(x) > 1) else [x]
        if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) and len(self.inputs) > 1:
            inputs = list(inputs[0])
        if len(inputs) != len(self.inputs):
            raise ShapeMismatch(f"{self.name}: takes {len(self.inputs)} inputs, as the module does; got {len(inputs)}")
        streams: list[Tensor] = []  # not list[Tensor](): torch.compile can't trace that
        constants: list[Tensor] = []
        for number, (own, value) in enumerate(zip(self.inputs, inputs, strict=True)):
            if not isinstance(value, Tensor):
                raise ShapeMismatch(f"{self.name}: input {number} is a tensor, not {type(value).__name__}")
            if own.time is None:
                constants.append(value)
                continue
            if value.ndim != (own.chunk_rank if chunk else own.step_rank):
                shape = own.shape_of(chunk)
                what = f"a chunk, with time in dim {own.time}," if chunk else "a step"
                hint = ". A step goes to net.forward_step(x)" if chunk and value.ndim == own.step_rank else ""
                raise ShapeMismatch(
                    f"{self.name}: {what} has {len(shape)} dimensions here, as the example {shape} had; got {tuple(value.shape)}{hint}"
                )
            streams.append(own.chunk(value) if chunk else own.step(value))
        if chunk:
            check_lengths(self.name, streams, True)
        return streams, constants

    def constant(self, index: int, value: Tensor) -> Tensor:
        """An input that is not a stream, in its own shape again."""
        rank = self._constant_ranks[index]
        return value.reshape(value.shape[:rank]) if rank < 2 else value

    def _joined(self, tensors: list[Tensor]) -> Wire:
        return cast(Wire, tensors) if len(self.inputs) > 1 else tensors[0]


def tensors_of(x: Wire) -> list[Tensor]:
    """The tensors of a flat wire."""
    return x if isinstance(x, list) else [x]  # type: ignore[return-value]  # no cast: each step comes here


def _with_channels(x: Tensor) -> Tensor:
    """A tensor of two dimensions at least."""
    return x.reshape(*x.shape, *(1,) * (2 - x.ndim))
