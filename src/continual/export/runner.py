"""`Runner`: an exported network that streams in a runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch import Tensor

from ..core.step_spec import Inputs, Wire
from ..core.weights_digest import check_fingerprint
from ..errors import ExportError, ShapeMismatch, StateMismatch
from ..programs.chunker import Chunker
from .batch_program import FileProgram, nested
from .metadata import Metadata, Port
from .runner_state import RunnerState, check_state, signature_of
from .runtime_streams import OpenStreams, RuntimeStreams


class Runner:
    """An exported network as a stream, with the streaming methods of a :class:`~continual.CoModule`. Made by :func:`continual.load`.

    Attributes:
        metadata: of the file.
        receptive_field, delay, stride, chunk, batch, rate: from the metadata. With a ``chunk`` above 1, steps wait in a buffer until
            the last step of a chunk runs a call.

    Example:
        >>> import tempfile, os
        >>> net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.ReLU()).eval()
        >>> path = co.export(net, torch.zeros(1, 2), os.path.join(tempfile.mkdtemp(), "net.onnx"))
        >>> runner = co.load(path)
        >>> clip = torch.randn(3, 2, 10)
        >>> runner.delay, torch.allclose(runner.forward_steps(clip, pad_end=True), net(clip), atol=1e-6)
        (1, True)
    """

    inference_only = True  # a runtime computes no gradients

    def __init__(self, metadata: Metadata, open_streams: OpenStreams):
        self.metadata, self._open_streams = metadata, open_streams
        self.receptive_field, self.delay, self.stride = metadata.receptive_field, metadata.delay, (metadata.stride,)
        self.chunk, self.batch, self.rate = metadata.chunk, metadata.batch, metadata.rate
        self.unbounded_memory = metadata.unbounded
        self.timing = metadata.schedule
        self._times = [p.time for p in metadata.inputs]
        self._shapes = [_without(p.shape, p.time) for p in metadata.inputs]
        self._dtypes = [getattr(torch, p.dtype) for p in metadata.inputs]
        self._chunker = Chunker[list[Tensor]](self.timing, self._times, [p.time for p in metadata.outputs])
        self.time_dim = next(t for t in self._times if t is not None)
        if metadata.converted:  # the layout of a converted module
            self.time_dims = tuple(self._times)
            self.output_time_dims = tuple(p.time for p in metadata.outputs)
        self._streams: RuntimeStreams | None = None
        self._seen = self._batch = 0
        self._signature = signature_of(metadata)

    # ---- streaming --------------------------------------------------------------------------------------------------------

    @overload
    def forward_step(self, *x: Tensor, update_state: bool = True) -> Tensor | None: ...
    @overload
    def forward_step(self, x: Sequence[Inputs], /, *, update_state: bool = True) -> Wire | None: ...
    def forward_step(self, *x: Any, update_state: bool = True) -> Any:
        """Take one step of every row.

        Args:
            x: a step ``(B, C, *S)`` for each input, as the network takes them.
            update_state: whether the stream advances; if not, it stays where it is.

        Returns:
            The output that the step completes, as the network returns it, or ``None``.

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
        """Take a chunk of steps of every row.

        Args:
            x: a chunk ``(B, C, n, *S)`` for each input, with any number of steps.
            pad_end: append the outputs that the end of the stream would bring. The stream continues as if this had not been asked.
            update_state: whether the stream advances; if not, it stays where it is.

        Returns:
            The outputs stacked in time, or ``None`` if there are none.

        Raises:
            ShapeMismatch: a chunk of another shape or dtype, or with another number of rows than the stream. Or branches of the network
                differ in length at this end, which ``forward`` refuses too.
            ExportError: ``pad_end`` with a file that has no ``end``.
        """
        if pad_end and not self.metadata.flush:
            raise ExportError(
                "runner: this file was exported with flush=False: its streams have no end, and pad_end is not possible"
            )
        chunks, batch = self._checked(x, chunk=True)
        if pad_end:
            self.timing.totals(self._seen + self._length(chunks))  # refuses such an end
        with self._aside() if not update_state else self._all_or_nothing():
            found = self._feed(chunks, batch)
            if pad_end and self._seen:
                with self._aside():
                    found += self._chunker.flush(self._seen, lambda x: self._call(x, self._seen))
        return self._nested(self._chunker.joined(found))

    def _step(self, steps: list[Tensor], batch: int) -> Any:
        chunks = [x if t is None else x.unsqueeze(t) for x, t in zip(steps, self._times, strict=True)]
        found = self._feed(chunks, batch)
        return self._nested(self._chunker.single(found[0])) if found else None

    def _feed(self, chunks: list[Tensor], batch: int) -> list[list[Tensor]]:
        """Take some steps. Returns the outputs of each call that they complete."""
        count = self._length(chunks)
        if self._seen == 0 and count:
            self.clean_state()  # a first call that failed may have had another batch
            self._chunker.open(lambda: [p.zeros(batch) for p in self.metadata.inputs])
            self._batch = batch
        found = self._chunker.feed(chunks, count, self._seen, lambda x: self._call(x, 0))
        self._seen += count
        return found

    def _call(self, chunks: list[Tensor], end: int) -> list[Tensor]:
        if self._streams is None:
            self._streams = self._open_streams(self._batch)
        return self._streams.call(chunks, end)

    def _length(self, chunks: list[Tensor]) -> int:
        return next(c.shape[t] for c, t in zip(chunks, self._times, strict=True) if t is not None)

    def _nested(self, y: list[Tensor] | None) -> Any:
        """Outputs as the network nests them."""
        return None if y is None else nested(self.metadata.structure, y)

    # ---- checks -----------------------------------------------------------------------------------------------------------

    def _checked(self, inputs: Sequence[Any], chunk: bool) -> tuple[list[Tensor], int]:
        """Check the inputs. Returns them, and their number of rows."""
        ports = self.metadata.inputs
        x = list(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], (list, tuple)) else list(inputs)
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
        states = [p.zeros(self._batch) for p in self.metadata.states] if self._streams is None else self._streams.states()
        named = dict(zip((p.name for p in self.metadata.states), states, strict=True))
        pending = tuple(t.clone() for t in self._chunker.buffer)
        return RunnerState(self._seen, named, pending, self._signature, self.metadata.weights)

    def set_state(self, state: RunnerState | None, *, allow_other_weights: bool = False) -> None:
        """Continue from a snapshot, taken with any file of this network with the same names and shapes; ``None``: restart.

        Args:
            state: from :meth:`get_state` or :func:`~continual.load_state`.
            allow_other_weights: accept a snapshot that was taken with other weights.

        Raises:
            StateMismatch: not a snapshot, or one of another network or of other weights. The stream stays as it is.
        """
        if state is None:
            return self.clean_state()
        if not isinstance(state, RunnerState):
            raise StateMismatch(f"{self._name}: set_state takes a state of get_state(), or None, not {type(state).__name__}")
        batch = check_state(self._name, self.metadata, state)
        if not allow_other_weights:
            check_fingerprint(self._name, self.metadata.weights, state.weights, "set_state(state, allow_other_weights=True)")
        streams = self._streams if self._streams is not None and batch == self._batch else self._open_streams(batch)
        streams.load([state.tensors[p.name] for p in self.metadata.states])
        self._streams, self._batch, self._seen = streams, batch, state.steps
        self._chunker.open(lambda: [t.clone() for t in state.pending])

    def batch_program(self, rows: int) -> FileProgram:
        """The file as a program with ``rows`` streams of its own, for a :class:`~continual.StreamBatch`."""
        return FileProgram(self.metadata, self._open_streams, rows)

    def new_stream(self) -> Runner:
        """An independent stream of the same file: cold, in the same runtime."""
        return Runner(self.metadata, self._open_streams)

    @property
    def delay_ms(self) -> float | None:
        """The delay in milliseconds; ``None`` if the file does not say its rate."""
        return None if self.rate is None else 1000 * self.delay / self.rate

    def clean_state(self) -> None:
        """Forget the stream: the next step starts a new one, of any number of rows that the file takes."""
        self._streams = None
        self._chunker.close()
        self._seen = self._batch = 0

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Restore the stream after the block."""
        before = self.get_state()
        try:
            yield
        finally:
            self.set_state(before)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Restore the stream if the block raises."""
        before = self.get_state()
        try:
            yield
        except Exception:
            self.set_state(before)
            raise

    def __repr__(self) -> str:
        m, late = self.metadata, f" ({self.delay_ms:g} ms)" if self.delay_ms is not None else ""
        return (
            f"Runner({m.network}, {m.format}, receptive_field={m.receptive_field}, delay={m.delay}{late}, stride={m.stride}, "
            f"chunk={m.chunk})"
        )


def _without(shape: Sequence[Any], dim: int | None) -> tuple[Any, ...]:
    return tuple(n for i, n in enumerate(shape) if i != dim)


def _sized(shape: tuple[int | None, ...], batch: int | None) -> tuple[int | None, ...]:
    return tuple(batch if n is None else n for n in shape)
