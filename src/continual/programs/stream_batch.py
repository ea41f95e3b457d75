"""`StreamBatch`: many streams in one program, which open, pause and close independently."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, overload

import torch
from torch import Tensor

from ..core.module import CoModule
from ..core.state import Wire, rewire
from ..core.step_spec import Inputs
from ..errors import CapacityError, MissingFrames, ShapeMismatch
from .compile import Backend
from .frame_arrays import check_frame, each, stacked
from .served import ServesBatches, served
from .snapshot import StreamSnapshot, check_snapshot
from .stream_records import Ended, Statistics
from .stream_rows import StreamRows, locked

__all__ = ["Ended", "Statistics", "StreamBatch", "StreamSnapshot"]

Id = TypeVar("Id", bound=Hashable)


class StreamBatch(StreamRows):
    """Many streams of one network, each exactly as if it ran alone, in one program whose calls serve all of them.

    A frame is one step of one stream: what ``forward_step`` takes, without the batch. A call of :meth:`step` takes frames of any of the
    open streams; the other streams pause. In networks whose strides need a chunk of several steps, frames wait in a buffer until the last
    one of a chunk brings the outputs.

    Servers that have the frames of many streams in one array use :meth:`step_rows`, which costs a fraction of a microsecond a stream.

    All methods are thread-safe.

    Args:
        net: a streaming network, in eval mode; or an exported file, opened by :func:`continual.load` (``.onnx`` or ``.pt2``), which needs
            no compiler.
        step: an example step ``(B, C, *S)``; its batch size, values and strides do not matter. Several inputs as a list. Not for a file.
        capacity: the largest number of open streams.
        shards: the rows are divided among so many programs of the same code. A call costs all rows of a program, however many of them take
            part, and only programs with streams that take part are called. New streams go where most streams are.
        chunk: steps per call of the program; ``None``: the fewest that the strides allow. Not for a file.
        grow: double the number of shards when the capacity is used up, instead of refusing. This compiles nothing.
        backend: as in :func:`continual.compile`. Not for a file.

    Raises:
        NotStreamable: as :func:`continual.compile`; or an input has no batch dimension.
        ValueError: a capacity that the number of shards does not divide.

    Example:
        >>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU())).eval()
        >>> streams = co.StreamBatch(net, torch.zeros(1, 2), capacity=4, backend="eager")
        >>> a, b = streams.open(), streams.open()
        >>> out = streams.step({a: torch.randn(2), b: torch.randn(2)})
        >>> y, valid = streams.step_rows(streams.rows([a, b]), torch.randn(2, 2))
        >>> y.shape, valid.tolist()
        (torch.Size([2, 4]), [True, True])
        >>> streams.finish(a)
        >>> {stream: y.shape for stream, y in streams.step({}).items()}, streams.ids
        ({0: torch.Size([4, 1])}, [1])
    """

    def __init__(
        self,
        net: CoModule | ServesBatches,
        step: Inputs | None = None,
        capacity: int = 64,
        *,
        shards: int = 1,
        chunk: int | None = None,
        grow: bool = False,
        backend: Backend = "inductor",
    ):
        super().__init__(lambda rows: served(net, step, rows, chunk, backend), capacity, shards)
        self.net, self.grow, self.backend = net, grow, backend
        self._streams: dict[Hashable, int] = {}
        self._ending: dict[int, Hashable] = {}
        self._next = 0

    # ---- properties -----------------------------------------------------------------------------------------------------

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
        calls, seconds = sum(s.calls for s in self._shards), sum(s.seconds for s in self._shards)
        return Statistics(len(self._streams), self.capacity, self._steps, calls, 1000 * seconds / calls if calls else 0.0)

    # ---- streams --------------------------------------------------------------------------------------------------------

    @overload
    def open(self, stream: None = None) -> int: ...
    @overload
    def open(self, stream: Id) -> Id: ...
    @locked
    def open(self, stream: Hashable | None = None) -> Hashable:
        """Open a stream, and return its id: the given one, or a number.

        Raises:
            CapacityError: the batch is full and does not grow, or the id is in use.
        """
        if stream is None:
            while self._next in self._streams or self._next in self._ending.values():
                self._next += 1
            stream, self._next = self._next, self._next + 1
        if stream in self._streams or stream in self._ending.values():
            raise CapacityError(f"StreamBatch: stream {stream!r} is open already; close or reset it, or take another id")
        number = self._room()
        if number is None:
            if not self.grow:
                raise CapacityError(
                    f"StreamBatch: all {self.capacity} streams are in use. Close one, or make a batch with a larger capacity or grow=True"
                )
            number = len(self._shards)
            self._add(number)
        local = self._shards[number].free.pop()
        self._shards[number].reset(local)
        row = self._streams[stream] = number * self._rows + local
        self._open[row] = True
        return stream

    def _room(self) -> int | None:
        """The shard with the most streams that has room for another one."""
        room = [(len(s.free), i) for i, s in enumerate(self._shards) if s.free]
        return min(room)[1] if room else None

    @locked
    def close(self, stream: Hashable) -> None:
        """Close a stream; its row is free for another one. The remaining outputs of a finished stream are dropped.

        Raises:
            KeyError: no such stream is open.
        """
        row = next((r for r, s in self._ending.items() if s == stream), None)
        if row is None:
            row = self._row(stream)
            del self._streams[stream]
            self._open[row] = False
        self._release(row)

    def _release(self, row: int) -> None:
        """Make a row free."""
        shard, local = self._at(row)
        shard.endings.pop(local, None)
        self._ending.pop(row, None)
        shard.free.append(local)

    @locked
    def reset(self, stream: Hashable) -> None:
        """Restart a stream.

        Raises:
            KeyError: no such stream is open.
        """
        shard, local = self._at(self._row(stream))
        shard.reset(local)

    def _row(self, stream: Hashable) -> int:
        try:
            return self._streams[stream]
        except (KeyError, TypeError):
            ending = stream in self._ending.values()
            raise KeyError(
                f"StreamBatch: no stream {stream!r} is open ({len(self._streams)} are)"
                + ("; it was finished, and takes no more frames" if ending else "")
            ) from None

    @locked
    def rows(self, streams: Iterable[Hashable]) -> Tensor:
        """The rows of open streams ``(n,)``, for :meth:`step_rows`. A stream keeps its row until it is closed.

        Raises:
            KeyError: a stream is not open.
        """
        return torch.tensor([self._row(s) for s in streams], dtype=torch.int64)

    @locked
    def steps(self, stream: Hashable) -> int:
        """The number of steps of a stream so far.

        Raises:
            KeyError: no such stream is open.
        """
        shard, local = self._at(self._row(stream))
        return int(shard.steps[local])

    # ---- steps ----------------------------------------------------------------------------------------------------------

    @overload
    def step(self, inputs: Mapping[Id, Tensor], *, return_exceptions: Literal[False] = False) -> dict[Id, Tensor | None]: ...
    @overload
    def step(
        self, inputs: Mapping[Id, Sequence[Inputs]], *, return_exceptions: Literal[False] = False
    ) -> dict[Id, Wire | None]: ...
    @overload
    def step(self, inputs: Mapping[Id, Any], *, return_exceptions: bool) -> dict[Id, Any]: ...
    @locked
    @torch.no_grad()
    def step(self, inputs: Mapping[Any, Any], *, return_exceptions: bool = False) -> dict[Any, Any]:
        """Take one step of some of the open streams.

        Args:
            inputs: a frame for each stream that takes part: ``(C, *S)``, or a list for several inputs.
            return_exceptions: whether a frame that does not fit, or a stream that is not open, has its exception as its result, and the
                others take their steps.

        Returns:
            The output of each of these streams, ``(C', *S')``, or ``None`` if its step completes none. Networks that give several outputs
            per call return them stacked, ``(C', n, *S')``. Streams that were finished are there too, whenever the end has brought outputs,
            with these stacked as :meth:`flush` returns them, or ``None``; after its last outputs a stream is closed. Without inputs, the
            ends of streams go on alone.

        Raises:
            KeyError: a stream is not open. All streams stay where they are.
            ShapeMismatch: a frame of another shape, dtype or device. All streams stay where they are.
            MissingFrames: ``None`` for a frame: :class:`~continual.Streams` has policies for frames that are missing.
        """
        found: dict[Any, Any] = dict.fromkeys(inputs)
        rows, frames = self._accepted(inputs, found, return_exceptions)
        program, streams = self.served, list(rows)
        index = torch.tensor(list(rows.values()), dtype=torch.int64)
        parts = program.frames_in(frames, False) if streams else []
        y, valid = self._advance(index, parts, 1)
        found.update(self._outputs(streams, y, valid))
        for ended in self.ended():
            found[ended.stream] = ended.y
        return found

    def _accepted(self, inputs: Mapping[Any, Any], found: dict[Any, Any], keep: bool) -> tuple[dict[Any, int], list[Tensor]]:
        """The rows of the streams that take part, and their frames. With ``keep`` the exceptions of others are written to ``found``."""
        program = self.served
        if not keep:
            rows = {stream: self._row(stream) for stream in inputs}
            frames = stacked(program, list(inputs.values()))
            if frames is not None:
                return rows, frames
        rows, good = {}, list[Any]()
        for stream, frame in inputs.items():
            try:
                row = self._row(stream)
                check_frame(program, stream, frame)
            except (KeyError, ShapeMismatch, MissingFrames) as error:
                if not keep:
                    raise
                found[stream] = error
                continue
            rows[stream] = row
            good.append(frame)
        return rows, cast(list[Tensor], stacked(program, good))

    def _outputs(self, streams: list[Any], y: Wire, valid: Tensor) -> dict[Any, Any]:
        """The outputs of one call that exist, for each of some streams."""
        program, per_call = self.served, self.served.schedule.per_call
        counts = valid.sum(1).tolist() if valid.shape[1] else [0] * len(streams)
        if per_call == 1:
            if not any(counts):
                return {}
            rows = each(program.rows_out(y, False), len(streams))
            return {s: row for s, row, n in zip(streams, rows, counts, strict=True) if n}
        found = dict[Any, Any]()
        for count in set(counts) - {0}:  # outputs of the first calls may be missing at their start
            chosen = [i for i, n in enumerate(counts) if n == count]
            part = narrowed(program.select(y, torch.tensor(chosen, device=program.device)), program.out_time, count)
            found |= dict(zip([streams[i] for i in chosen], each(program.rows_out(part, True), len(chosen)), strict=True))
        return found

    @locked
    @torch.no_grad()
    def finish(self, stream: Hashable) -> None:
        """End a stream. Its remaining outputs come with the results of later steps, of any streams.

        :meth:`step` returns it, or :meth:`ended` after :meth:`step_rows`. The stream takes no more frames. Its row is free, and its id too,
        when its last outputs have been returned.

        Raises:
            KeyError: no such stream is open.
            ShapeMismatch: branches of the network differ in length after so many steps, and ``forward`` refuses such a clip. The stream
                stays open.
        """
        row = self._row(stream)
        shard, local = self._at(row)
        shard.finish(local)
        del self._streams[stream]
        self._open[row], self._ending[row] = False, stream

    @property
    def ending(self) -> list[Hashable]:
        """The streams that were finished, and whose last outputs have not been returned."""
        return list(self._ending.values())

    @locked
    def ended(self) -> list[Ended]:
        """The outputs of finished streams since this, or :meth:`step`, was last called."""
        if not self._ending:
            return []
        found = []
        for number, shard in enumerate(self._shards):
            for local, y, done in shard.ended():
                row = number * self._rows + local
                out = None if y is None else each(shard.program.rows_out(y, True), 1)[0]
                found.append(Ended(self._ending[row], out, done))
                if done:
                    self._release(row)
        return found

    @locked
    @torch.no_grad()
    def flush(self, stream: Hashable) -> Tensor | None:
        """The outputs that the end of a stream would bring now, stacked ``(C', n, *S')``; ``None`` if there are none.

        The stream continues as if ``flush`` had not been called. This runs up to ``delay`` steps of a whole program: servers call
        :meth:`finish`.

        Raises:
            KeyError: no such stream is open.
            ShapeMismatch: branches of the network differ in length after so many steps, and ``forward`` refuses such a clip.
        """
        shard, local = self._at(self._row(stream))
        y = shard.flush(local)
        return None if y is None else cast(Tensor, each(shard.program.rows_out(y, True), 1)[0])

    # ---- snapshots ------------------------------------------------------------------------------------------------------

    @locked
    def snapshot(self, stream: Hashable) -> StreamSnapshot:
        """An independent copy of a stream's state, at any phase.

        Raises:
            KeyError: no such stream is open.
        """
        shard, local = self._at(self._row(stream))
        tensors = {name: t.clone() for name, t in shard.row(local).items()}
        pending = tuple(t.clone() for t in shard.waiting(local))
        return StreamSnapshot(int(shard.steps[local]), tensors, pending, self.signature, self.weights)

    @locked
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
        shard, local = self._at(self._row(stream))
        if isinstance(snapshot, StreamSnapshot):
            snapshot = replace(snapshot, pending=shard.lanes.updated(snapshot.pending))
        weights = "" if allow_other_weights else self.weights
        check_snapshot(snapshot, self.signature, weights, shard.row(local), lambda steps: shard.waiting(local, steps))
        shard.restore(local, snapshot.steps, snapshot.tensors, snapshot.pending)

    def __repr__(self) -> str:
        shards = f", {len(self._shards)} shards" if len(self._shards) > 1 else ""
        backend = f", backend={self.backend!r}" if isinstance(self.net, CoModule) else ""
        return f"StreamBatch({self.served.name}, {len(self)} of {self.capacity} streams{shards}{backend})"


def narrowed(y: Wire, dim: int, count: int) -> Wire:
    """The last outputs of some rows."""
    return rewire(lambda t: t.narrow(dim, t.shape[dim] - count, count), y)
