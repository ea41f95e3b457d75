"""The state of one stream of a :class:`~continual.StreamBatch`, apart from the batch it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import StateMismatch
from ..fingerprint import check_fingerprint
from ..state import frames


@dataclass(frozen=True)
class StreamSnapshot:
    """A stream at a moment: for :meth:`~continual.StreamBatch.restore`, here or in another process (:func:`continual.save_state`).

    Attributes:
        steps: steps that the stream has seen.
        tensors: its row of each state tensor, by name.
        pending: steps that wait for a chunk to be full, one tensor ``(C, n, *S)`` for each input.
        signature: which program it belongs to.
        weights: the digest of the weights that it was made with; empty where that is not known.
    """

    steps: int
    tensors: dict[str, Tensor]
    pending: tuple[Tensor, ...]
    signature: str
    weights: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.tensors.values(), *self.pending))


def signature_of(net: Any, program: Any, state: Mapping[str, Tensor]) -> str:
    """A digest of a program's structure: equal for programs of equal networks, whatever their number of rows."""
    lines = [f"{type(net).__name__} chunk {program.chunk} start {program.start}"]
    lines += [f"{f.shape[1:]} {f.dtype}" for f in frames(program.frame)]
    lines += [f"{name} {tuple(t.shape[1:])} {t.dtype}" for name, t in state.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def check_snapshot(
    snapshot: Any, signature: str, weights: str, state: Mapping[str, Tensor], waiting: Callable[[int], Sequence[Tensor]]
) -> None:
    """Refuse the snapshot of another program, or one that lacks something.

    Args:
        snapshot: what is to be gone on from.
        signature: of the program.
        weights: their digest; empty if any weights will do.
        state: of all its rows.
        waiting: what would wait after so many steps, of each input.

    Raises:
        StateMismatch: it does not fit, or was made with other weights.
    """
    if not isinstance(snapshot, StreamSnapshot):
        raise StateMismatch(f"StreamBatch.restore takes a snapshot, not {type(snapshot).__name__}")
    mine = {name: (tuple(t.shape[1:]), t.dtype) for name, t in state.items()} | _waiting(waiting(snapshot.steps))
    other = {name: (tuple(t.shape), t.dtype) for name, t in snapshot.tensors.items()} | _waiting(snapshot.pending)
    if snapshot.signature != signature or mine != other:
        wrong = sorted(n for n in mine.keys() | other.keys() if mine.get(n) != other.get(n))
        raise StateMismatch(
            f"StreamBatch.restore: the snapshot is of another network or chunk (differences: {wrong or 'structure'})"
        )

    check_fingerprint("StreamBatch.restore", weights, snapshot.weights, "restore(…, allow_other_weights=True)")


def _waiting(pending: Sequence[Tensor]) -> dict[str, Any]:
    return {f"steps that wait, of input {i}": (tuple(t.shape), t.dtype) for i, t in enumerate(pending)}
