"""The graph around loops. Each loop is one operation, and sizes of the clip are distinguished from other numbers."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from ..capture import Captured
from .batch import FrameBatch, Use
from .fills import plain_fills
from .graphs import Graphs, Out, Past
from .layout import Layout
from .matching import NotALoop, NothingDone, line, matched, runs_backward
from .operation import registered
from .prefixes import running
from .retime import retime
from .simplify import ANY_LAYOUT, REST, dim_of, elements_of, leave_out, merge_constants, short, simplify, sizes
from .split import Computed, split
from .strides import at_stride
from .times import Tap, Times, components, times_of
from .traced import Traced, batch_symbol

A = torch.ops.aten


@dataclass
class Rolled:
    """A graph whose loops are single operations.

    Attributes:
        graph: with the placeholders of the exported graph.
        loops: its loops, by their numbers.
    """

    graph: Graph
    loops: dict[int, Traced]


def rolled(captured: Captured, pace: int = 1) -> Rolled | None:
    """The graph of a short clip with its loops as single operations; ``None`` if no frames are taken one by one.

    Args:
        captured: the export.
        pace: frames of the clip for each iteration.

    Raises:
        NotALoop: the module computes something else than a recurrence on them.
    """
    program = captured.program
    graph = Graph()
    output = graph.graph_copy(program.graph, {})
    graph.output(output)
    signature = program.graph_signature
    constants = [(n, program.constants[c]) for n, c in signature.inputs_to_lifted_tensor_constants.items()]
    merge_constants(graph, [(n, c) for n, c in constants if isinstance(c, torch.Tensor)])
    plain_fills(graph)
    leave_out(graph)
    running(graph)
    simplify(graph)
    at_stride(graph, pace, captured.steps)
    inputs, error = set(signature.user_inputs), None
    for at_end, evolving in ((pace == 1, False), (pace > 1, False), (True, True)):  # clips may end within an iteration
        times = times_of(graph, inputs, -(-captured.steps // pace), at_end, evolving)
        if not times.taps:
            return None
        if error is not None and not evolving and len({tap.frames for tap, _ in times.taps.values()}) == 1:
            continue  # sources of one length begin and end together
        try:
            return Rolling(graph, times, batch_symbol(captured), pace).run()
        except NotALoop as found:
            error = error or found
    raise error  # type: ignore[misc]


class Rolling:
    """Makes the graph around loops.

    Args:
        graph: simplified.
        times: the iterations in it.
        batch: the symbol of the batch.
        pace: frames of the clip for each iteration.
    """

    def __init__(self, graph: Graph, times: Times, batch: Any, pace: int = 1):
        self._graph, self._times, self._pace = graph, times, pace
        self._uses: list[Use] = []
        self._owner: dict[Fx, Use] = {}
        for nodes in components(graph, times):
            body = matched(nodes, times)
            retime(body)
            own = {n for n in nodes if n in body.where or times.of[n] < body.first}  # others are behind the loop
            taps = {times.taps[a][0] for n in own for a in n.all_input_nodes if a in times.taps}
            count = (max if pace == 1 else min)(tap.frames + tap.late for tap in taps)
            parts = split(body)
            use = Use(Graphs(body, times, batch, parts), body, own, count)
            self._uses.append(use)
            self._owner.update(dict.fromkeys(own, use))
        if not self._uses:
            raise self._no_loop()
        self._pieces: dict[Fx, list[tuple[Any, ...]]] = {}
        self._made: dict[Fx, Fx] = {}
        self._new = Graph()
        self._loops: dict[int, Traced] = {}
        self._batches: dict[Use, FrameBatch] = {}
        self._shortest: dict[Use, Fx] = {}

    def _no_loop(self) -> NotALoop:
        """Why no operation belongs to an iteration before the last."""
        node = next((n for n in self._times.of if n not in self._times.taps), None)
        if node is None:
            return NothingDone()
        return runs_backward(node)

    def run(self) -> Rolled:
        """The graph."""
        for node in self._graph.nodes:
            if node not in self._owner:
                self._look(node)
        for use in self._uses:
            use.number_outputs()
        for node in self._graph.nodes:
            if node.op == "placeholder":
                self._made[node] = self._new.placeholder(str(node.target))
                self._made[node].meta = dict(node.meta)
        output = next(n for n in self._graph.nodes if n.op == "output")
        result = self._mapped(output.args[0])
        self._new.output(result)
        return Rolled(self._new, self._loops)

    # ---- what is used of loops ------------------------------------------------------------------------------------------

    def _look(self, node: Fx) -> None:
        """Find which results an operation outside of loops uses."""
        if node in self._times.joins:
            self._pieces[node] = list(self._runs(elements_of(node)))
            return
        for a in node.all_input_nodes:
            if a in self._owner:
                use = self._owner[a]
                use.take(use.out_of(a))

    def _runs(self, found: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """The joined parts: consecutive results of iterations, consecutive frames, and others."""
        i = 0
        while i < len(found):
            e = found[i]
            start = self._start_of_results(found, i)
            if start is not None:
                use, j = self._owner[found[start]], self._end_of_results(found, start)
                index = [self._iteration(use, n) for n in found[i:j]]
                first = tuple((t, n) for t, n in zip(index, found[i:j], strict=True) if t < use.body.first)
                out = use.out_of(found[j - 1], first)
                use.take(out)
                yield "results", use, out, index[0], index[-1]
            elif e in self._times.taps:
                tap, start = self._times.taps[e]
                j = i + 1
                while j < len(found) and self._times.taps.get(found[j]) == (tap, start + j - i):
                    j += 1
                yield "frames", tap, start, start + j - i - 1
            else:
                if e in self._times.of:
                    raise NotALoop(
                        f"the last iterations of a loop differ, as with an index that is held at the end of the clip{line(e)}",
                        "F.pad(x, (0, k)) before the loop, which then takes frames i to i + k for each i",
                        e,
                    )
                j = i + 1
                yield "other", e
            i = j

    def _start_of_results(self, found: Sequence[Any], i: int) -> int | None:
        """Where results begin; the first iterations may give their frames as they are."""
        j = i
        while j < len(found) and found[j] in self._times.taps:
            j += 1
        if j == len(found) or found[j] not in self._owner:
            return None
        use = self._owner[found[j]]
        index = [self._times.of[n] for n in found[i:j]] + [self._iteration(use, found[j])]
        inside = all(t < use.body.first for t in index[:-1]) and all(b == a + 1 for a, b in itertools.pairwise(index))
        return j if inside else None

    def _iteration(self, use: Use, node: Fx) -> int:
        return use.body.where[node][0] if node in use.body.where else self._times.of[node]

    def _end_of_results(self, found: Sequence[Any], i: int) -> int:
        use, j = self._owner[found[i]], i + 1
        t = self._iteration(use, found[i])
        while j < len(found) and self._owner.get(found[j]) is use and self._iteration(use, found[j]) == t + j - i:
            a, b = use.body.where.get(found[j - 1]), use.body.where.get(found[j])
            if a is not None and (b is None or a[1] != b[1]):
                break
            j += 1
        return j

    # ---- the new graph --------------------------------------------------------------------------------------------------

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, Fx):
            return self.value(value)
        return [self._mapped(v) for v in value] if isinstance(value, (list, tuple)) else value

    def value(self, node: Fx) -> Fx:
        """A node in the new graph."""
        if node in self._made:
            return self._made[node]
        if node in self._owner:
            made = self._single(node)
        elif node in self._pieces:
            made = self._joined(node)
        else:
            args, kwargs = tuple(self._mapped(a) for a in node.args), {k: self._mapped(v) for k, v in node.kwargs.items()}
            made = self.call(node.target, args, node, kwargs)
        self._made[node] = made
        return made

    def call(self, target: Any, args: tuple[Any, ...], like: Fx, kwargs: dict[str, Any] | None = None) -> Fx:
        """A new operation. Moving time to the front right after moving it from there is no operation, or a single one."""
        if target is A.movedim.int and args[1:2] == (0,) and args[0].target is target and args[0].args[2:] == (0,):
            source, dim, _ = args[0].args
            if dim == args[2]:
                return cast(Fx, source)
            args = (source, dim, args[2])
        made = self._new.call_function(ANY_LAYOUT.get(target, target), args, kwargs or {})
        made.meta = {k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")}
        return made

    def _single(self, node: Fx) -> Fx:
        """One iteration's result, counted from the nearer end."""
        use = self._owner[node]
        t, count = self._iteration(use, node), use.count
        at = t if t < count // 2 else t - count
        return self.call(A.select.int, (self._results(use, use.out_of(node)), 0, at), node)

    def _results(self, use: Use, out: Out) -> Fx:
        """Results of all iterations, with time in dim 0."""
        if out.key in use.graphs.parts.all:
            return self._batch_of(use).apart(out.key)
        return self.carried(use, out)

    def _batch_of(self, use: Use) -> FrameBatch:
        if use not in self._batches:
            self._batches[use] = FrameBatch(self, use)
        return self._batches[use]

    def carried(self, use: Use, out: Out) -> Fx:
        """The results of all iterations of an operation in the part that carries the state."""
        if not use.made:
            use.made = [self._loop(use)]
        found = use.made[0]
        return self.call(operator.getitem, (found, use.numbers[out]), use.body.node[out.key])

    def _loop(self, use: Use) -> Fx:
        like = use.body.node[use.body.keys[-1]]
        traced = use.graphs.traced()
        number = registered(traced)
        self._loops[number] = traced
        self._refuse_itself(use)
        xs = [self.stream(use, tap, like) for tap in use.graphs.taps]
        init = [self._begin(value, xs[0], use.graphs.like(use.graphs.taps[0]), like) for value in use.graphs.begins()]
        same = [self.value(node) for node in use.graphs.same]
        return self.call(torch.ops.continual.loop.default, (xs, init, same, number), like)

    def _refuse_itself(self, use: Use) -> None:
        """Refuse a loop that depends on its own results."""
        seen: set[Fx] = set()
        todo = (
            [t.source for t in use.graphs.taps if isinstance(t, Tap)]
            + use.graphs.same
            + [v for v in use.graphs.begins() if isinstance(v, Fx)]
        )
        while todo:
            node = todo.pop()
            if node in use.nodes:
                raise NotALoop(f"a loop begins with one of its own results{line(node)}", "one loop after another", node)
            if node not in seen:
                seen.add(node)
                todo += node.all_input_nodes

    def stream(self, use: Use, tap: Any, like: Fx) -> Fx:
        """A source that is read frame by frame, with time in dim 0."""
        if isinstance(tap, Computed):
            return self._batch_of(use).apart(tap.key)
        x = self._whole(tap, like)
        sources = use.sources
        if self._pace == 1 or len(sources) == 1:
            return x
        if use not in self._shortest:  # a clip may end within an iteration: some of its frames are there, and others are not
            counts = [self.call(A.sym_size.int, (self._whole(t, like), 0), like) for t in sources]
            self._shortest[use] = functools.reduce(lambda a, b: self.call(torch.sym_min, (a, b), like), counts)
        return self.call(A.slice.Tensor, (x, 0, 0, self._shortest[use]), like)

    def _whole(self, tap: Tap, like: Fx) -> Fx:
        """All frames of a source, with time in dim 0."""
        x = self.value(tap.source)
        if tap.dim:
            x = self.call(A.movedim.int, (x, tap.dim, 0), like)
        if tap.late:
            rank = len(sizes(tap.source))
            x = self.call(A.constant_pad_nd.default, (x, [0] * (2 * rank - 2) + [tap.late, 0]), like)
        return x

    def _begin(self, value: Fx | Past, first: Fx, frame_like: Fx, like: Fx) -> Fx:
        """The initial value of a state."""
        if isinstance(value, Fx):
            return self.value(value)
        val, frame = value.like.meta["val"], Layout.of(frame_like.meta["val"])
        own, shape = Layout.of(val), list[Any]()
        for i, size in enumerate(own.sizes):
            if i != own.rows:
                shape.append(size)
                continue
            rows = self.call(A.sym_size.int, (first, (frame.rows or 0) + 1), like)
            batch = rows if frame.rate == 1 else self.call(operator.floordiv, (rows, frame.rate), like)
            shape.append(batch if size == 1 else self.call(operator.mul, (batch, size), like))
        return self.call(A.zeros.default, (shape,), like, {"dtype": val.dtype, "device": val.device})

    def _joined(self, node: Fx) -> Fx:
        """Results of all iterations, put together."""
        dim, pieces = dim_of(node), list[Fx]()
        stacked = short(node) == "stack"
        for kind, *found in self._pieces[node]:
            if kind == "other":
                piece = self._mapped(found[0])
                pieces.append(self.call(A.unsqueeze.default, (piece, dim), node) if stacked else piece)
                continue
            if kind == "results":
                use, out, first, last = found
                y, at, count = self._results(use, out), 0, use.count
            else:
                tap, first, last = found
                y, at, count = self.value(tap.source), tap.dim, tap.frames
            if first or last < count - 1:
                y = self.call(A.slice.Tensor, (y, at, first, REST if last == count - 1 else last + 1 - count), node)
            if at != dim:
                y = self.call(A.movedim.int, (y, at, dim), node)
            if not stacked:
                y = self.call(A.flatten.using_ints, (y, dim, dim + 1), node)
            pieces.append(y)
        return pieces[0] if len(pieces) == 1 else self.call(A.cat.default, (pieces, dim), node)
