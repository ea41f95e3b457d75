"""Streams of a batch by the numbers of their rows: frames, outputs and snapshots of many of them in one array."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..core.state import Wire, rewire
from .frame_arrays import array_of, checked_frames, is_array, listed, tensor_of, written
from .served import Served
from .shard import Shard
from .snapshot import RowsSnapshot, check_rows_snapshot
from .step_program import StepProgram

Method = TypeVar("Method", bound=Callable[..., Any])


def locked(method: Method) -> Method:
    """A method that one thread runs at a time."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


class StreamRows:
    """Rows of streams, divided among shards.

    Args:
        make: makes a program with a number of rows.
        capacity: rows of all shards.
        shards: their number.

    Raises:
        ValueError: the shards do not divide the capacity.
    """

    def __init__(self, make: Callable[[int], Served], capacity: int, shards: int):
        if capacity < 1:
            raise ValueError(f"StreamBatch: capacity is at least 1, got {capacity}")
        if shards < 1 or capacity % shards:
            raise ValueError(f"StreamBatch: a capacity of {capacity} is not divided by shards={shards}")
        self._lock = threading.RLock()
        self._rows, self._steps = capacity // shards, 0
        self._shards = [Shard(make(self._rows))]
        self._open = self._marked = torch.zeros(0, dtype=torch.bool)
        self._add(shards - 1)

    def _add(self, count: int) -> None:
        """Add shards. They share the program, unless its code holds the state."""
        program = self.served
        self._shards += [Shard(program.again() if program.holds_state else program) for _ in range(count)]
        self._open = torch.cat([self._open, torch.zeros(self.capacity - len(self._open), dtype=torch.bool)])
        self._marked = torch.zeros_like(self._open)

    @property
    def served(self) -> Served:
        return self._shards[0].program

    def _at(self, row: int) -> tuple[Shard, int]:
        """The shard of a row, and its number there."""
        return self._shards[row // self._rows], row % self._rows

    @property
    def program(self) -> StepProgram:
        """The program that serves the streams; of an exported file, what runs it."""
        return cast(StepProgram, getattr(self.served, "program", self.served))

    @property
    def capacity(self) -> int:
        """The largest number of open streams."""
        return self._rows * len(self._shards)

    @functools.cached_property
    def signature(self) -> str:
        """A digest of the program's structure: equal for batches of equal networks, whatever their capacity."""
        return self.served.signature

    @property
    def weights(self) -> str:
        """The digest of the weights that the streams run with."""
        return self.served.weights

    @locked
    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile now, and not with the first frame. No stream moves."""
        for program in {id(s.program): s.program for s in self._shards}.values():
            active = torch.ones(program.batch, dtype=torch.bool, device=program.device)
            program.run(program.buffers(), program.init_state(), active)

    # ---- steps ----------------------------------------------------------------------------------------------------------

    @overload
    def step_rows(self, rows: Any, frames: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]: ...
    @overload
    def step_rows(self, rows: Any, frames: Sequence[Tensor], out: Wire | None = None) -> tuple[Wire, Tensor]: ...
    @overload
    def step_rows(self, rows: Any, frames: Any, out: Any = None) -> tuple[Any, Any]: ...
    @locked
    @torch.no_grad()
    def step_rows(self, rows: Any, frames: Any, out: Any = None) -> tuple[Any, Any]:
        """Take one step, or a chunk of steps, of some of the open streams, by their rows.

        Args:
            rows: numbers of rows, different ones, as :meth:`rows` gives them: an array, a tensor or a list.
            frames: ``(n, C, *S)``, or chunks ``(n, C, T, *S)`` (laid out as the network's steps or clips without the batch, ``n`` first);
                several inputs as a list. Tensors, or arrays of numpy.
            out: arrays or tensors for the outputs, nested like these; ``None``: fresh ones.

        Returns:
            The outputs ``(n, C', *S')``, and which of them exist ``(n,)``. Of chunks, and of networks that give several outputs per call,
            ``(n, C', m, *S')`` and ``(n, m)``, with the outputs of all calls; outputs that do not exist have no meaning. Numpy for
            numpy. Outputs of finished streams are in :meth:`ended`.

        Raises:
            KeyError: a row is that of no open stream, or occurs twice. No stream has moved.
            ShapeMismatch: frames of another shape or dtype. No stream has moved.
        """
        index, numpy = self._checked(rows), is_array(listed(frames)[0])
        parts, count, chunk = checked_frames(self.served, frames, len(index))
        found, valid = self._found(*self._advance(index, parts, count), chunk)
        if out is not None:
            return written(found, out), array_of(valid) if numpy else valid
        return (tree_map(array_of, found), array_of(valid)) if numpy else (found, valid)

    @locked
    @torch.no_grad()
    def step_known(self, rows: Any, frames: Sequence[Any]) -> tuple[list[Tensor], Tensor]:
        """As :meth:`step_rows` with a frame of each row, which the caller has checked, and whose outputs it takes as a flat list.

        Args:
            rows: an array or a tensor of different rows of open streams.
            frames: ``(n, C, *S)`` of each input, of the network's dtypes.
        """
        index, program = tensor_of(rows), self.served
        parts = program.frames_in([tensor_of(x).to(program.device) for x in frames], False)
        found, valid = self._found(*self._advance(index, parts, 1), False)
        return [found] if isinstance(found, Tensor) else tree_leaves(found), valid

    def _found(self, y: Wire, valid: Tensor, chunk: bool) -> tuple[Any, Tensor]:
        """Outputs of some rows, and which exist, for the caller."""
        program, rows = self.served, len(valid)
        several = chunk or program.schedule.per_call > 1
        if not valid.shape[1] and not several:  # no call: as many outputs as one has, of which none exists
            y, valid = program.no_outputs(rows, 1), valid.new_zeros(rows, 1)
        return program.rows_out(y, several), valid if several else valid[:, 0]

    def _checked(self, rows: Any) -> Tensor:
        """Numbers of rows of open streams, which are all different."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        self._marked.zero_()
        try:
            self._marked.scatter_(0, index, True)  # unlike others it takes no negative numbers
        except RuntimeError:
            last = self.capacity - 1
            raise KeyError(f"StreamBatch: rows are numbers from 0 to {last} in one dimension, got {index.tolist()}") from None
        if int((self._marked & self._open).sum()) == len(index):
            return index
        if closed := index[~self._open[index]].tolist():
            raise KeyError(f"StreamBatch: rows {closed} are of no open stream. No stream has moved")
        raise KeyError(
            "StreamBatch: a row occurs twice. No stream has moved: give a stream its steps one after another, or a chunk"
        )

    def _advance(self, rows: Tensor, parts: list[Tensor], count: int) -> tuple[Wire, Tensor]:
        """Take ``count`` frames ``(n, count, …)`` of some rows. Returns outputs and which of them exist."""
        self._steps += len(rows) * count
        if len(self._shards) == 1:
            return self._shards[0].advance(rows, parts, count)
        numbers = rows // self._rows
        found = []
        for number, shard in enumerate(self._shards):
            index = (numbers == number).nonzero().flatten()
            if len(index) or shard.endings:
                on_device = index.to(self.served.device)
                own = [x.index_select(0, on_device) for x in parts]
                found.append((index, *shard.advance(rows[index] % self._rows, own, count)))
        return self._gathered(found, len(rows))

    def _gathered(self, found: list[tuple[Tensor, Wire, Tensor]], rows: int) -> tuple[Wire, Tensor]:
        """The outputs of several shards, in the order of the rows that were asked for."""
        program, calls = self.served, max((valid.shape[1] for _, _, valid in found), default=0)
        y, valid = program.no_outputs(rows, calls), torch.zeros(rows, calls, dtype=torch.bool)
        for index, part, own in found:
            valid[index, : own.shape[1]] = own
            on_device = index.to(program.device)
            rewire(lambda t, x: _place(t, x, on_device, program.out_time), y, part)  # noqa: B023 (called here)
        return y, valid

    # ---- snapshots ------------------------------------------------------------------------------------------------------

    @locked
    def snapshot_rows(self, rows: Any) -> RowsSnapshot:
        """A copy of the states of some streams, by their rows: one copy for each tensor of the state.

        Raises:
            KeyError: a row is that of no open stream, or occurs twice.
        """
        return self._snapshot(self._checked(rows))

    def _snapshot(self, index: Tensor) -> RowsSnapshot:
        places, parts = [], []
        for number, shard in enumerate(self._shards):
            own = (index // self._rows == number).nonzero().flatten()
            if len(own) or not number:
                places.append(own)
                parts.append(shard.copies(index[own] % self._rows))
        steps, states, chunks = zip(*parts, strict=True)
        if len(parts) == 1:
            return RowsSnapshot(steps[0], states[0], tuple(chunks[0]), self.signature, self.weights)
        order = torch.cat(places).argsort()
        at = order.to(self.served.device)
        state = {name: torch.cat([s[name] for s in states])[at] for name in states[0]}
        joined = tuple(torch.cat(c)[at] for c in zip(*chunks, strict=True))
        return RowsSnapshot(torch.cat(steps)[order], state, joined, self.signature, self.weights)

    @locked
    def restore_rows(self, rows: Any, snapshot: RowsSnapshot, *, allow_other_weights: bool = False) -> None:
        """Continue open streams from a snapshot of as many rows, of this batch or of another one of the same network.

        Args:
            rows: numbers of rows.
            snapshot: from :meth:`snapshot_rows`.
            allow_other_weights: accept a snapshot of the same network with other weights.

        Raises:
            KeyError: a row is that of no open stream, or occurs twice.
            StateMismatch: the snapshot is of another network, of other weights, or of another number of rows. No stream has changed.
        """
        index = self._checked(rows)
        check_rows_snapshot(snapshot, len(index), self._snapshot(torch.zeros(1, dtype=torch.int64)), allow_other_weights)
        for number, shard in enumerate(self._shards):
            own = (index // self._rows == number).nonzero().flatten()
            if len(own):
                part = snapshot.take(own)
                shard.write(index[own] % self._rows, part.steps, part.tensors, part.chunks)


def _place(own: Tensor, x: Tensor, index: Tensor, time: int) -> None:
    """Write the outputs of some rows into those of all."""
    own.narrow(time, 0, x.shape[time]).index_copy_(0, index, x)


__all__ = ["StreamRows"]
