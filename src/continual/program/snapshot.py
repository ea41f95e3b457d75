"""The state of one stream of a :class:`~continual.StreamBatch`, apart from the batch it came from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StreamSnapshot:
    """A stream at a moment: for :meth:`~continual.StreamBatch.restore`, here or in another process (:func:`continual.save_state`).

    Attributes:
        steps: steps that the stream has seen.
        tensors: its row of each state tensor, by name.
        pending: steps that wait for a chunk to be full, one tensor ``(C, n, *S)`` for each input.
        signature: which program it belongs to.
    """

    steps: int
    tensors: dict[str, Tensor]
    pending: tuple[Tensor, ...]
    signature: str

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.tensors.values(), *self.pending))
