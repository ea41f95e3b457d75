"""Refusals while a graph is walked: each cause once, and what comes behind it on what can be guessed of its result."""

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
from .length_constants import Clockwork
from .mistakes import is_mistake
from .op_call import Call, Misfit, Refused, hint, leaves
from .placeholders import stand_in
from .values import Stream, Unknown, Value

SPECTRUM = "fft"
REPORT = "write it with other operations, or report it with this message: it is a gap of the library"


def operation(node: Fx) -> str:
    """The name of a node's operation, as people know it."""
    name = str(node.target)
    name = name.split(".")[1] if "." in name else getattr(node.target, "__name__", name)
    return name.strip("_")


def _shown(x: Tensor) -> str:
    """The shape of a tensor for the example; ``?`` where values decide."""
    sizes = [getattr(getattr(size, "node", None), "hint", size) for size in x.shape]
    return f"({', '.join('?' if s is None else str(s) for s in sizes)}{',' * (len(sizes) == 1)})"


class Refusing(Clockwork):
    """Notes refusals, and gives stand-ins for what refused operations give."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._guesses: set[Fx] = set()  # nodes whose layout is a guess, or is computed of one
        self._causes: set[Any] = set()  # nodes, and what is said of them: a loop says one thing many times, with other numbers
        self.unforeseen: Exception | None = None  # the first error that no rule expects

    def settle(self, node: Fx, error: Exception) -> Value:
        """What an operation gives that is refused, or can't be followed because of an earlier refusal."""
        if not isinstance(error, Refused):
            error = self._unforeseen(node, error)
        row = self.note_refusal(node, error)
        values = leaves([self.values.get(a) for a in node.all_input_nodes])
        return self._results(node, values, row or self._row(node))

    def note_refusal(self, node: Fx, refused: Refused, op: str = "") -> str:
        """Note a refusal, unless its cause is noted already or it follows from a guess. The path of its row, or ``""``."""
        at = refused.at or node
        said = module_path(at), operation(at), source_line(at), re.sub(r"\d+", "", refused.reason)
        if at in self._causes or said in self._causes or (isinstance(refused, Misfit) and self._behind(node)):
            return ""
        self._causes |= {at, said}
        row = self._row(at)
        self.refusals.append(
            Refusal(module_path(at), op or operation(at), source_line(at), refused.reason, refused.remedy, row=row)
        )
        return row

    def _unforeseen(self, node: Fx, error: Exception) -> Refused:
        """A refusal for an error that no rule expects. A mistake in the library is none, and is raised again."""
        if is_mistake(error):
            raise error
        if isinstance(error, ContinualError):  # a layer that says itself what it can't do
            return Misfit(str(error), "other arguments, or another layer")
        if self.unforeseen is None and not self._behind(node):
            self.unforeseen = error
        shapes = [_shown(v) for v in leaves([n.meta.get("val") for n in node.all_input_nodes]) if isinstance(v, Tensor)]
        on = f", on {'tensors' if len(shapes) > 1 else 'a tensor'} of the shape {' and '.join(shapes)}" if shapes else ""
        return Misfit(f"the library does not know this use of `{operation(node)}`{on}", REPORT)

    def _behind(self, node: Fx) -> bool:
        return node in self._guesses

    def guessed(self, node: Fx, name: str, values: list[Value]) -> Value:
        """The result of an operation on what refused ones give."""
        if name.split(".")[1] != operation(node):  # a part of what the node does
            return next(v for v in values if isinstance(v, Unknown))
        return self._results(node, values, self._row(node))

    def follows(self, node: Fx) -> None:
        """Note that what is computed of guesses is one."""
        if any(n in self._guesses for n in node.all_input_nodes):
            self._guesses.add(node)

    def _row(self, node: Fx) -> str:
        return self.unique(self.name_of(Call(node, f"aten.{operation(node)}.default", {}, ())))

    def _results(self, node: Fx, values: list[Value], row: str) -> Value:
        given = [v for v in values if isinstance(v, Stream)]
        unknown = [v for v in values if isinstance(v, Unknown)]
        before = [v.like for v in unknown if v.like is not None]
        until = next((v.until for v in unknown if not operation(node).startswith(v.until)), "")
        if not until and not unknown and operation(node).startswith(SPECTRUM):
            until = SPECTRUM
        val, slot = node.meta.get("val"), self.slot()
        many = val if isinstance(val, (list, tuple)) else [val]
        found = [self._result(node, (given, before), until, slot, v) for v in many]
        made = next((v for v in found if isinstance(v, Stream)), None)
        if made is not None:
            slots, wire = tuple(s.slot for s in (*given, *before)), max(made.wire, 0)
            self.instructions.append(Op(row, operation(node), source_line(node), "aten.alias.default", (), {}, slots, slot, wire))
        return found if isinstance(val, (list, tuple)) else found[0]

    def _result(self, node: Fx, streams: tuple[list[Stream], list[Stream]], until: str, slot: int, val: Any) -> Value:
        """One result, as far as it can be guessed of its shape."""
        given, before = streams
        like = max((*given, *before), key=lambda s: (where(s.dims, TIME) is not None, len(s.dims)), default=None)
        try:
            shape = tuple(hint(s) for s in val.shape) if isinstance(val, Tensor) else ()
        except Refused:
            shape = ()
        guess = stand_in(self, operation(node), given, shape, before) if isinstance(val, Tensor) and not until else None
        if guess is None or not guess.sure:
            self._guesses.add(node)
        if guess is None:
            return Unknown(shape, like, until)
        wire = guess.like.wire if guess.change is None else self.wires.then(guess.like.wire, guess.change)
        return Stream(slot, guess.dims, wire, val.dtype, guess.like.windows)
