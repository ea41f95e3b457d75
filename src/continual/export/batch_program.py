"""Exported files in a :class:`~continual.StreamBatch`: a server of streams without a compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.state import Wire
from ..core.step_spec import StepSpec
from ..errors import ExportError, NotStreamable
from ..programs.lanes import Lane
from ..programs.layouts import flat
from .metadata import END, Metadata, Port
from .runner_state import signature_of
from .runtime_streams import OpenStreams, RowStreams

State = dict[str, Tensor]


class FileProgram:
    """The call of an exported file as a program of rows of streams.

    Args:
        metadata: of the file.
        open_streams: opens streams in its runtime.
        batch: rows.

    Raises:
        ExportError: the states of files of this format are inside of the runtime.
        NotStreamable: an input has no dimension for the batch.
        ValueError: the file was exported for another number of rows.
    """

    out_time = 1
    holds_state = False

    def __init__(self, metadata: Metadata, open_streams: OpenStreams, batch: int):
        self.metadata, self.batch, self.name = metadata, batch, metadata.network
        if metadata.batch not in (None, batch):
            raise ValueError(
                f"StreamBatch: this file was exported for {metadata.batch} rows, and each shard has {batch}: give a capacity of "
                f"{metadata.batch} rows for each shard, or export it for any number: co.export(…, batch=None)"
            )
        if any(p.batch is None for p in metadata.inputs):
            raise NotStreamable(f"StreamBatch: an input of {self.name} has no dimension for the batch, so that streams share it")
        streams = open_streams(batch)
        if not isinstance(streams, RowStreams):
            raise ExportError(
                f"StreamBatch: files of format {metadata.format!r} keep the states to themselves. Export the network to .onnx or .pt2"
            )
        self._streams, self._open_streams = streams, open_streams
        self.schedule, self.device = metadata.schedule, torch.device("cpu")
        self.chunk, self.start, self.outputs = metadata.chunk, metadata.start, metadata.per_call
        self.lanes = [Lane(_rows(p), p.time, p.time is not None) for p in metadata.inputs]
        self.frames = [_frame(p) for p in metadata.inputs]
        self._outs = [Lane(_rows(p), p.time) for p in metadata.outputs]
        self._names = [p.name for p in metadata.states]

    def again(self) -> FileProgram:
        return FileProgram(self.metadata, self._open_streams, self.batch)

    # ---- calls ----------------------------------------------------------------------------------------------------------

    def init_state(self) -> State:
        return {END: torch.zeros(self.batch, dtype=torch.int64)} | {p.name: p.zeros(self.batch) for p in self.metadata.states}

    def buffers(self) -> list[Tensor]:
        with torch.inference_mode(False):
            return [p.zeros(self.batch) for p in self.metadata.inputs]

    def reset(self, state: State, rows: Sequence[int]) -> None:
        for t in state.values():
            t[torch.tensor(rows)] = 0

    def finish(self, state: State, row: int, steps: int) -> None:
        if not self.metadata.flush:
            raise ExportError("StreamBatch: this file was exported with flush=False: its streams have no end")
        state[END][row] = steps

    def run(self, buffers: list[Tensor], state: State, active: Tensor) -> tuple[Wire, State]:
        """As :class:`~continual.programs.served.Served`. The file advances all rows; inactive ones get their old state back."""
        states, idle = [state[n] for n in self._names], (~active).nonzero().flatten()
        kept = [t.index_select(0, idle) for t in states] if len(idle) else []
        y, states = self._streams.call_rows(buffers, state[END], states)
        for new, old in zip(states, kept, strict=False):
            new.index_copy_(0, idle, old)
        return list(y), {END: state[END]} | dict(zip(self._names, states, strict=True))

    # ---- layouts --------------------------------------------------------------------------------------------------------

    def frames_in(self, parts: list[Tensor], chunk: bool) -> list[Tensor]:
        if not chunk:
            return [x.unsqueeze(1) for x in parts]
        times = [lane.time_of_row for lane in self.lanes]
        count = next(x.shape[t + 1] for x, t in zip(parts, times, strict=True) if t is not None)
        return [_expanded(x, count) if t is None else x.movedim(t + 1, 1) for x, t in zip(parts, times, strict=True)]

    def select(self, y: Wire, rows: Tensor) -> Wire:
        return [lane.view(t).index_select(0, rows) for lane, t in zip(self._outs, flat(y), strict=True)]

    def no_outputs(self, rows: int, count: int) -> Wire:
        outputs = zip(self._outs, self.metadata.outputs, strict=True)
        return [lane.view(p.zeros(1)).new_zeros(rows, count, *lane.view(p.zeros(1)).shape[2:]) for lane, p in outputs]

    def rows_out(self, y: Wire, chunk: bool) -> Any:
        found = zip(self._outs, flat(y), strict=True)
        values = [t.movedim(1, (lane.time_of_row or 0) + 1) if chunk else t.select(1, 0) for lane, t in found]
        return nested(self.metadata.structure, values)

    @property
    def signature(self) -> str:
        return hashlib.sha256(f"rows of {signature_of(self.metadata)}".encode()).hexdigest()[:32]

    @property
    def weights(self) -> str:
        return self.metadata.weights


def nested(structure: Any, values: list[Tensor]) -> Any:
    """Outputs nested like ``structure``, lists and dictionaries of their numbers."""
    if isinstance(structure, dict):
        return {name: nested(part, values) for name, part in structure.items()}
    if isinstance(structure, list):
        return [nested(part, values) for part in structure]
    return None if structure is None else values[structure]


def _rows(port: Port) -> int:
    return port.batch or 0


def _frame(port: Port) -> StepSpec:
    """A frame of an input, without rows and time."""
    shape = tuple(n for i, n in enumerate(port.shape) if i not in (port.batch, port.time))
    return StepSpec(tuple(n or 0 for n in shape), getattr(torch, port.dtype), torch.device("cpu"))


def _expanded(x: Tensor, count: int) -> Tensor:
    return x.unsqueeze(1).expand(-1, count, *x.shape[1:])
