"""`StreamBatch`: many streams in one program, that come, pause and go as they like."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from ..core.module import CoModule
from ..core.state import Wire, frames, rewire
from ..core.step_spec import Inputs, Outputs
from ..errors import CapacityError, ShapeMismatch
from .compile import Backend
from .layouts import arrived, departed, flat
from .snapshot import ProgramWeights, StreamSnapshot, check_snapshot, signature_of
from .step_program import ProgramState, StepProgram

__all__ = ["Statistics", "StreamBatch", "StreamSnapshot"]

Method = TypeVar("Method", bound=Callable[..., Any])
Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True)
class Statistics:
    """What a batch has done.

    Attributes:
        streams: open now.
        capacity: how many there may be.
        steps: taken, of all streams together.
        calls: of the program.
        milliseconds: per call, on average; with a GPU, to hand it the work.
    """

    streams: int
    capacity: int
    steps: int
    calls: int
    milliseconds: float


def _locked(method: Method) -> Method:
    """One thread at a time."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


class _Stream:
    """An open stream: its row, the steps it has seen, and how many of them wait."""

    __slots__ = ("row", "steps")

    def __init__(self, row: int):
        self.row, self.steps = row, 0


class StreamBatch:
    """Many streams of one network, each exactly as if it ran alone, in one program whose calls serve all of them.

    A frame is a step of one stream: what ``forward_step`` takes, without the batch. A call of :meth:`step` may bring frames of any of the
    open streams; the others wait. Networks whose strides need a chunk of several steps gather them: the last one brings the outputs.

    All methods may be called from any thread.

    Args:
        net: a streaming network, in eval mode.
        step: a step like those to come, ``(B, C, *S)``; its batch, values and strides do not matter. Several inputs as a list.
        capacity: how many streams there may be at once. A call costs about the same however many of them take part.
        chunk: steps per call of the program; ``None``: the fewest that the strides allow.
        grow: double the capacity when it is used up, instead of refusing; compiles anew.
        backend: as in :func:`continual.compile`.

    Raises:
        NotStreamable: as :func:`continual.compile`.

    Example:
        >>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU())).eval()
        >>> streams = co.StreamBatch(net, torch.zeros(1, 2), capacity=4, backend="eager")
        >>> a, b = streams.open(), streams.open()
        >>> out = streams.step({a: torch.randn(2), b: torch.randn(2)})
        >>> out = streams.step({a: torch.randn(2)})
        >>> out[a].shape, streams.flush(b).shape, streams.statistics.steps
        (torch.Size([4]), torch.Size([4, 1]), 3)
    """

    def __init__(
        self,
        net: CoModule,
        step: Inputs,
        capacity: int = 64,
        *,
        chunk: int | None = None,
        grow: bool = False,
        backend: Backend = "inductor",
    ):
        if capacity < 1:
            raise ValueError(f"StreamBatch: capacity is at least 1, got {capacity}")
        inputs = tuple(step) if isinstance(step, (list, tuple)) else (step,)
        self._step = inputs
        self.net, self.grow, self.backend, self._chunk = net, grow, backend, chunk
        self._lock = threading.RLock()
        self._streams: dict[Hashable, _Stream] = {}
        self._next = 0
        self._steps = self._calls = 0
        self._seconds = 0.0
        self._set_up(capacity)

    def _set_up(self, capacity: int) -> None:
        """A program of so many rows, and its state."""
        inputs = tuple(self._of_rows(x, i, capacity) for i, x in enumerate(self._step))
        program = StepProgram(self.net, list(inputs) if len(inputs) > 1 else inputs[0], self._chunk, self.backend)
        self._program, self._state = program, program.init_state()
        self._waiting: Wire = rewire(lambda f: f.zeros(program.chunk), program.frame)
        self._free = list(range(capacity - 1, -1, -1))
        self._active = torch.zeros(capacity, dtype=torch.bool)
        self._weights = ProgramWeights(self.net, self.backend)

    def _of_rows(self, x: Tensor, index: int, count: int) -> Tensor:
        """A step of one input, for so many rows."""
        dim = self.net.io_layout.step_batch_dim(index)
        return x if dim is None else torch.zeros_like(x.narrow(dim, 0, 1).expand(*x.shape[:dim], count, *x.shape[dim + 1 :]))

    # ---- what it is -----------------------------------------------------------------------------------------------------

    @property
    def program(self) -> StepProgram:
        """The program that serves the streams."""
        return self._program

    @property
    def capacity(self) -> int:
        """How many streams there may be at once."""
        return self._program.batch

    @property
    def ids(self) -> list[Hashable]:
        """The open streams."""
        return list(self._streams)

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: Hashable) -> bool:
        return stream in self._streams

    @property
    def statistics(self) -> Statistics:
        """How many streams, steps and calls there were, and what a call takes."""
        per_call = 1000 * self._seconds / self._calls if self._calls else 0.0
        return Statistics(len(self._streams), self.capacity, self._steps, self._calls, per_call)

    # ---- streams --------------------------------------------------------------------------------------------------------

    @overload
    def open(self, stream: None = None) -> int: ...
    @overload
    def open(self, stream: Id) -> Id: ...
    @_locked
    def open(self, stream: Hashable | None = None) -> Hashable:
        """Open a stream, and return its id: the given one, or a number.

        Raises:
            CapacityError: the batch is full, and does not grow; or the id is in use.
        """
        if stream is None:
            while self._next in self._streams:
                self._next += 1
            stream, self._next = self._next, self._next + 1
        if stream in self._streams:
            raise CapacityError(f"StreamBatch: stream {stream!r} is open already; close or reset it, or take another id")
        if not self._free:
            if not self.grow:
                raise CapacityError(
                    f"StreamBatch: all {self.capacity} streams are in use. Close one, or make a batch with a larger capacity or grow=True"
                )
            self._double()
        row = self._free.pop()
        self._program.reset(self._state, [row])
        self._streams[stream] = _Stream(row)
        return stream

    @_locked
    def close(self, stream: Hashable) -> None:
        """Close a stream; its place is free for another.

        Raises:
            KeyError: there is no such stream open.
        """
        self._free.append(self._stream(stream).row)
        del self._streams[stream]

    @_locked
    def reset(self, stream: Hashable) -> None:
        """Let a stream begin anew.

        Raises:
            KeyError: there is no such stream open.
        """
        own = self._stream(stream)
        self._program.reset(self._state, [own.row])
        own.steps = 0

    def _stream(self, stream: Hashable) -> _Stream:
        try:
            return self._streams[stream]
        except (KeyError, TypeError):
            raise KeyError(f"StreamBatch: no stream {stream!r} is open ({len(self._streams)} are)") from None

    def _double(self) -> None:
        """Twice the capacity; rows stay where they are."""
        state, waiting, capacity = self._state, self._waiting, self.capacity
        self._set_up(2 * capacity)
        for name, old in state.items():
            self._state[name][:capacity] = old
        for new, old in zip(flat(self._waiting), flat(waiting), strict=True):
            new[:capacity] = old
        self._free = list(range(2 * capacity - 1, capacity - 1, -1))

    # ---- steps ----------------------------------------------------------------------------------------------------------

    @overload
    def step(self, inputs: Mapping[Id, Tensor]) -> dict[Id, Tensor | None]: ...
    @overload
    def step(self, inputs: Mapping[Id, Sequence[Inputs]]) -> dict[Id, Outputs | None]: ...
    @_locked
    def step(self, inputs: Mapping[Any, Any]) -> dict[Any, Any]:
        """Steps of any of the open streams.

        Args:
            inputs: a frame for each stream that takes part: ``(C, *S)``, or a list for several inputs.

        Returns:
            For each of them its output ``(C', *S')``, or ``None`` if it completes none. Networks that give several outputs for a call have
            them stacked, ``(C', n, *S')``.

        Raises:
            KeyError: a stream that is not open. No stream has moved.
            ShapeMismatch: a frame of another shape, dtype or device. No stream has moved.
        """
        own = {stream: self._stream(stream) for stream in inputs}
        wires = {stream: self._wire(stream, inputs[stream]) for stream in inputs}
        program, due = self._program, list[Hashable]()
        for stream, wire in wires.items():
            at = self._waits(own[stream].steps)
            for waiting, frame in zip(flat(self._waiting), flat(wire), strict=True):
                waiting[own[stream].row, :, at] = frame[0]
            if at == program.chunk - 1:
                due.append(stream)
        y: Wire = None
        if due:
            y = self._call([own[stream].row for stream in due])
        found: dict[Hashable, Any] = dict.fromkeys(inputs)
        for stream in due:
            call = (own[stream].steps - program.start) // program.chunk
            found[stream] = self._output(y, own[stream].row, program.valid_in(call))
        for stream in own.values():
            stream.steps += 1
        self._steps += len(own)
        return found

    def _wire(self, stream: Hashable, frame: Any) -> Wire:
        """A frame as a step of one row, checked."""
        parts = list(frame) if isinstance(frame, (list, tuple)) else [frame]
        if len(parts) != len(self._step) or not all(isinstance(p, Tensor) for p in parts):
            raise ShapeMismatch(f"StreamBatch: stream {stream!r}: takes {len(self._step)} tensors a step, got {len(parts)}")
        alone = []
        for i, part in enumerate(parts):
            dim = self.net.io_layout.step_batch_dim(i)
            alone.append(part if dim is None else part.unsqueeze(min(dim, part.ndim)))
        wire = arrived(self.net, tuple(alone), chunk=False)
        for got, wanted in zip(flat(wire), frames(self._program.frame), strict=True):
            if got.shape[1:] != wanted.shape[1:] or got.dtype != wanted.dtype or got.device != wanted.device:
                raise ShapeMismatch(
                    f"StreamBatch: stream {stream!r}: takes frames {wanted.resized(*wanted.shape[1:])}, got {tuple(got.shape[1:])} "
                    f"{str(got.dtype).removeprefix('torch.')} on {got.device}. No stream has moved"
                )
        return wire

    def _call(self, rows: list[int], x: Wire = None, state: ProgramState | None = None) -> Wire:
        """One call of the program, for some of its rows."""
        self._weights.called()
        started = time.perf_counter()
        self._active.zero_()
        self._active[rows] = True
        active = self._active.to(self._program.device, copy=True)
        y, _, state_after = self._program.run(self._waiting if x is None else x, self._state if state is None else state, active)
        if state is None:
            self._state = state_after
        else:
            state.update(state_after)
        self._seconds += time.perf_counter() - started
        self._calls += 1
        return y

    def _output(self, y: Wire, row: int, valid: range) -> Any:
        """A row's outputs, without the batch; ``None`` if there are none."""
        if not valid:
            return None
        if self._program.outputs == 1:
            return self._departed(rewire(lambda t: t[row : row + 1, :, 0].clone(), y), chunk=False)
        return self._departed(rewire(lambda t: t[row : row + 1, :, valid.start : valid.stop].clone(), y), chunk=True)

    def _departed(self, y: Wire, chunk: bool) -> Any:
        """One row's outputs as ``forward_step(s)`` gives them, without the batch."""
        return rewire(lambda t: t.squeeze(self.net.io_layout.output_batch_dim(chunk)), departed(self.net, y, chunk))

    @_locked
    def flush(self, stream: Hashable) -> Tensor | None:
        """What the end of a stream after its steps so far would bring, stacked ``(C', n, *S')``; ``None`` if nothing.

        The stream goes on as if it had not been asked.

        Raises:
            KeyError: there is no such stream open.
            ShapeMismatch: the stream can't end after so many steps: branches of the network differ in length there, and ``forward``
                refuses such a clip.
        """
        own, program = self._stream(stream), self._program
        if own.steps == 0:
            return None
        state = {name: t.clone() for name, t in self._state.items()}
        program.finish(state, own.row, own.steps)
        calls = (own.steps - program.start) // program.chunk
        found = []
        for call in range(calls, calls + program.calls_to_end(calls, own.steps)):
            y = self._call([own.row], state=state)  # what waits, and after the end anything
            if valid := program.valid_in(call, own.steps):
                found.append(rewire(lambda t, v=valid: t[own.row : own.row + 1, :, v.start : v.stop].clone(), y))
        return self._departed(rewire(lambda *t: torch.cat(t, 2), *found), chunk=True) if found else None

    # ---- snapshots ------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def signature(self) -> str:
        """A digest of the program's structure: equal for batches of equal networks, whatever their capacity."""
        return signature_of(self.net, self._program, self._state)

    @property
    def weights(self) -> str:
        """The digest of the weights that the streams run with."""
        return self._weights.digest

    @_locked
    def snapshot(self, stream: Hashable) -> StreamSnapshot:
        """A copy of a stream's state, at any moment.

        Raises:
            KeyError: there is no such stream open.
        """
        own = self._stream(stream)
        tensors = {name: t[own.row].clone() for name, t in self._state.items()}
        pending = tuple(t[own.row, :, : self._waits(own.steps)].clone() for t in flat(self._waiting))
        return StreamSnapshot(own.steps, tensors, pending, self.signature, self.weights)

    def _waits(self, steps: int) -> int:  # for their chunk to be full
        return (steps - self._program.start) % self._program.chunk

    @_locked
    def restore(self, stream: Hashable, snapshot: StreamSnapshot, *, allow_other_weights: bool = False) -> None:
        """Let an open stream go on from a snapshot of this batch or of another one of the same network.

        Args:
            stream, snapshot: its id; from :meth:`snapshot` or :func:`~continual.load_state`.
            allow_other_weights: whether it may have been made with other weights of the same network.

        Raises:
            KeyError: there is no such stream open.
            StateMismatch: the snapshot of another network, or of other weights. The stream is as before.
        """
        own = self._stream(stream)
        waiting = flat(self._waiting)
        weights = "" if allow_other_weights else self.weights
        check_snapshot(snapshot, self.signature, weights, self._state, lambda n: [t[0, :, : self._waits(n)] for t in waiting])
        for name, value in snapshot.tensors.items():
            self._state[name][own.row] = value
        for own_steps, value in zip(waiting, snapshot.pending, strict=True):
            own_steps[own.row, :, : value.shape[1]] = value
        own.steps = snapshot.steps

    def __repr__(self) -> str:
        return f"StreamBatch({type(self.net).__name__}, {len(self)} of {self.capacity} streams, backend={self.backend!r})"
