"""The interface of a program that serves a batch of streams, and its implementation for networks. Exported files have their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ..core.module import CoModule
from ..core.state import Wire, rewire
from ..core.step_spec import Inputs, StepSpec
from ..errors import NotStreamable
from .lanes import Lane
from .layouts import flat, input_times, internal_layout, nested
from .schedule import CallSchedule
from .snapshot import ProgramWeights, signature_of
from .step_program import ProgramState, StepProgram


class Served(Protocol):
    """A program that serves rows of streams. Its outputs are wires with rows first and time in dimension ``out_time``.

    Attributes:
        name: of the network.
        batch: the number of rows.
        schedule: of the calls of a stream.
        device: of the state.
        frames: a frame of each input, as callers give it, without the batch.
        lanes: where the buffer of each input has rows and time.
        out_time: the dimension of time in the outputs of some rows.
        holds_state: whether the compiled code has tensors for one state only, so that each state needs a program of its own.
    """

    name: str
    batch: int
    schedule: CallSchedule
    device: torch.device
    frames: list[StepSpec]
    lanes: list[Lane]
    out_time: int
    holds_state: bool

    def again(self) -> Served:
        """Another program of the same network."""

    def init_state(self) -> ProgramState:
        """The state of rows that start."""

    def buffers(self) -> list[Tensor]:
        """A chunk of zeros for each input."""

    def reset(self, state: ProgramState, rows: Sequence[int]) -> None:
        """Restart rows."""

    def finish(self, state: ProgramState, row: int, steps: int) -> None:
        """Set the end of a row's stream."""

    def run(self, buffers: list[Tensor], state: ProgramState, active: Tensor) -> tuple[Wire, ProgramState]:
        """Run one call for the active rows; the others keep their state."""

    def frames_in(self, parts: list[Tensor], chunk: bool) -> list[Tensor]:
        """Frames ``(n, …)`` or chunks of some rows, as callers give them, as ``(n, k, …)``."""

    def select(self, y: Wire, rows: Tensor) -> Wire:
        """A copy of the outputs of some rows of a call, rows first."""

    def no_outputs(self, rows: int, count: int) -> Wire:
        """Zeros in the place of outputs."""

    def rows_out(self, y: Wire, chunk: bool) -> Any:
        """Outputs of some rows for the caller, rows first; of one time, or a chunk."""

    @property
    def signature(self) -> str:
        """A digest of the program's structure: equal for equal networks, whatever their number of rows."""

    @property
    def weights(self) -> str:
        """The digest of the weights that the streams run with."""


class ServesBatches(Protocol):
    """The interface of other sources of a batch of streams than networks: opened files of :func:`continual.export`."""

    def batch_program(self, rows: int) -> Served:
        """A program with ``rows`` rows."""


class NetworkProgram:
    """The step program of a network.

    Args:
        net: the network.
        step: an example step, one tensor an input.
        batch: rows.
        chunk, backend: as of :func:`continual.compile`.

    Raises:
        NotStreamable: an input has no dimension for the batch.
    """

    out_time = 2

    def __init__(self, net: CoModule, step: tuple[Tensor, ...], batch: int, chunk: int | None, backend: str):
        self.net, self.batch, self.name = net, batch, type(net).__name__
        self._made_of = step, batch, chunk, backend
        steps = [self._of_rows(i, x) for i, x in enumerate(step)]
        self.program = StepProgram(net, steps if len(steps) > 1 else steps[0], chunk, backend)
        self.schedule, self.device = self.program.schedule, self.program.device
        self.frames = [self._frame(i, x) for i, x in enumerate(step)]
        times: list[int | None] = []
        rewire(times.append, input_times(net, self.program.frame))
        self.lanes = [Lane(stream=time is not None) for time in times]
        self.holds_state = backend == "cudagraph"
        self._weights = ProgramWeights(net, backend)

    def again(self) -> NetworkProgram:
        return NetworkProgram(self.net, *self._made_of)

    def _batch_dim(self, index: int, x: Tensor) -> int:
        """The dimension of the batch in the steps of an input."""
        dim = self.net.io_layout.step_batch_dim(index)
        if dim is None:
            raise NotStreamable(
                f"StreamBatch: input {index} of {self.name}, {tuple(x.shape)}, has no dimension for the batch, so that all "
                "streams would share one value. Remedies: give it a batch dimension in the module, so that each stream has its own; "
                "make it a buffer of the module, if it never changes; or one co.compile program for each value"
            )
        return dim

    def _of_rows(self, index: int, x: Tensor) -> Tensor:
        """A step of one input with all rows."""
        dim = self._batch_dim(index, x)
        return torch.zeros_like(x.narrow(dim, 0, 1).expand(*x.shape[:dim], self.batch, *x.shape[dim + 1 :]))

    def _frame(self, index: int, x: Tensor) -> StepSpec:
        dim = self._batch_dim(index, x)
        return StepSpec((*x.shape[:dim], *x.shape[dim + 1 :]), x.dtype, self.device)

    # ---- calls ----------------------------------------------------------------------------------------------------------

    def init_state(self) -> ProgramState:
        return self.program.init_state()

    def buffers(self) -> list[Tensor]:
        with torch.inference_mode(False):
            return flat(rewire(lambda f: f.zeros(self.program.chunk), self.program.frame))

    def reset(self, state: ProgramState, rows: Sequence[int]) -> None:
        self.program.reset(state, rows)

    def finish(self, state: ProgramState, row: int, steps: int) -> None:
        self.program.finish(state, row, steps)

    def run(self, buffers: list[Tensor], state: ProgramState, active: Tensor) -> tuple[Wire, ProgramState]:
        self._weights.called()
        y, _, state = self.program.run(nested(self.program.frame, iter(buffers)), state, active)
        return y, state

    # ---- layouts --------------------------------------------------------------------------------------------------------

    def frames_in(self, parts: list[Tensor], chunk: bool) -> list[Tensor]:
        layout = self.net.io_layout
        dim = layout.chunk_batch_dim if chunk else layout.step_batch_dim
        frames = tuple(x if not dim(i) else x.movedim(0, dim(i) or 0) for i, x in enumerate(parts))
        wire = internal_layout(self.net, frames, chunk)
        return [x.movedim(2, 1) if chunk else x.unsqueeze(1) for x in flat(wire)]

    def select(self, y: Wire, rows: Tensor) -> Wire:
        return rewire(lambda t: t.index_select(0, rows), y)

    def no_outputs(self, rows: int, count: int) -> Wire:
        out = self.program.out
        return rewire(lambda f: f.resized(rows, *f.shape[1:]).zeros(count), out)

    def rows_out(self, y: Wire, chunk: bool) -> Any:
        return self.net.io_layout.rows(y if chunk else rewire(lambda t: t.select(2, 0), y), chunk)

    @property
    def signature(self) -> str:
        return signature_of(self.net, self.program, self.program.init_state())

    @property
    def weights(self) -> str:
        return self._weights.digest


def served(net: Any, step: Inputs | None, rows: int, chunk: int | None, backend: str) -> Served:
    """The program of a network or of an exported file."""
    if not isinstance(net, CoModule):
        if step is not None or chunk is not None:
            raise TypeError("StreamBatch: an exported file knows its steps and its chunk: StreamBatch(co.load(path), capacity=…)")
        return cast(ServesBatches, net).batch_program(rows)
    if step is None:
        raise TypeError("StreamBatch: takes an example step (B, C, *S) of the network: StreamBatch(net, step, capacity)")
    return NetworkProgram(net, cast(Any, tuple(step) if isinstance(step, (list, tuple)) else (step,)), rows, chunk, backend)
