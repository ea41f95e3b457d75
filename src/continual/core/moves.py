"""A running stream follows its module to another dtype or device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ContinualError
from .state import State, StepSpec, frames, rewire


class Opens(Protocol):
    """A module whose streams are opened for a frame, and take a state."""

    def _open(self, frame: Any) -> State: ...

    def _adopt(self, fresh: State, state: State) -> State: ...


def moved_stream(net: Opens, state: State, fn: Callable[[Tensor], Tensor]) -> State:
    """The stream of a module that was moved by ``fn``: each tensor has the dtype that the module's own streams have there now.

    The moved module is opened for the moved frame to find these dtypes, since the code of a network may fix some of them. Where it
    can't run on such frames, the tensors move as its parameters do, and the next step raises the error.
    """
    moved = state.map(fn)
    if moved.signature == state.signature:
        return moved
    for frame in _possible(moved.frame):
        try:
            fresh = net._open(frame)
        except (ContinualError, RuntimeError):
            continue
        if [*fresh.tensors] != [*state.tensors]:
            continue
        for into, old, new in zip(moved.node.walk(), state.node.walk(), fresh.node.walk(), strict=True):
            into.tensors = [t.to(like.device, like.dtype) for t, like in zip(old.tensors, new.tensors, strict=True)]
        fresh.owned = moved.owned
        return net._adopt(fresh, moved)
    return moved


def _possible(frame: Any) -> Iterator[Any]:
    """The frames that the module may take now: where complex32 is not taken, complex64 is."""
    yield frame
    if any(f.dtype == torch.complex32 for f in frames(frame)):
        yield rewire(_wider, frame)


def _wider(frame: StepSpec) -> StepSpec:
    return replace(frame, dtype=torch.complex64) if frame.dtype == torch.complex32 else frame
