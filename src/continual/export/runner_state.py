"""A moment of a :class:`~continual.export.runner.Runner`'s stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import StateMismatch
from .metadata import Metadata


@dataclass(frozen=True)
class RunnerState:
    """A stream of an exported file at a moment: for ``set_state``, here or in another process (:func:`continual.save_state`).

    Attributes:
        tensors: the state tensors by name.
        clock: steps so far.
        pending: the chunk of each input that is being gathered.
        signature: the names, shapes and dtypes of the state tensors of what it is a state of.
        weights: the digest of the weights of the network that was exported; empty where that is not known.
    """

    tensors: dict[str, Tensor]
    clock: int
    pending: tuple[Tensor, ...]
    signature: str
    weights: str = ""


def signature_of(metadata: Metadata) -> str:
    """Of the states of a file."""
    return "; ".join(f"{p.name} {p}" for p in metadata.states)


def rows_of(name: str, metadata: Metadata, state: RunnerState) -> int:
    """The number of rows of a state that fits a file.

    Raises:
        StateMismatch: it does not.
    """
    if state.signature != (own := signature_of(metadata)):
        raise StateMismatch(f"{name}: its state is {own}; this is one of {state.signature}")
    first = state.tensors.get(metadata.states[0].name)
    batch = 0 if first is None or first.ndim == 0 else first.shape[0]
    if metadata.batch not in (None, batch):
        raise StateMismatch(f"{name}: was exported for {metadata.batch} rows, the state is of {batch}")
    given: Mapping[str, Tensor] = state.tensors | {
        f"chunk of {p.name}": t for p, t in zip(metadata.inputs, state.pending, strict=False)
    }
    want = {p.name: _described(p.sized(batch), p.dtype) for p in metadata.states}
    want |= {f"chunk of {p.name}": _described(p.sized(batch), p.dtype) for p in metadata.inputs}
    got = {n: _described(tuple(t.shape), t.dtype) for n, t in given.items()}
    if wrong := sorted(n for n in want.keys() | got.keys() if want.get(n) != got.get(n)):
        raise StateMismatch(f"{name}: the state is damaged: {wrong[0]} is {got.get(wrong[0])}, not {want.get(wrong[0])}")
    return batch


def _described(shape: tuple[int | None, ...], dtype: Any) -> str:
    return f"{str(dtype).removeprefix('torch.')} {shape}"
