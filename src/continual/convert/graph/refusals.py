"""Collects refusals during the walk: every cause once. Operations behind a refusal are checked on a guess of its result."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor
from torch.fx import Node as Fx

from ...core.op_rows import Refusal
from ...errors import ContinualError
from .axes import TIME, where
from .capture import module_path, source_line
from .instructions import Op
from .library_errors import is_mistake
from .op_call import Misfit, OpCall, Refused, hint, operation
from .op_names import OpNames
from .placeholders import stand_in
from .program_draft import ProgramDraft
from .shape_queries import ShapeQueries
from .values import Stream, Unknown, Value, leaves

SPECTRUM = "fft"
REPORT = "write it with other operations, or report it with this message: it is a gap of the library"


class RefusalCollector:
    """Records refusals, and gives placeholders for the results of refused operations.

    Args:
        draft: the program.
        shapes: answers questions on sizes.
        names: gives operations their paths.

    Attributes:
        refusals: what was refused.
        unforeseen: the first error that no rule expects.
    """

    def __init__(self, draft: ProgramDraft, shapes: ShapeQueries, names: OpNames):
        self._draft, self._shapes, self._names = draft, shapes, names
        self.refusals: list[Refusal] = []
        self.unforeseen: Exception | None = None
        self._guesses: set[Fx] = set()  # nodes whose layout is a guess, or is computed from one
        self._causes: set[Fx | tuple[str, ...]] = set()  # nodes and reasons: a loop repeats one reason with other numbers

    def refuse(self, path: str, op: str, reason: str, remedy: str) -> None:
        """Record a refusal that belongs to no node."""
        self.refusals.append(Refusal(path, op, "", reason, remedy))

    def placeholder(self, node: Fx, error: Exception) -> Value:
        """Record why an operation has no result, unless that follows from an earlier refusal. Returns a placeholder."""
        refused = error if isinstance(error, Refused) else self._unexpected(node, error)
        row = self.note(node, refused)
        values = leaves([self._draft.values.get(a) for a in node.all_input_nodes])
        return self._results(node, values, row or self._row(node))

    def note(self, node: Fx, refused: Refused, op: str = "") -> str:
        """Record a refusal, unless its cause is known or it follows from a guess. Returns the path of its row, or ``""``."""
        at = refused.at or node
        said = module_path(at), operation(at), source_line(at), re.sub(r"\d+", "", refused.reason)
        if at in self._causes or said in self._causes or (isinstance(refused, Misfit) and self.is_guess(node)):
            return ""
        self._causes |= {at, said}
        row = self._row(at)
        self.refusals.append(
            Refusal(
                module_path(at),
                op or operation(at),
                source_line(at),
                refused.reason,
                refused.remedy,
                row,
                refused.mixes_rows,
                refused.in_loop,
            )
        )
        return row

    def is_guess(self, node: Fx) -> bool:
        """Whether the layout of a node's result is a guess."""
        return node in self._guesses

    def mark_inputs(self, node: Fx) -> None:
        """A result computed from guesses is a guess."""
        if any(n in self._guesses for n in node.all_input_nodes):
            self._guesses.add(node)

    def guessed(self, node: Fx, name: str, values: list[Value]) -> Value:
        """The result of an operation whose arguments come from refused operations."""
        if name.split(".")[1] != operation(node):  # a part of what the node does
            return next(v for v in values if isinstance(v, Unknown))
        return self._results(node, values, self._row(node))

    def _unexpected(self, node: Fx, error: Exception) -> Refused:
        """A refusal for an error that no rule expects. A mistake in the library is raised again."""
        if is_mistake(error):
            raise error
        if isinstance(error, ContinualError):  # a layer's own refusal
            return Misfit(str(error), "other arguments, or another layer")
        if self.unforeseen is None and not self.is_guess(node):
            self.unforeseen = error
        shapes = [_shown(v) for n in node.all_input_nodes for v in _flat(n.meta.get("val")) if isinstance(v, Tensor)]
        on = f", on {'tensors' if len(shapes) > 1 else 'a tensor'} of the shape {' and '.join(shapes)}" if shapes else ""
        return Misfit(f"the library does not know this use of `{operation(node)}`{on}", REPORT)

    def _row(self, node: Fx) -> str:
        return self._names.unique(self._names.path(OpCall(node, f"aten.{operation(node)}.default", {})))

    def _results(self, node: Fx, values: list[Value], row: str) -> Value:
        inputs = [v for v in values if isinstance(v, Stream)]
        unknown = [v for v in values if isinstance(v, Unknown)]
        before = [v.like for v in unknown if v.like is not None]
        until = next((v.until for v in unknown if not operation(node).startswith(v.until)), "")
        if not until and not unknown and operation(node).startswith(SPECTRUM):
            until = SPECTRUM
        val, slot = node.meta.get("val"), self._draft.new_slot()
        found = [self._result(node, (inputs, before), until, slot, v) for v in (val if isinstance(val, (list, tuple)) else [val])]
        made = next((v for v in found if isinstance(v, Stream)), None)
        if made is not None:
            slots, wire = tuple(s.slot for s in (*inputs, *before)), max(made.wire, 0)
            self._draft.instructions.append(
                Op(row, operation(node), source_line(node), "aten.alias.default", (), {}, slots, slot, wire)
            )
        return found if isinstance(val, (list, tuple)) else found[0]

    def _result(
        self, node: Fx, streams: tuple[list[Stream], list[Stream]], until: str, slot: int, val: object
    ) -> Stream | Unknown:
        """One result, as far as its shape tells."""
        inputs, before = streams
        like = max((*inputs, *before), key=lambda s: (where(s.dims, TIME) is not None, len(s.dims)), default=None)
        try:
            shape = tuple(hint(s) for s in val.shape) if isinstance(val, Tensor) else ()
        except Refused:
            shape = ()
        if not isinstance(val, Tensor) or until:
            guess = None
        else:
            guess = stand_in(self._shapes, operation(node), inputs, shape, before)
        if guess is None or not guess.sure:
            self._guesses.add(node)
        if guess is None or not isinstance(val, Tensor):
            return Unknown(shape, like, until)
        wire = guess.like.wire if guess.change is None else self._draft.wires.then(guess.like.wire, guess.change)
        return Stream(slot, guess.dims, wire, val.dtype, guess.like.windows)


def _flat(value: Any) -> list[Any]:
    return [v for item in value for v in _flat(item)] if isinstance(value, (list, tuple)) else [value]


def _shown(x: Tensor) -> str:
    """The shape of a tensor for the example; ``?`` where values decide."""
    sizes = [getattr(getattr(size, "node", None), "hint", size) for size in x.shape]
    return f"({', '.join('?' if s is None else str(s) for s in sizes)}{',' * (len(sizes) == 1)})"
