"""The state of a :class:`~continual.export.runner.Runner`'s stream."""

from __future__ import annotations

from typing import Any

from ..core.stored_state import differences
from ..errors import StateMismatch
from ..programs.snapshot import Snapshot
from .metadata import Metadata


class RunnerState(Snapshot):
    """The stream of an exported file at one moment: all rows of each state tensor, and a whole chunk of each input.

    It fits ``set_state``, in this process or in another one (:func:`continual.save_state`). Its signature consists of the names, shapes and
    dtypes of the state tensors.
    """


def signature_of(metadata: Metadata) -> str:
    """The signature of a file's states."""
    return "; ".join(f"{p.name} {p}" for p in metadata.states)


def check_state(name: str, metadata: Metadata, state: RunnerState) -> int:
    """Check that a state fits a file, and return its number of rows.

    Raises:
        StateMismatch: it does not fit.
    """
    if state.signature != (own := signature_of(metadata)):
        raise StateMismatch(f"{name}: its state is {own}; this is one of {state.signature}")
    first = state.tensors.get(metadata.states[0].name)
    batch = 0 if first is None or first.ndim == 0 else first.shape[0]
    if metadata.batch not in (None, batch):
        raise StateMismatch(f"{name}: was exported for {metadata.batch} rows, the state is of {batch}")
    ports = {p.name: p for p in metadata.states} | {_chunk(p.name): p for p in metadata.inputs}
    want = {key: _described(p.sized(batch), p.dtype) for key, p in ports.items()}
    pending = {_chunk(p.name): t for p, t in zip(metadata.inputs, state.pending, strict=False)}
    got = {key: _described(tuple(t.shape), t.dtype) for key, t in (state.tensors | pending).items()}
    if wrong := differences(want, got):
        raise StateMismatch(f"{name}: the state is damaged: {wrong[0]} is {got.get(wrong[0])}, not {want.get(wrong[0])}")
    return batch


def _chunk(name: str) -> str:
    return f"chunk of {name}"


def _described(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{str(dtype).removeprefix('torch.')} {shape}"
