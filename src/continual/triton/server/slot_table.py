"""A table of streams in numpy: a row of each state of an exported network for each stream. The network runs in onnxruntime.

The module needs numpy and onnxruntime, and neither torch nor continual. It runs on Python 3.9 and later.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime


class SlotError(Exception):
    """A request that can't be served. Its stream has not advanced, but it has ended if the request was its last one."""


class NoSlot(SlotError):
    """All slots are in use."""


@dataclass
class Chunk:
    """The next steps of a stream.

    Attributes:
        stream: its number.
        inputs: a chunk for each input of the network, with a batch of 1.
        start: whether the stream starts with this chunk.
        end: whether the stream ends with this chunk.
    """

    stream: int
    inputs: list[np.ndarray]
    start: bool = False
    end: bool = False


class SlotTable:
    """Streams of one exported network, each exactly as if it ran alone. The cost of a call depends on the streams that take part.

    Args:
        path: an ONNX file that ``continual.export`` wrote, with ``flush=True``.
        slots: the largest number of streams.
        idle: seconds without requests after which a stream may lose its slot to another one; ``None``: never.
        threads: threads of onnxruntime; ``None``: its default.
        clock: returns the time in seconds.

    Attributes:
        calls: calls of the network so far.
    """

    def __init__(self, path: str, slots: int, idle: float | None = None, threads: int | None = None, clock: Any = time.monotonic):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._about = json.loads(self._session.get_modelmeta().custom_metadata_map["continual"])
        self._slots, self._idle, self._clock = slots, idle, clock
        self._inputs, self._outputs = self._about["inputs"], self._about["outputs"]
        self._states = {s["name"]: np.zeros([slots, *s["shape"][1:]], s["dtype"]) for s in self._about["states"]}
        self._names = [o["name"] for o in self._outputs] + ["valid"] + ["new_" + name for name in self._states]
        self._free = list(range(slots - 1, -1, -1))
        self._rows: dict[int, int] = {}
        self._used: dict[int, float] = {}
        self.calls = 0

    def __len__(self) -> int:
        return len(self._rows)

    def step(self, chunks: list[Chunk]) -> list[Any]:
        """Take the next steps of some streams, in one call of the network if no stream occurs twice.

        Args:
            chunks: of any of the streams. The last chunk of a stream may be shorter than the others.

        Returns:
            For each chunk its outputs in the network's order and then ``valid``, all with a batch of 1. The outputs of a stream that ends
            include those of its end. A chunk that can't be served has a :class:`SlotError` instead; the other chunks are served.
        """
        found: list[Any] = [None] * len(chunks)
        waiting = list(range(len(chunks)))
        while waiting:
            now: dict[int, int] = {}
            later = []
            for i in waiting:
                if chunks[i].stream in now:
                    later.append(i)
                else:
                    now[chunks[i].stream] = i
            for i, result in self._moved({i: chunks[i] for i in now.values()}).items():
                found[i] = result
            waiting = later
        return found

    # ---- one call -----------------------------------------------------------------------------------------------------------

    def _moved(self, chunks: dict[int, Chunk]) -> dict[int, Any]:
        """Run one call for all chunks, and the further calls that ending streams need."""
        found: dict[int, Any] = {}
        going: dict[int, int] = {}
        for i, chunk in chunks.items():
            try:
                going[i] = self._row(chunk)
            except SlotError as error:
                found[i] = error
        found.update(self._outputs_of({i: chunks[i] for i in going}, going))
        for chunk in chunks.values():
            if chunk.end:
                self._close(chunk.stream)
        return found

    def _outputs_of(self, chunks: dict[int, Chunk], rows: dict[int, int]) -> dict[int, Any]:
        if not chunks:
            return {}
        ends = {i: self._steps(chunk, rows[i]) if chunk.end else 0 for i, chunk in chunks.items()}
        x = [np.concatenate([self._filled(c.inputs[k], k) for c in chunks.values()]) for k in range(len(self._inputs))]
        try:
            found: dict[int, Any] = self._call(x, rows, ends)
        except Exception as error:  # onnxruntime's errors have no common class; no state has been written
            return {i: SlotError(f"the network failed: {error}") for i in chunks}
        ended = {i: rows[i] for i, end in ends.items() if end}
        for i in list(ended):
            if self._total(ends[i]) < 0:
                del ended[i]
                found[i] = SlotError(
                    f"sequence {chunks[i].stream}: ends after {ends[i]} steps, where branches of the network differ in length: it has no "
                    f"outputs there. End it after a number of steps that the strides divide"
                )
        try:
            return found | {i: self._joined(found[i], rest) for i, rest in self._rest(ended, ends).items()}
        except Exception as error:
            return found | {i: SlotError(f"the network failed at the end of the stream: {error}") for i in ended}

    def _rest(self, rows: dict[int, int], ends: dict[int, int]) -> dict[int, list[Any]]:
        """The outputs of the ends of streams, call by call."""
        rest: dict[int, list[Any]] = {i: [] for i in rows}
        while True:
            left = {i: row for i, row in rows.items() if self._calls_left(row, ends[i]) > 0}
            if not left:
                return rest
            x = [np.zeros([len(left), *p["shape"][1:]], p["dtype"]) for p in self._inputs]
            for i, y in self._call(x, left, ends).items():
                rest[i].append(self._valid_ones(y))

    def _joined(self, y: list[np.ndarray], rest: list[Any]) -> list[np.ndarray]:
        times = [o["time"] for o in self._outputs] + [1]
        return [np.concatenate(parts, time) for parts, time in zip(zip(y, *rest), times)]

    def _call(self, x: list[np.ndarray], rows: dict[int, int], ends: dict[int, int]) -> dict[int, list[np.ndarray]]:
        """Run one call of the network for some rows. Returns the outputs of each of them."""
        at = list(rows.values())
        feeds = {p["name"]: value for p, value in zip(self._inputs, x)}
        feeds["end"] = np.array([ends[i] for i in rows], np.int64)
        feeds.update({name: table[at] for name, table in self._states.items()})
        found = self._session.run(self._names, feeds)
        self.calls += 1
        y, states = found[: len(self._outputs) + 1], found[len(self._outputs) + 1 :]
        for table, new in zip(self._states.values(), states):
            table[at] = new
        return {i: [value[k : k + 1] for value in y] for k, i in enumerate(rows)}

    def _valid_ones(self, y: list[np.ndarray]) -> list[np.ndarray]:
        valid = y[-1]
        return [np.compress(valid[0], value, o["time"]) for value, o in zip(y, self._outputs)] + [valid[:, valid[0]]]

    # ---- counts -------------------------------------------------------------------------------------------------------------

    def _steps(self, chunk: Chunk, row: int) -> int:
        """The number of steps of a stream that ends with this chunk."""
        before = int(self._states["state.calls"][row]) * self._about["chunk"] + self._about["start"]
        return before + self._length(chunk)

    def _calls_left(self, row: int, steps: int) -> int:
        """The number of calls that a stream of ``steps`` steps still needs to give all its outputs."""
        return math.ceil((self._total(steps) - self._about["first"]) / self._about["per_call"]) - int(
            self._states["state.calls"][row]
        )

    def _total(self, steps: int) -> int:
        """The number of outputs of a stream of ``steps`` steps; negative if it can't end there."""
        totals = self._about["totals"]
        table, period = totals["table"], totals["period"]
        beyond = max(0, -(-(steps - len(table) + 1) // period))
        outputs: int = table[steps - beyond * period]
        return outputs + beyond * totals["more"] if outputs >= 0 else outputs

    # ---- chunks -------------------------------------------------------------------------------------------------------------

    def _length(self, chunk: Chunk) -> int:
        return int(chunk.inputs[0].shape[self._inputs[0]["time"]])

    def _filled(self, x: np.ndarray, index: int) -> np.ndarray:
        """A chunk of full length: steps after the end of a stream have no effect."""
        time_dim = self._inputs[index]["time"]
        missing = self._about["chunk"] - x.shape[time_dim]
        if not missing:
            return x
        return np.pad(x, [(0, missing if dim == time_dim else 0) for dim in range(x.ndim)])

    def _check(self, chunk: Chunk) -> None:
        chunk_size, lengths = self._about["chunk"], set()
        for x, port in zip(chunk.inputs, self._inputs):
            lengths.add(x.shape[port["time"]])
            wanted = [1, *port["shape"][1:]]
            got = list(x.shape)
            if chunk.end and 1 <= got[port["time"]] <= chunk_size:
                got[port["time"]] = chunk_size
            if got != wanted or str(x.dtype) != port["dtype"]:
                shorter = f", or of 1 to {chunk_size} steps in the last request of a sequence" if chunk_size > 1 else ""
                raise SlotError(
                    f"sequence {chunk.stream}: {port['name']} takes {port['dtype']} {tuple(wanted)}{shorter}, got {x.dtype} {x.shape}"
                )
        if len(lengths) > 1:
            raise SlotError(f"sequence {chunk.stream}: the chunks of all inputs are equally long, got {sorted(lengths)} steps")

    # ---- slots --------------------------------------------------------------------------------------------------------------

    def _row(self, chunk: Chunk) -> int:
        """The row of a chunk's stream, which starts again if the chunk says so."""
        if chunk.start:
            self._close(chunk.stream)
        self._check(chunk)
        if chunk.start:
            if chunk.end and self._length(chunk) <= -self._about["start"]:
                raise SlotError(
                    f"sequence {chunk.stream}: has no steps: {self._length(chunk)} frames in all, of which the first "
                    f"{-self._about['start']} of every sequence are from before it"
                )
            self._open(chunk.stream)
        if chunk.stream not in self._rows:
            raise SlotError(
                f"sequence {chunk.stream} is not open: its first request has to say sequence_start=True. It may also have ended, or "
                f"have been without requests for too long"
            )
        self._used[chunk.stream] = self._clock()
        return self._rows[chunk.stream]

    def _open(self, stream: int) -> None:
        if not self._free and self._idle is not None:
            self._close_idle(self._clock() - self._idle)
        if not self._free:
            raise NoSlot(
                f"sequence {stream}: all {self._slots} streams are in use. End one (sequence_end=True), or write the repository with a "
                f"larger max_streams"
            )
        row = self._rows[stream] = self._free.pop()
        for table in self._states.values():
            table[row] = 0

    def _close(self, stream: int) -> None:
        if stream in self._rows:
            self._free.append(self._rows.pop(stream))
            self._used.pop(stream, None)

    def _close_idle(self, since: float) -> None:
        """Free the slots of streams without requests since then: the server forgets them without a message."""
        for stream in [stream for stream, used in self._used.items() if used < since]:
            self._close(stream)
