"""Results that depend on the lengths of streams but on none of their values: masks by ``x.new_ones(…).cumsum(1)`` and the like."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch.fx import Node as Fx

from .axes import BATCH, TIME
from .filled_ops import LIKE, SIZED
from .functionalise import base_of, op_of, writes
from .length_constants import LengthConstants
from .op_call import COMPARES, OpCall, Refused
from .program_draft import ProgramDraft
from .values import Const, LengthDependent, Size, Stream, SymScalar, Value, exchanged


class ValueFree:
    """Rebuilds such results as functions of the clip's length. As streams, their frames could not be combined with each other.

    Args:
        draft: the program.
        lengths: builds what depends on the clip's length alone.
    """

    def __init__(self, draft: ProgramDraft, lengths: LengthConstants):
        self._draft, self._lengths = draft, lengths
        self._found: dict[Fx, Value] = {}

    def rescued(self, call: OpCall, refused: Refused) -> LengthDependent | None:
        """The result of an operation that is refused because it combines frames, if it depends on lengths alone."""
        if not refused.reason.endswith(COMPARES) or call.name != str(call.node.target):
            return None
        inputs = {v.slot for n in call.node.all_input_nodes if isinstance(v := self._draft.values[n], Stream)}
        if any(s.slot not in inputs for s in call.streams):  # built beside a stream: it was rescued before
            return None
        if (op := op_of(call.node)) in SIZED:  # nothing was written into it yet
            return self._created(call.node, op)
        if any(isinstance(v, LengthDependent) for v in call.leaves) and all(map(_marks, call.streams)):
            return LengthDependent(call.node, call.name, call.args, call.positional, frozenset(call.node.kwargs))
        return self._function(call.node)

    def known(self, call: OpCall) -> OpCall:
        """A call in which streams that depend on lengths alone are functions of the length."""
        new: dict[int, Value] = {}
        for node in call.node.all_input_nodes:
            value = self._draft.values[node]
            if isinstance(value, Stream) and (function := self._function(node)) is not None:
                new[value.slot] = function
        return call.with_args(**{n: exchanged(v, new) for n, v in call.args.items()}) if new else call

    def _function(self, node: Fx) -> LengthDependent | None:
        found = self._of(node)
        return found if isinstance(found, LengthDependent) else None

    def _of(self, node: Fx) -> Value:
        """A value without streams; ``None`` if it depends on the values of a stream."""
        if node not in self._found:
            self._found[node] = self._built(node)
        return self._found[node]

    def _built(self, node: Fx) -> Value:
        value = self._draft.values.get(node)
        if isinstance(value, (Const, LengthDependent, Size, SymScalar, int, float)):
            return value
        if value is not None and not isinstance(value, Stream):
            return None
        op = op_of(node)
        if not op or node in self._written or not hasattr(node.target, "_schema"):
            return None
        if op in SIZED or op in LIKE:
            return self._created(node, op)
        args: dict[str, Value] = {}
        schema: Any = node.target._schema
        names = [a.name for a in schema.arguments]
        arguments = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        for name, arg in arguments.items():
            args[name] = found = self._argument(arg)
            if found is None and arg is not None:
                return None
        positional = tuple(names[: len(node.args)])
        return LengthDependent(node, str(node.target), args, positional, frozenset(node.kwargs))

    def _argument(self, arg: Any) -> Value:
        if isinstance(arg, Fx):
            return self._of(arg)
        if isinstance(arg, (list, tuple)):
            found = [self._argument(a) for a in arg]
            return None if any(f is None and a is not None for f, a in zip(found, arg, strict=True)) else found
        return arg

    def _created(self, node: Fx, op: str) -> LengthDependent | None:
        """A tensor of one value, as large as the module asks for."""
        source: Any = node.args[0]
        if op in SIZED:
            size, fill = self._argument(node.args[1]), SIZED[op] if op != "new_full" else node.args[2]
        else:
            like = self._draft.values[source]
            if not isinstance(like, Stream):
                return None
            size = [self._lengths.size(like, i) for i in range(len(like.dims))]
            fill = LIKE[op] if op != "full_like" else node.args[1]
        val = node.meta["val"]
        args = {"size": size, "fill_value": fill, "dtype": val.dtype, "device": val.device}
        return LengthDependent(node, "aten.full.default", args, ("size", "fill_value"), frozenset({"dtype", "device"}))

    @cached_property
    def _written(self) -> set[Fx]:
        """Tensors that are written into, and views of them."""
        graph = self._draft.captured.program.graph
        roots = {_root(n.args[0]) for n in graph.nodes if writes(str(n.target)) and isinstance(n.args[0], Fx)}
        return {n for n in graph.nodes if _root(n) in roots}


def _marks(x: Stream) -> bool:
    """Whether a stream has one number for each frame, in its last dimension, as a mask of keys has."""
    return x.dims[-1:] == ((TIME,),) and all(d in ((), (BATCH,)) for d in x.dims[:-1])


def _root(node: Fx) -> Fx:
    while (base := base_of(node)) is not None:
        node = base
    return node
