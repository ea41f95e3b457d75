"""Operations of all iterations of a loop at once."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.fx import Node as Fx

from ..exec_context import Count
from ..row_sizes import known
from .graphs import Graphs, Out
from .layout import Layout
from .matching import Body, Fixed, Frame, Key, NotALoop, Result, line
from .times import Tap

A = torch.ops.aten


@dataclass(eq=False)
class Use:
    """A loop, and where its results are used.

    Attributes:
        nodes: the operations of the loop.
        count: frames of the longest source; of the shortest one, if an iteration takes several frames of the clip.
        outs: the results that are used outside of it.
        numbers: the output numbers of the results of the recurrence.
        made: the node of the loop in the outer graph.
    """

    graphs: Graphs
    body: Body
    nodes: set[Fx]
    count: int
    outs: list[Out] = field(default_factory=list)
    numbers: dict[Out, int] = field(default_factory=dict)
    made: list[Fx] = field(default_factory=list)

    @property
    def sources(self) -> list[Tap]:
        """The sources of its frames."""
        used = (a.tap for key in self.body.keys for a in self.body.args[key] if isinstance(a, Frame))
        return list(dict.fromkeys(t for t in (*used, *self.graphs.taps) if isinstance(t, Tap)))

    def take(self, out: Out) -> None:
        """Record that a result is used outside."""
        if out not in self.outs:
            self.outs.append(out)

    def number_outputs(self) -> None:
        """Number the results of the recurrence that are used outside, or by operations computed after it."""
        parts, body = self.graphs.parts, self.body
        found = [out for out in self.outs if out.key not in parts.all]
        for key in body.keys:
            if key in parts.behind:
                found += [Out(a.key) for a in body.args[key] if isinstance(a, Result) and a.key not in parts.all]
        self.numbers = {out: i for i, out in enumerate(dict.fromkeys(found))}
        self.graphs.outs += self.numbers

    def out_of(self, node: Fx, first: tuple[tuple[int, Fx], ...] = ()) -> Out:
        """The output that an operation's results are."""
        found = self.body.where.get(node)
        if found is None:
            raise NotALoop(
                f"after a loop, a result of its first iterations alone is used{line(node)}", "results of all iterations", node
            )
        return Out(found[1], first)


class Around(Protocol):
    """Builds the graph outside of loops."""

    def call(self, target: Any, args: tuple[Any, ...], like: Fx, kwargs: dict[str, Any] | None = None) -> Fx:
        """A new operation."""

    def value(self, node: Fx) -> Fx:
        """A node in the new graph."""

    def stream(self, use: Use, tap: Any, like: Fx) -> Fx:
        """A source that a loop reads frame by frame, with time in dim 0."""

    def carried(self, use: Use, out: Out) -> Fx:
        """Results of the part of a loop that carries the state."""


class FrameBatch:
    """Operations of all iterations at once: frames are rows of one batch, those of a row one after another.

    Args:
        around: makes the graph.
        use: the loop.
    """

    def __init__(self, around: Around, use: Use):
        self._around, self._use, self._body = around, use, use.body
        self._made: dict[Key, Fx] = {}
        self._frames: dict[Tap, Fx] = {}
        self._sizes: tuple[Fx, Fx] | None = None

    def apart(self, key: Key) -> Fx:
        """Results of all iterations, with time in dim 0."""
        like = self._body.node[key]
        own, x = Layout.of(like.meta["val"]), self._of(key)
        at, (rows, steps) = own.rows or 0, self._rows_and_steps()
        pieces = [rows, steps, own.rate] if own.rate > 1 else [rows, steps]
        x = self._call(A.unflatten.int, (x, at, pieces), like)
        x = self._call(A.movedim.int, (x, at + 1, 0), like)
        return self._call(A.flatten.using_ints, (x, at + 1, at + 2), like) if own.rate > 1 else x

    def _call(self, target: Any, args: tuple[Any, ...], like: Fx, kwargs: dict[str, Any] | None = None) -> Fx:
        return self._around.call(target, args, like, kwargs)

    def _together(self, x: Fx, like: Fx) -> Fx:
        """Time in dim 0, merged with the rows."""
        own = Layout.of(like.meta["val"])
        at = own.rows or 0
        if own.rate > 1:
            rows, _ = self._rows_and_steps()
            x = self._call(A.unflatten.int, (x, at + 1, [rows, own.rate]), like)
        x = self._call(A.movedim.int, (x, 0, at + 1), like)
        return self._call(A.flatten.using_ints, (x, at, at + (2 if own.rate > 1 else 1)), like)

    def _rows_and_steps(self) -> tuple[Fx, Fx]:
        """The rows of the batch, and the number of frames."""
        if self._sizes is None:
            tap = self._use.sources[0]
            like = self._use.graphs.like(tap)
            own, x = Layout.of(like.meta["val"]), self._around.stream(self._use, tap, like)
            rows = self._call(A.sym_size.int, (x, (own.rows or 0) + 1), like)
            rows = rows if own.rate == 1 else self._call(operator.floordiv, (rows, own.rate), like)
            self._sizes = rows, self._call(A.sym_size.int, (x, 0), like)
        return self._sizes

    def _of(self, key: Key) -> Fx:
        """Results of an operation."""
        if key not in self._made:
            node = self._body.node[key]
            if key in self._use.graphs.parts.all:
                arguments = iter([self._argument(a, node) for a in self._body.args[key]])

                def build(value: Any) -> Any:
                    return [build(v) for v in value] if isinstance(value, (list, tuple)) else next(arguments)

                args, kwargs = tuple(build(a) for a in node.args), {k: build(v) for k, v in node.kwargs.items()}
                self._made[key] = self._call(node.target, args, node, kwargs)
            else:
                self._made[key] = self._together(self._around.carried(self._use, Out(key)), node)
        return self._made[key]

    def _argument(self, a: Any, node: Fx) -> Any:
        if isinstance(a, Result):
            return self._of(a.key)
        if isinstance(a, Frame):
            if a.tap not in self._frames:
                like = self._use.graphs.like(a.tap)
                self._frames[a.tap] = self._together(self._around.stream(self._use, a.tap, like), like)
            return self._frames[a.tap]
        if isinstance(a, Fixed) and isinstance(a.value, Fx):
            val = a.value.meta.get("val")
            return self._around.value(a.value) if isinstance(val, torch.Tensor) else self._size(val, node)
        return a.value

    def _size(self, size: Any, like: Fx) -> Any:
        """A size, of as many rows as there are frames."""
        own = known(size) if isinstance(size, (int, torch.SymInt)) else size
        if not isinstance(own, Count):
            return own
        rows, steps = self._rows_and_steps()
        both = self._call(operator.mul, (rows, steps), like)
        found = both if own.rate == 1 else self._call(operator.mul, (both, own.rate), like)
        return found if not own.more else self._call(operator.add, (found, own.more), like)
