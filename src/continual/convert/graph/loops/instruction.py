"""A loop in a program: a layer that takes and gives several streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..axes import View
from ..exec_context import ExecContext
from ..instructions import Layer


@dataclass(eq=False)
class LoopCall(Layer):
    """A layer of several streams, of one wire.

    Attributes:
        takes: the slots and layouts of its inputs.
        gives: the slots and layouts of its outputs.
    """

    takes: tuple[tuple[int, View], ...] = ()
    gives: tuple[tuple[int, View], ...] = ()
    has_dtypes = True

    def __post_init__(self) -> None:
        self.inputs, self.outs = tuple(slot for slot, _ in self.takes), tuple(slot for slot, _ in self.gives)

    def arriving(self, m: ExecContext, count: int) -> Any:
        found = [view.enter(m.env[slot], m.batch, count) for slot, view in self.takes]
        return found if len(found) > 1 else found[0]

    def frames(self, m: ExecContext) -> Any:
        if len(self.takes) == 1:
            return m.frame(self.slot, self.enter)
        return [m.frame(slot, view) for slot, view in self.takes]

    def put_frames(self, m: ExecContext, y: Any) -> None:
        if len(self.gives) == 1:
            return m.put_frame(self.out, self.leave, y)
        parts = [None] * len(self.gives) if y is None else y if isinstance(y, list) else [y]
        for part, (slot, view) in zip(parts, self.gives, strict=True):
            m.put_frame(slot, view, part)

    @property
    def taken(self) -> list[tuple[int, View]]:
        return list(self.takes)

    @property
    def made(self) -> list[tuple[int, View]]:
        return list(self.gives)

    def take(self, taken: Sequence[tuple[int, View]]) -> None:
        self.takes = tuple(taken)
        self.slot, self.enter = taken[0]
        self.inputs = tuple(slot for slot, _ in taken)

    def leaving(self, m: ExecContext, y: Any, count: int) -> None:
        parts = [None] * len(self.gives) if y is None else y if isinstance(y, list) else [y]
        for part, (slot, view) in zip(parts, self.gives, strict=True):
            m.env[slot] = None if part is None else view.leave(part, m.batch, count)
