"""Gathering steps into the chunks that calls take, flushing streams, and cutting out the outputs that exist.

Step programs, stream batches and exported files all stream through a :class:`Chunker`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from ..core.program.frame_schedule import OPEN
from ..core.state import rewire
from .schedule import CallSchedule

W = TypeVar("W")  # tensors, nested as a network takes and gives them
Times = int | None | Sequence[Any]  # a dimension of each tensor, nested likewise
ProgramCall = Callable[[W], W]  # from a full chunk to all outputs of the call, whether they exist or not


class Chunker(Generic[W]):
    """The buffer of one chunk, shared by all rows. It keeps no counts: its owner counts the steps of each stream.

    Args:
        schedule: when calls run, and which outputs exist.
        times: the dimension of time of each input, nested like the inputs. ``None``: the input is not a stream, and its last value fills
            the chunk.
        output_times: the dimension of time of each output.
    """

    def __init__(self, schedule: CallSchedule, times: Times, output_times: Times):
        self.schedule, self.times, self.output_times = schedule, times, output_times
        self._buffer: W | None = None
        self._memory = set[int]()  # of the buffer
        flat_times = list[int | None]()
        rewire(flat_times.append, times)
        self._constant_inputs = None in flat_times

    def open(self, make: Callable[[], W]) -> None:
        """Start with the buffer that ``make`` returns. It is an ordinary tensor also under ``torch.inference_mode``."""
        with torch.inference_mode(False):
            self._buffer = make()
        self._memory = set[int]()
        rewire(lambda t: self._memory.add(_memory(t)), self._buffer)

    def close(self) -> None:
        """Forget the buffer."""
        self._buffer = None

    @property
    def buffer(self) -> W:
        """A chunk of each input."""
        return cast(W, self._buffer)

    # ---- inputs ---------------------------------------------------------------------------------------------------------

    def put(self, x: W, slot: int, count: int) -> None:
        """Write ``count`` steps of all rows into the buffer, the first one at ``slot``."""

        def place(own: Tensor, x: Tensor, time: int | None) -> None:
            (own if time is None else own.narrow(time, slot, count)).copy_(x.detach())

        rewire(place, self.buffer, x, self.times)

    def feed(self, x: W, count: int, n_in: int, call: ProgramCall[W]) -> list[W]:
        """Take the next steps of all rows in lockstep, and make the calls that they complete.

        Args:
            x: chunks of ``count`` steps.
            n_in: steps before them.
            call: one call of the program.

        Returns:
            The outputs of each call that exist.
        """
        found: list[W] = []
        chunk, at = self.schedule.chunk, 0
        while at < count:
            slot = self.schedule.slot(n_in + at)
            n = min(count - at, chunk - slot)
            piece = (
                x
                if n == count
                else cast(W, rewire(lambda t, d, at=at, n=n: t if d is None else t.narrow(d, at, n), x, self.times))
            )
            if n < chunk or self._constant_inputs:
                self.put(piece, slot, n)
                piece = self.buffer
            at += n
            if slot + n == chunk:
                y = call(piece)
                found += self.existing(self._apart(y) if piece is self._buffer else y, self.schedule.calls(n_in + at) - 1)
        return found

    def flush(self, n_in: int, call: ProgramCall[W]) -> list[W]:
        """Make the calls after which streams of ``n_in`` steps have all their outputs. The state of ``call`` holds that end.

        The steps in the buffer come first; what follows them is masked.

        Raises:
            ShapeMismatch: branches of the network differ in length after so many steps.
        """
        done = self.schedule.calls(n_in)
        calls = range(done, done + self.schedule.calls_to_end(done, n_in))
        return [y for k in calls for y in self.existing(self._apart(call(self.buffer)), k, n_in)]

    # ---- outputs --------------------------------------------------------------------------------------------------------

    def _apart(self, y: W) -> W:
        """Outputs of a call, copied where they are views of the buffer, which is written again: some networks pass frames on."""
        return cast(W, rewire(lambda t: t.clone() if _memory(t) in self._memory else t, y))

    def existing(self, y: W, call: int, steps: int = OPEN) -> list[W]:
        """The outputs of a call that exist, in a stream of ``steps`` steps; an empty list if none does."""
        valid = self.schedule.valid_in(call, steps)
        if len(valid) == self.schedule.per_call:
            return [y]
        return [cast(W, rewire(lambda t, d: t.narrow(d, valid.start, len(valid)), y, self.output_times))] if valid else []

    def single(self, y: W) -> W:
        """Outputs as a step completes them: without time if a call has one output, as they are if it has several."""
        return y if self.schedule.per_call > 1 else cast(W, rewire(lambda t, d: t.select(d, 0), y, self.output_times))

    def joined(self, found: list[W]) -> W | None:
        """The outputs of several calls as one chunk; ``None`` if there are none."""
        if len(found) < 2:
            return found[0] if found else None
        return cast(W, rewire(lambda d, *parts: torch.cat(parts, d), self.output_times, *found))


def _memory(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()
