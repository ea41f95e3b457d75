"""Streams of an exported file in a runtime: what every format implements for a `Runner`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .metadata import Metadata


class RuntimeStreams(Protocol):
    """A batch of streams that run in lockstep, one per row."""

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        """Run one call. ``end``: the number of steps of each stream, 0 while they go on. The caller may keep the outputs."""

    def states(self) -> list[Tensor]:
        """Copies of the state tensors, in the metadata's order."""

    def load(self, states: list[Tensor]) -> None:
        """Replace the state tensors."""


@runtime_checkable
class RowStreams(Protocol):
    """Streams in a runtime that takes the states with each call: rows may be out of step."""

    def call_rows(self, inputs: list[Tensor], ends: Tensor, states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Run one call.

        Args:
            inputs: chunks.
            ends: the number of steps of each row's stream, 0 while it goes on.
            states: the call takes them over: continue with those that it returns.

        Returns:
            The outputs, which the caller may keep, and the states.
        """


OpenStreams = Callable[[int], RuntimeStreams]  # from a batch size to streams that start


class TensorStreams:
    """Streams whose states are tensors of this process. Subclasses implement ``call``."""

    def __init__(self, metadata: Metadata, batch: int):
        self._metadata = metadata
        self._states = [p.zeros(batch) for p in metadata.states]
        self._end = torch.zeros(batch, dtype=torch.int64)

    def _arguments(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        """All inputs of a call, in order."""
        ends = [self._end.fill_(end)] if self._metadata.flush else []
        return [*(x.detach().contiguous() for x in inputs), *ends, *self._states]

    def states(self) -> list[Tensor]:
        return [t.clone() for t in self._states]

    def load(self, states: list[Tensor]) -> None:
        self._states = [t.clone() for t in states]
