"""`StreamBatch`: many streams in one program, which open, pause and close independently."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor

from ..core.module import CoModule
from ..core.state import Wire, frames, rewire
from ..core.step_spec import Inputs
from ..errors import CapacityError, NotStreamable, ShapeMismatch
from .compile import Backend
from .layouts import flat, internal_layout
from .snapshot import ProgramWeights, StreamSnapshot, check_snapshot, signature_of
from .step_program import ProgramState, StepProgram

__all__ = ["Statistics", "StreamBatch", "StreamSnapshot"]

Method = TypeVar("Method", bound=Callable[..., Any])
Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True)
class Statistics:
    """What a batch has done.

    Attributes:
        streams: open streams.
        capacity: rows of the program.
        steps: steps of all streams so far.
        calls: calls of the program so far.
        milliseconds: the mean duration of a call; on a GPU, the time to launch it.
    """

    streams: int
    capacity: int
    steps: int
    calls: int
    milliseconds: float


def _locked(method: Method) -> Method:
    """A method that one thread runs at a time."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


class _Stream:
    """An open stream: its row, and its number of steps."""

    __slots__ = ("row", "steps")

    def __init__(self, row: int):
        self.row, self.steps = row, 0


class StreamBatch:
    """Many streams of one network, each exactly as if it ran alone, in one program whose calls serve all of them.

    A frame is one step of one stream: what ``forward_step`` takes, without the batch. A call of :meth:`step` takes frames of any of the
    open streams; the other streams pause. In networks whose strides need a chunk of several steps, frames wait in a buffer until the last
    one of a chunk brings the outputs.

    All methods are thread-safe.

    Args:
        net: a streaming network, in eval mode.
        step: an example step ``(B, C, *S)``; its batch size, values and strides do not matter. Several inputs as a list.
        capacity: the largest number of open streams. The cost of a call hardly depends on how many of them take part.
        chunk: steps per call of the program; ``None``: the fewest that the strides allow.
        grow: double the capacity when it is used up, instead of refusing; this compiles again.
        backend: as in :func:`continual.compile`.

    Raises:
        NotStreamable: as :func:`continual.compile`; or an input has no batch dimension.

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
        self._step = tuple(step) if isinstance(step, (list, tuple)) else (step,)
        self.net, self.grow, self.backend, self._chunk = net, grow, backend, chunk
        self._lock = threading.RLock()
        self._streams: dict[Hashable, _Stream] = {}
        self._next = 0
        self._steps = self._calls = 0
        self._seconds = 0.0
        self._set_up(capacity)

    def _set_up(self, capacity: int) -> None:
        """Make a program of ``capacity`` rows, its state and its buffer."""
        inputs = [self._of_rows(x, i, capacity) for i, x in enumerate(self._step)]
        self._program = StepProgram(self.net, inputs if len(inputs) > 1 else inputs[0], self._chunk, self.backend)
        self._state, self._chunker = self._program.init_state(), self._program.chunker()
        self._free = list(range(capacity - 1, -1, -1))
        self._active = torch.zeros(capacity, dtype=torch.bool)
        self._weights = ProgramWeights(self.net, self.backend)

    def _of_rows(self, x: Tensor, index: int, count: int) -> Tensor:
        """A step of one input with ``count`` rows."""
        dim = self._batch_dim(index, x)
        return torch.zeros_like(x.narrow(dim, 0, 1).expand(*x.shape[:dim], count, *x.shape[dim + 1 :]))

    def _batch_dim(self, index: int, x: Tensor) -> int:
        """The dimension of the batch in the steps of an input."""
        dim = self.net.io_layout.step_batch_dim(index)
        if dim is None:
            raise NotStreamable(
                f"StreamBatch: input {index} of {type(self.net).__name__}, {tuple(x.shape)}, has no dimension for the batch, so that all "
                "streams would share one value. Remedies: give it a batch dimension in the module, so that each stream has its own; "
                "make it a buffer of the module, if it never changes; or one co.compile program for each value"
            )
        return dim

    # ---- properties -----------------------------------------------------------------------------------------------------

    @property
    def program(self) -> StepProgram:
        """The program that serves the streams."""
        return self._program

    @property
    def capacity(self) -> int:
        """The largest number of open streams."""
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
        """The numbers of streams, steps and calls, and the mean duration of a call."""
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
            CapacityError: the batch is full and does not grow, or the id is in use.
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
        """Close a stream; its row is free for another one.

        Raises:
            KeyError: no such stream is open.
        """
        self._free.append(self._stream(stream).row)
        del self._streams[stream]

    @_locked
    def reset(self, stream: Hashable) -> None:
        """Restart a stream.

        Raises:
            KeyError: no such stream is open.
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
        """Double the capacity. Streams keep their rows."""
        state, buffer, capacity = self._state, self._chunker.buffer, self.capacity
        self._set_up(2 * capacity)
        for name, old in state.items():
            self._state[name][:capacity] = old
        for new, old in zip(flat(self._chunker.buffer), flat(buffer), strict=True):
            new[:capacity] = old
        self._free = list(range(2 * capacity - 1, capacity - 1, -1))

    # ---- steps ----------------------------------------------------------------------------------------------------------

    @overload
    def step(self, inputs: Mapping[Id, Tensor]) -> dict[Id, Tensor | None]: ...
    @overload
    def step(self, inputs: Mapping[Id, Sequence[Inputs]]) -> dict[Id, Wire | None]: ...
    @_locked
    @torch.no_grad()
    def step(self, inputs: Mapping[Any, Any]) -> dict[Any, Any]:
        """Take one step of some of the open streams.

        Args:
            inputs: a frame for each stream that takes part: ``(C, *S)``, or a list for several inputs.

        Returns:
            The output of each of these streams, ``(C', *S')``, or ``None`` if its step completes none. Networks that give several outputs
            per call return them stacked, ``(C', n, *S')``.

        Raises:
            KeyError: a stream is not open. All streams stay where they are.
            ShapeMismatch: a frame of another shape, dtype or device. All streams stay where they are.
        """
        own = {stream: self._stream(stream) for stream in inputs}
        wires = {stream: self._wire(stream, inputs[stream]) for stream in inputs}
        schedule, slots = self._program.schedule, dict[int, list[Any]]()
        for stream in inputs:
            slots.setdefault(schedule.slot(own[stream].steps), []).append(stream)
        for slot, streams in slots.items():
            self._chunker.put_rows([wires[s] for s in streams], slot, [own[s].row for s in streams])
        due = slots.get(schedule.chunk - 1, [])
        found: dict[Any, Any] = dict.fromkeys(inputs)
        if due:
            y = self._chunker.single(self._call([own[stream].row for stream in due]))
            found |= self._outputs(y, {stream: own[stream] for stream in due})
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
            alone.append(part.unsqueeze(min(self._batch_dim(i, part), part.ndim)))
        wire = internal_layout(self.net, tuple(alone), chunk=False)
        for got, wanted in zip(flat(wire), frames(self._program.frame), strict=True):
            if got.shape[1:] != wanted.shape[1:] or got.dtype != wanted.dtype or got.device != wanted.device:
                raise ShapeMismatch(
                    f"StreamBatch: stream {stream!r}: takes frames {wanted.resized(*wanted.shape[1:])}, got {tuple(got.shape[1:])} "
                    f"{str(got.dtype).removeprefix('torch.')} on {got.device}. No stream has moved"
                )
        return wire

    def _call(self, rows: list[int], state: ProgramState | None = None) -> Wire:
        """Run one call on the buffer for some rows; with ``state`` on this state, which it updates, and not on that of the streams."""
        self._weights.called()
        started = time.perf_counter()
        self._active.zero_()
        self._active[rows] = True
        active = self._active.to(self._program.device, copy=True)
        y, _, after = self._program.run(self._chunker.buffer, self._state if state is None else state, active)
        if state is None:
            self._state = after
        else:
            state.update(after)
        self._seconds += time.perf_counter() - started
        self._calls += 1
        return y

    def _outputs(self, y: Wire, streams: dict[Any, _Stream]) -> dict[Any, Any]:
        """The outputs of a call that exist, for each stream, without the batch. Rows are copied: no output keeps those of others alive."""
        schedule, layout, chunk = self._program.schedule, self.net.io_layout, self._program.outputs > 1
        cut, found = dict[range, list[Wire]](), dict[Any, Any]()
        for stream, own in streams.items():
            call = schedule.calls(own.steps)
            if (valid := schedule.valid_in(call)) not in cut:
                cut[valid] = self._chunker.existing(y, call)
            for part in cut[valid]:
                found[stream] = layout.alone(_row_of(part, own.row), chunk)
        return found

    @_locked
    def flush(self, stream: Hashable) -> Tensor | None:
        """The outputs that the end of a stream would bring now, stacked ``(C', n, *S')``; ``None`` if there are none.

        The stream continues as if ``flush`` had not been called.

        Raises:
            KeyError: no such stream is open.
            ShapeMismatch: branches of the network differ in length after so many steps, and ``forward`` refuses such a clip.
        """
        own = self._stream(stream)
        if own.steps == 0:
            return None
        state = {name: t.clone() for name, t in self._state.items()}
        self._program.finish(state, own.row, own.steps)
        found = self._chunker.flush(own.steps, lambda _: _row_of(self._call([own.row], state), own.row))
        return self.net.io_layout.alone(cast(Wire, self._chunker.joined(found)), chunk=True) if found else None

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
        """An independent copy of a stream's state, at any phase.

        Raises:
            KeyError: no such stream is open.
        """
        own = self._stream(stream)
        tensors = {name: t[own.row].clone() for name, t in self._state.items()}
        pending = tuple(t.clone() for t in self._chunker.waiting(own.row, own.steps))
        return StreamSnapshot(own.steps, tensors, pending, self.signature, self.weights)

    @_locked
    def restore(self, stream: Hashable, snapshot: StreamSnapshot, *, allow_other_weights: bool = False) -> None:
        """Continue an open stream from a snapshot, of this batch or of another one of the same network.

        Args:
            stream: its id.
            snapshot: from :meth:`snapshot` or :func:`~continual.load_state`.
            allow_other_weights: accept a snapshot of the same network with other weights.

        Raises:
            KeyError: no such stream is open.
            StateMismatch: the snapshot is of another network or of other weights. The stream stays as it is.
        """
        own = self._stream(stream)
        if isinstance(snapshot, StreamSnapshot):
            snapshot = replace(snapshot, pending=self._chunker.updated(snapshot.pending))
        row = {name: t[own.row] for name, t in self._state.items()}
        weights = "" if allow_other_weights else self.weights
        check_snapshot(snapshot, self.signature, weights, row, lambda steps: self._chunker.waiting(own.row, steps))
        for name, value in snapshot.tensors.items():
            row[name].copy_(value)
        self._chunker.restore(own.row, snapshot.steps, snapshot.pending)
        own.steps = snapshot.steps

    def __repr__(self) -> str:
        return f"StreamBatch({type(self.net).__name__}, {len(self)} of {self.capacity} streams, backend={self.backend!r})"


def _row_of(y: Wire, row: int) -> Wire:
    """A copy of one row, with a batch of 1: the outputs of other rows are not kept alive."""
    return rewire(lambda t: t.narrow(0, row, 1).clone(), y)
