"""`Runner`: an exported network, streamed through a runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, overload

import torch
from torch import Tensor

from ..core.step_spec import Inputs, Wire
from ..core.weights_digest import check_fingerprint
from ..errors import ExportError, ShapeMismatch, StateMismatch
from .metadata import Metadata, Port
from .runner_state import RunnerState, rows_of, signature_of


class Rows(Protocol):
    """So many rows in a runtime, and where they are in their streams."""

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        """One call. ``end``: how many steps every row has in all, 0 while they go on. Returns outputs that the caller may keep."""

    def states(self) -> list[Tensor]:
        """Copies of the state tensors, in the metadata's order."""

    def load(self, states: list[Tensor]) -> None:
        """Go on from state tensors."""


class Runner:
    """An exported network as a stream, with the calls of a :class:`~continual.CoModule`. Made by :func:`continual.load`.

    Attributes:
        metadata: what the file says of itself.
        receptive_field, delay, stride, chunk, batch, rate: from there. With a ``chunk`` above 1 steps are gathered, and the last one of a
            chunk brings its outputs.

    Example:
        >>> import tempfile, os
        >>> net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.ReLU()).eval()
        >>> path = co.export(net, torch.zeros(1, 2), os.path.join(tempfile.mkdtemp(), "net.onnx"))
        >>> runner = co.load(path)
        >>> clip = torch.randn(3, 2, 10)
        >>> runner.delay, torch.allclose(runner.forward_steps(clip, pad_end=True), net(clip), atol=1e-6)
        (1, True)
    """

    inference_only = True  # no gradients come through a runtime

    def __init__(self, metadata: Metadata, open_rows: Callable[[int], Rows]):
        self.metadata, self._open_rows = metadata, open_rows
        self.receptive_field, self.delay, self.stride = metadata.receptive_field, metadata.delay, (metadata.stride,)
        self.chunk, self.batch, self.rate = metadata.chunk, metadata.batch, metadata.rate
        self.unbounded_memory = metadata.unbounded
        self.timing, self._structure = metadata.rhythm, metadata.structure
        self._times, self._times_in = [p.time or 0 for p in metadata.outputs], [p.time for p in metadata.inputs]
        self._shapes = [_without(p.shape, p.time) for p in metadata.inputs]
        self._dtypes = [getattr(torch, p.dtype) for p in metadata.inputs]
        self.time_dim = next(t for t in self._times_in if t is not None)
        if metadata.converted:  # the layout of a module that was converted
            self.time_dims = tuple(self._times_in)
            self.output_time_dims = tuple(self._times)
        self._rows: Rows | None = None
        self._buffers: list[Tensor] = []  # the chunk of each input that is being gathered
        self._seen = self._batch = 0
        self._signature = signature_of(metadata)

    # ---- streaming --------------------------------------------------------------------------------------------------------

    @overload
    def forward_step(self, *x: Tensor, update_state: bool = True) -> Tensor | None: ...
    @overload
    def forward_step(self, x: Sequence[Inputs], /, *, update_state: bool = True) -> Wire | None: ...
    def forward_step(self, *x: Any, update_state: bool = True) -> Any:
        """One step of every row.

        Args:
            x: a step ``(B, C, *S)`` for each input, as the network takes them.
            update_state: whether the stream goes on; if not, it stays where it is.

        Returns:
            The output that the step completes, as the network gives it, or ``None``.

        Raises:
            ShapeMismatch: a step of another shape or dtype, or with another number of rows than the stream.
        """
        steps, batch = self._checked(x, chunk=False)
        if update_state:
            return self._step(steps, batch)
        with self._aside():
            return self._step(steps, batch)

    @overload
    def forward_steps(self, *x: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None: ...
    @overload
    def forward_steps(self, x: Sequence[Inputs], /, *, pad_end: bool = False, update_state: bool = True) -> Wire | None: ...
    def forward_steps(self, *x: Any, pad_end: bool = False, update_state: bool = True) -> Any:
        """A chunk of steps of every row.

        Args:
            x: a chunk ``(B, C, n, *S)`` for each input, with any number of steps.
            pad_end: whether to add what the end of the stream would bring. The stream goes on as if it had not been asked.
            update_state: whether the stream goes on; if not, it stays where it is.

        Returns:
            The outputs stacked in time, or ``None`` if there are none.

        Raises:
            ShapeMismatch: a chunk of another shape or dtype, or with another number of rows than the stream; an end at a length at which
                branches of the network differ, as ``forward`` refuses it.
            ExportError: ``pad_end`` of a file without ``end``.
        """
        if pad_end and not self.metadata.flush:
            raise ExportError(
                "runner: this file was exported with flush=False: its streams have no end, and pad_end is not possible"
            )
        chunks, batch = self._checked(x, chunk=True)
        if pad_end:
            frames = next(c.shape[t] for c, t in zip(chunks, self._times_in, strict=True) if t is not None)
            self.timing.totals(self._seen + frames)  # refuses lengths that have no end
        with self._aside() if not update_state else self._all_or_nothing():
            found = self._taken(chunks, batch)
            if pad_end and self._seen:
                with self._aside():
                    found += self._ended()
        return self._joined(found)

    def _step(self, steps: list[Tensor], batch: int) -> Any:
        chunks = [x if t is None else x.unsqueeze(t) for x, t in zip(steps, self._times_in, strict=True)]
        if not (found := self._taken(chunks, batch)):
            return None
        y = found[0]
        if self.metadata.per_call == 1:
            y = [t.select(dim, 0) for t, dim in zip(y, self._times, strict=True)]
        return _nested(self._structure, y)

    def _taken(self, chunks: list[Tensor], batch: int) -> list[list[Tensor]]:
        """Take some steps: the valid outputs of each call that they complete."""
        frames = next(x.shape[t] for x, t in zip(chunks, self._times_in, strict=True) if t is not None)
        if not self._buffers and frames:
            self._buffers = [
                torch.zeros(p.sized(batch), dtype=d) for p, d in zip(self.metadata.inputs, self._dtypes, strict=True)
            ]
            self._batch = batch
        rhythm, chunk, found, at = self.timing, self.chunk, [], 0
        while at < frames:
            slot = (self._seen - rhythm.begin) % chunk
            count = min(frames - at, chunk - slot)
            piece = [x if t is None else x.narrow(t, at, count) for x, t in zip(chunks, self._times_in, strict=True)]
            if count < chunk or None in self._times_in:
                piece = self._gathered(piece, slot, count)
            call = rhythm.calls(self._seen + count) - 1
            if slot + count == chunk:
                y = self._called(piece, 0)
                valid = rhythm.valid_in(call)
                if valid:
                    found.append(self._cut(y, valid))
            self._seen += count
            at += count
        return found

    def _gathered(self, piece: list[Tensor], slot: int, count: int) -> list[Tensor]:
        """Put steps where they belong in the chunks of the call that they are for."""
        for own, x, time in zip(self._buffers, piece, self._times_in, strict=True):
            (own if time is None else own.narrow(time, slot, count)).copy_(x)
        return self._buffers

    def _called(self, chunks: list[Tensor], end: int) -> list[Tensor]:
        if self._rows is None:
            self._rows = self._open_rows(self._batch)
        return self._rows.call(chunks, end)

    def _ended(self) -> list[list[Tensor]]:
        """What the end of the stream brings, call by call. Frames after the end may hold anything."""
        rhythm, end = self.timing, self._seen
        calls, found = rhythm.calls(end), []
        for call in range(calls, calls + rhythm.calls_to_end(calls, end)):
            y = self._called(self._buffers, end)
            if valid := rhythm.valid_in(call, end):
                found.append(self._cut(y, valid))
        return found

    def _cut(self, y: list[Tensor], valid: range) -> list[Tensor]:
        if len(valid) == self.metadata.per_call:
            return y
        return [t.narrow(dim, valid.start, len(valid)) for t, dim in zip(y, self._times, strict=True)]

    def _joined(self, parts: list[list[Tensor]]) -> Any:
        if not parts:
            return None
        whole = (
            parts[0] if len(parts) == 1 else [torch.cat(t, d) for t, d in zip(zip(*parts, strict=True), self._times, strict=True)]
        )
        return _nested(self._structure, whole)

    # ---- checks -----------------------------------------------------------------------------------------------------------

    def _checked(self, given: Sequence[Any], chunk: bool) -> tuple[list[Tensor], int]:
        """The inputs, and the number of rows."""
        ports = self.metadata.inputs
        x = list(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else list(given)
        if len(x) != len(ports):
            raise ShapeMismatch(f"{self._name}: takes {len(ports)} inputs, got {len(x)}")
        batch = None if self._seen == 0 else self._batch
        lengths = set()
        for t, port, shape, dtype in zip(x, ports, self._shapes, self._dtypes, strict=True):
            if not isinstance(t, Tensor):
                raise ShapeMismatch(f"{self._name}: {port.name} is a tensor, not {type(t).__name__}")
            if chunk and port.time is not None and t.ndim > port.time:
                lengths.add(t.shape[port.time])
            got = _without(t.shape, port.time) if chunk else tuple(t.shape)
            rows = got[shape.index(None)] if None in shape and len(got) == len(shape) else batch
            fixed = self.metadata.batch if batch is None else batch
            wanted = fixed if fixed is not None else rows
            if t.dtype != dtype or t.ndim != len(shape) + (chunk and port.time is not None) or got != _sized(shape, wanted):
                rows_alone = self._seen > 0 and self.metadata.batch is None and t.dtype == dtype and got == _sized(shape, rows)
                hint = f": the stream was begun with {batch} rows, clean_state() begins another" if rows_alone else ""
                raise ShapeMismatch(self._mismatch(t, port, shape, wanted, chunk) + hint)
            batch = rows if None in shape else batch
        if len(lengths) > 1:
            raise ShapeMismatch(f"{self._name}: chunks of all inputs are equally long, got {sorted(lengths)} steps")
        return x, 1 if batch is None else batch

    def _mismatch(self, t: Tensor, port: Port, shape: tuple[int | None, ...], batch: int | None, chunk: bool) -> str:
        sizes: list[Any] = ["B" if n is None and batch is None else batch if n is None else n for n in shape]
        if chunk and port.time is not None:
            sizes.insert(port.time, "n")
        what = "chunks" if chunk else "steps"
        dtype = str(t.dtype).removeprefix("torch.")
        return f"{self._name}: {port.name} takes {what} {port.dtype} ({', '.join(map(str, sizes))}), got {dtype} {tuple(t.shape)}"

    @property
    def _name(self) -> str:
        return f"runner of {self.metadata.network} ({self.metadata.format})"

    # ---- state ------------------------------------------------------------------------------------------------------------

    def get_state(self) -> RunnerState | None:
        """A snapshot of the stream; ``None`` if it is cold."""
        if self._seen == 0:
            return None
        states = [_zeros(p, self._batch) for p in self.metadata.states] if self._rows is None else self._rows.states()
        named = dict(zip((p.name for p in self.metadata.states), states, strict=True))
        return RunnerState(named, self._seen, tuple(t.clone() for t in self._buffers), self._signature, self.metadata.weights)

    def set_state(self, state: RunnerState | None, *, allow_other_weights: bool = False) -> None:
        """Go on from a snapshot, of this network from any file of the same names and shapes; ``None`` begins anew.

        Args:
            state: from :meth:`get_state` or :func:`~continual.load_state`.
            allow_other_weights: whether it may come from a file that was made of other weights.

        Raises:
            StateMismatch: the snapshot is of another network or of other weights, or is none. The stream stays as it is.
        """
        if state is None:
            return self.clean_state()
        if not isinstance(state, RunnerState):
            raise StateMismatch(f"{self._name}: set_state takes a state of get_state(), or None, not {type(state).__name__}")
        batch = rows_of(self._name, self.metadata, state)
        if not allow_other_weights:
            check_fingerprint(self._name, self.metadata.weights, state.weights, "set_state(state, allow_other_weights=True)")
        rows = self._rows if self._rows is not None and batch == self._batch else self._open_rows(batch)
        rows.load([state.tensors[p.name] for p in self.metadata.states])
        self._rows, self._batch, self._seen, self._buffers = rows, batch, state.clock, [t.clone() for t in state.pending]

    def clean_state(self) -> None:
        """Forget the stream: the next step begins a new one, of any number of rows that the file takes."""
        self._rows, self._buffers = None, []
        self._seen = self._batch = 0

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """What happens meanwhile is undone."""
        before = self.get_state()
        try:
            yield
        finally:
            self.set_state(before)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """What a runtime did before it failed is undone."""
        before = self.get_state()
        try:
            yield
        except Exception:
            self.set_state(before)
            raise

    def __repr__(self) -> str:
        m = self.metadata
        return f"Runner({m.network}, {m.format}, receptive_field={m.receptive_field}, delay={m.delay}, stride={m.stride}, chunk={m.chunk})"


def _nested(structure: Any, values: list[Tensor]) -> Any:
    """Outputs as the network nests them: numbers stand for them."""
    return values[structure] if isinstance(structure, int) else [_nested(part, values) for part in structure]


def _without(shape: Sequence[Any], dim: int | None) -> tuple[Any, ...]:
    return tuple(n for i, n in enumerate(shape) if i != dim)


def _sized(shape: tuple[int | None, ...], batch: int | None) -> tuple[int | None, ...]:
    return tuple(batch if n is None else n for n in shape)


def _zeros(port: Port, batch: int) -> Tensor:
    return torch.zeros(port.sized(batch), dtype=getattr(torch, port.dtype))
