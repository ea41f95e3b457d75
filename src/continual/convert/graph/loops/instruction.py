"""A loop in a program: a layer that takes and gives several streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..axes import View
from ..instructions import ExecContext, Layer


@dataclass(eq=False)
class LoopCall(Layer):
    """A layer of several streams, of one wire.

    Attributes:
        given: the slots and layouts of what it takes.
        made: the slots and layouts of what it gives.
    """

    given: tuple[tuple[int, View], ...] = ()
    made: tuple[tuple[int, View], ...] = ()
    has_dtypes = True

    def __post_init__(self) -> None:
        self.inputs, self.outs = tuple(slot for slot, _ in self.given), tuple(slot for slot, _ in self.made)

    def arriving(self, m: ExecContext, count: int) -> Any:
        found = [view.enter(m.env[slot], m.batch, count) for slot, view in self.given]
        return found if len(found) > 1 else found[0]

    def leaving(self, m: ExecContext, y: Any, count: int) -> None:
        parts = [None] * len(self.made) if y is None else y if isinstance(y, list) else [y]
        for part, (slot, view) in zip(parts, self.made, strict=True):
            m.env[slot] = None if part is None else view.leave(part, m.batch, count)
