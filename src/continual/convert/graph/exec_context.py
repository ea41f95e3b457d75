"""One run of a converted network's program: the values of its slots, and of the arguments that differ from run to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from ...containers.base import OPEN
from ...core.state import StateNode, StateUpdates
from .axes import Dims, View

Env = list[Any]  # the values of all slots
Run = Callable[[Env], Any]


@dataclass(frozen=True)
class Ref:
    """The value of a slot."""

    slot: int


@dataclass(frozen=True)
class Shape:
    """The shape of a tensor with the current batch size and frame count."""

    dims: Dims


@dataclass(frozen=True)
class CurrentDevice:
    """The device of the current input."""


@dataclass(frozen=True)
class Count:
    """A number that grows with the current batch size: ``rate * batch + more``."""

    rate: int
    more: int


Arg: TypeAlias = (
    "Ref | Shape | Count | CurrentDevice | bool | int | float | complex | str | torch.dtype | torch.layout | torch.memory_format "
    "| Sequence[Arg] | None"
)


class ExecContext:
    """One run of the program.

    Attributes:
        env: the values of all slots.
        batch, device: of the input.
        frames: the number of frames on every wire.
        ends: for every wire, the number of frames that there would be if the stream ended now.
        nodes: the state nodes of the instructions.
        call: takes changes of state.
        framed: in a step, the slots that hold a frame ``(B, C, *S)`` in place of a tensor in the module's layout.
    """

    __slots__ = ("batch", "call", "device", "ends", "env", "framed", "frames", "nodes")

    def __init__(self, env: Env, wires: int, batch: int, device: torch.device, nodes: list[StateNode], call: StateUpdates | None):
        self.env, self.batch, self.device, self.nodes = env, batch, device, nodes
        self.call: StateUpdates = cast(StateUpdates, call)
        self.frames = [0] * wires
        self.ends = [OPEN] * wires
        self.framed: frozenset[int] = frozenset()

    def frame(self, slot: int, view: View) -> Tensor:
        """The frame ``(B, C, *S)`` in a slot, in a step."""
        x: Tensor = self.env[slot]
        return x if slot in self.framed else view.enter_frame(x, self.batch)

    def put_frame(self, slot: int, view: View, y: Tensor | None) -> None:
        """Set a slot to a frame, or to nothing, in a step."""
        self.env[slot] = y if y is None or slot in self.framed else view.leave_frame(y, self.batch)
