"""What a value is computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.fx import Node as Fx

from .instructions import Instruction, slots_of
from .op_call import OpCall
from .parameter_table import Source
from .program_draft import ProgramDraft
from .values import Const, Stream


@dataclass(frozen=True)
class Reduced:
    """A reduction over the whole clip.

    Attributes:
        node: the operation.
        what: the operation in words.
        poolable: whether `time_pooling` has another form of it.
    """

    node: Fx
    what: str
    poolable: bool


class Provenance:
    """Looks up what streams and constants are computed from.

    Args:
        draft: the program.
    """

    def __init__(self, draft: ProgramDraft):
        self._draft = draft
        self._reductions: dict[int, Reduced] = {}  # by the slot of the result

    def reduced(self, stream: Stream, call: OpCall, what: str, poolable: bool = False) -> Stream:
        """Record that a stream is a reduction over the clip."""
        self._reductions[stream.slot] = Reduced(call.node, what, poolable)
        return stream

    def reductions(self, stream: Stream) -> list[Reduced]:
        """The reductions over the clip that a stream is computed from."""
        makers = {slot: i for i in self._draft.instructions for slot in i.outs}
        found = dict.fromkeys(self._reductions[slot] for slot in _behind(stream.slot, makers, self._reductions.__contains__))
        return sorted(found, key=lambda r: r.what)

    def can_change(self, value: Const) -> bool:
        """Whether a constant is computed from what can change: parameters, buffers, inputs."""
        return any(s.kind != "constant" for s in self.sources_of(value))

    def sources_of(self, value: Const) -> list[Source]:
        """The parameters, buffers, inputs and constants of the code that a constant is computed from."""
        sources = {s.slot: s for s in self._draft.sources}
        makers: dict[int, Instruction] = {op.out: op for op in self._draft.constants}
        return [sources[slot] for slot in _behind(value.slot, makers, sources.__contains__)]


def _behind(slot: int, makers: Mapping[int, Instruction], wanted: Callable[[int], bool]) -> list[int]:
    """The first wanted slots on every path back from a slot."""
    todo, seen, found = [slot], set[int](), list[int]()
    while todo:
        slot = todo.pop()
        if slot in seen:
            continue
        seen.add(slot)
        if wanted(slot):
            found.append(slot)
        elif slot in makers:
            todo += slots_of(makers[slot])
    return found
