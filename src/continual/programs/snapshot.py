"""The state of a stream of a step program or of an exported file at one moment, apart from what runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.state import frames
from ..core.stored_state import described, differences
from ..core.weights_digest import Weights, check_fingerprint, fingerprint
from ..errors import StateMismatch


@dataclass(frozen=True)
class Snapshot:
    """A stream at one moment.

    Attributes:
        steps: the number of steps of the stream so far.
        tensors: the state tensors by name.
        pending: the steps of each input that wait for a full chunk.
        signature: identifies the program that the snapshot fits.
        weights: the digest of the weights that the stream ran with; empty if unknown.
    """

    steps: int
    tensors: dict[str, Tensor]
    pending: tuple[Tensor, ...]
    signature: str
    weights: str = ""

    @property
    def clock(self) -> int:
        """The number of steps so far, by the name that :class:`~continual.State` has for it."""
        return self.steps

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.tensors.values(), *self.pending))


class StreamSnapshot(Snapshot):
    """One stream of a :class:`~continual.StreamBatch`: its row of each state tensor, and ``(C, n, *S)`` for each input.

    It fits :meth:`~continual.StreamBatch.restore`, in this process or in another one (:func:`continual.save_state`).
    """


@dataclass(frozen=True)
class RowsSnapshot:
    """Several streams of a :class:`~continual.StreamBatch` at one moment.

    It fits :meth:`~continual.StreamBatch.restore_rows` of any batch of the same network.

    Attributes:
        steps: the number of steps of each stream ``(n,)``.
        tensors: the state tensors by name, ``(n, …)``.
        chunks: a whole chunk of each input, ``(n, …)``, of which the first frames may wait.
        signature: identifies the program that the snapshot fits.
        weights: the digest of the weights that the streams ran with.
    """

    steps: Tensor
    tensors: dict[str, Tensor]
    chunks: tuple[Tensor, ...]
    signature: str
    weights: str = ""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (self.steps, *self.tensors.values(), *self.chunks))

    def take(self, index: Tensor | Sequence[int]) -> RowsSnapshot:
        """Some of the streams, by their places."""
        rows = torch.as_tensor(index, dtype=torch.int64)
        tensors = {name: t.index_select(0, rows.to(t.device)) for name, t in self.tensors.items()}
        chunks = tuple(t.index_select(0, rows.to(t.device)) for t in self.chunks)
        return replace(self, steps=self.steps[rows], tensors=tensors, chunks=chunks)


CONSTANT = ("aot", "onnxruntime", "openvino")  # backends whose code contains the weights


class ProgramWeights:
    """The weights that a program runs with. Its first call compiles it; from then on they must not change."""

    def __init__(self, net: Any, backend: str):
        self._net, self._backend = net, backend
        self._compiled: tuple[Weights, str] | None = None

    def called(self) -> None:
        """Record the weights, at the first call."""
        if self._compiled is None:
            self._compiled = Weights(self._net), fingerprint(self._net)

    @property
    def digest(self) -> str:
        """Their digest.

        Raises:
            StateMismatch: the weights have changed, and the compiled code may or may not use the new ones.
        """
        if self._compiled is None:
            return fingerprint(self._net)
        then, digest = self._compiled
        if self._backend in CONSTANT or not then.changed:
            return digest
        now = fingerprint(self._net)
        if now != digest and self._backend != "eager":
            raise StateMismatch(
                f"StreamBatch: the weights of {type(self._net).__name__} have changed since its program was compiled (backend "
                f"{self._backend!r}). The compiled code may hold some of them as constants, so the weights of its streams are unknown. "
                "Make a new StreamBatch for the new weights"
            )
        return now


def signature_of(net: Any, program: Any, state: Mapping[str, Tensor]) -> str:
    """A digest of a program's structure: equal for programs of equal networks, whatever their number of rows."""
    lines = [f"{type(net).__name__} chunk {program.chunk} start {program.start}"]
    lines += [f"{f.shape[1:]} {f.dtype}" for f in frames(program.frame)]
    lines += [f"{name} {tuple(t.shape[1:])} {t.dtype}" for name, t in state.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def check_snapshot(
    snapshot: Any, signature: str, weights: str, row: Mapping[str, Tensor], pending: Callable[[int], Sequence[Tensor]]
) -> None:
    """Refuse the snapshot of another program, or one whose tensors differ.

    Args:
        snapshot: the argument of ``restore``.
        signature: of the program.
        weights: their digest; empty: accept any.
        row: a row of each state tensor.
        pending: the steps of each input that wait after a number of steps.

    Raises:
        StateMismatch: it does not fit, or the weights differ.
    """
    if not isinstance(snapshot, StreamSnapshot):
        raise StateMismatch(f"StreamBatch.restore takes a snapshot, not {type(snapshot).__name__}")
    want = described(row) | described(_named(pending(snapshot.steps)))
    got = described(snapshot.tensors) | described(_named(snapshot.pending))
    wrong = differences(want, got)
    if snapshot.signature != signature or wrong:
        raise StateMismatch(
            f"StreamBatch.restore: the snapshot is of another network or chunk (differences: {wrong or 'structure'})"
        )
    check_fingerprint("StreamBatch.restore", weights, snapshot.weights, "restore(…, allow_other_weights=True)")


def check_rows_snapshot(snapshot: Any, rows: int, like: RowsSnapshot, any_weights: bool) -> None:
    """Refuse a snapshot of rows of another program, or of another number of rows.

    Args:
        snapshot: the argument of ``restore_rows``.
        rows: how many are to be restored.
        like: a snapshot of one row of the program.
        any_weights: whether to accept other weights.

    Raises:
        StateMismatch: it does not fit, or the weights differ.
    """
    if not isinstance(snapshot, RowsSnapshot):
        raise StateMismatch(f"StreamBatch.restore_rows takes a snapshot of snapshot_rows, not {type(snapshot).__name__}")
    found = [_rows_described(s) for s in (like, snapshot)]
    wrong = differences(*found)
    if snapshot.signature != like.signature or wrong:
        raise StateMismatch(
            f"StreamBatch.restore_rows: the snapshot is of another network or chunk (differences: {wrong or 'structure'})"
        )
    if any(len(t) != rows for t in (snapshot.steps, *snapshot.tensors.values(), *snapshot.chunks)):
        raise StateMismatch(f"StreamBatch.restore_rows: {rows} rows are to go on, the snapshot is of {len(snapshot)}")
    weights = "" if any_weights else like.weights
    check_fingerprint("StreamBatch.restore_rows", weights, snapshot.weights, "restore_rows(…, allow_other_weights=True)")


def _rows_described(snapshot: RowsSnapshot) -> dict[str, Any]:
    tensors = snapshot.tensors | {f"chunk of input {i}": t for i, t in enumerate(snapshot.chunks)} | {"steps": snapshot.steps}
    return described({name: t.new_empty(t.shape[1:]) for name, t in tensors.items()})


def _named(pending: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"waiting steps of input {i}": t for i, t in enumerate(pending)}
