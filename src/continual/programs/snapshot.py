"""The state of one stream of a :class:`~continual.StreamBatch`, apart from the batch it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core.state import frames
from ..core.weights_digest import Weights, check_fingerprint, fingerprint
from ..errors import StateMismatch


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


CONSTANT = ("aot", "onnxruntime", "openvino")  # backends whose code holds the weights themselves


class ProgramWeights:
    """The weights that a program runs with. Its first call compiles it; after that they must not change."""

    def __init__(self, net: Any, backend: str):
        self._net, self._backend = net, backend
        self._taken: tuple[Weights, str] | None = None

    def called(self) -> None:
        """Take note of the weights at the first call."""
        if self._taken is None:
            self._taken = Weights(self._net), fingerprint(self._net)

    @property
    def digest(self) -> str:
        """Their digest.

        Raises:
            StateMismatch: they have changed under code of which nobody can say whether it uses the new ones.
        """
        if self._taken is None:
            return fingerprint(self._net)
        then, digest = self._taken
        if self._backend in CONSTANT or not then.changed:
            return digest
        now = fingerprint(self._net)
        if now != digest and self._backend != "eager":
            raise StateMismatch(
                f"StreamBatch: the weights of {type(self._net).__name__} have changed since its program was compiled (backend "
                f"{self._backend!r}), which may hold some of them as constants, so that nobody can say with which weights its streams run. "
                "Make another StreamBatch for the new weights"
            )
        return now


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
