"""Branches side by side: `Parallel`, `BroadcastReduce`, `Residual`, `Conditional`. They align the delays of what they hold.

A branch that delivers its output ``j`` early keeps it in a queue until the slowest branch delivers the same ``j``. How deep a
queue gets follows from the counts of :mod:`continual.core.timing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ..core.alignment import waiting
from ..core.module import CoModule, PaddingMode
from ..core.naming import named
from ..core.program.context import CallRows, DelayLine, KernelContext, Run
from ..core.program.frame_schedule import FrameSchedule
from ..core.ring_buffer import match_memory_format, ring_zeros
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec, Wire, frames, rewire
from ..core.step_spec import Inputs, length
from ..core.timing import IDENTITY, Timing
from ..core.timing_graph import aligned
from ..errors import NotStreamable, ShapeMismatch
from ..layers.closure import Identity
from ..layers.delay import Trim, queued
from ..layers.skip import Skip
from ..layers.window import FILLS, fill_name
from .base import Container, children, open_child, run_chunk, run_clip, run_step
from .every_frame import lost_frames, with_every_frame
from .streams import Reduce, check_lengths


class Parallel(Container):
    """Branches side by side: a list of streams in, a list of streams out, branch ``i`` working on stream ``i``.

    Args:
        modules: the branches, or one ``OrderedDict`` of them.
        auto_delay: align the branches' delays. With ``False`` they must be equal already.

    Raises:
        ShapeMismatch: branches with different temporal strides; or, at the end of a clip, of different lengths.
        NotStreamable: ``auto_delay=False`` with different delays.
    """

    def __init__(self, *modules: nn.Module | dict[str, nn.Module], auto_delay: bool = True):
        super().__init__()
        self.auto_delay = auto_delay
        self._set(modules)

    def _like(self, modules: dict[str, nn.Module]) -> Any:
        return type(self)(modules, auto_delay=self.auto_delay)

    def _changed(self) -> None:
        super()._changed()
        if not self._children:
            raise ValueError(f"{type(self).__name__} needs at least one branch")
        delays = {name: m.delay for name, m in zip(self.names, self._children, strict=True)}
        if not self.auto_delay and len(set(delays.values())) > 1:
            raise NotStreamable(
                f"{type(self).__name__}(auto_delay=False): the branches' delays are {delays}, so their outputs would be paired "
                "wrongly. Use auto_delay=True, or put co.Delay before the faster ones"
            )
        aligned(*(m.timing for m in self._children))  # refuses different strides

    @property
    def names(self) -> list[str]:
        """The branches' names."""
        return list(self._modules)

    @property
    def num_streams(self) -> int:
        """How many branches there are."""
        return len(self._children)

    @property
    def timing(self) -> Timing:
        return aligned(*(m.timing for m in self._children))

    def forward(self, input: Sequence[Inputs]) -> Wire:  # type: ignore[override]
        """The branches' outputs on the clips, in a list."""
        return self.branches(input)

    def branches(self, input: Inputs) -> list[Wire]:
        """The branches' outputs on the clips, of equal lengths."""
        outs = [run_clip(m, x) for m, x in zip(self._children, self.split(input), strict=True)]
        check_lengths(type(self).__name__, outs)
        return outs

    def split(self, x: Any) -> Sequence[Any]:
        """The branches' inputs."""
        if not isinstance(x, (list, tuple)) or len(x) != self.num_streams:
            shown = f"{len(x)} streams" if isinstance(x, (list, tuple)) else type(x).__name__
            raise ShapeMismatch(
                f"{type(self).__name__} has {self.num_streams} branches and takes a list of as many streams, got {shown}"
            )
        return x

    def merge(self, outs: list[Wire]) -> Wire:
        """What leaves, of the branches' aligned outputs."""
        return outs

    def _merge_frames(self, outs: list[Any], name: str) -> Any:
        """The frame that leaves."""
        return outs

    # ---- kernel -----------------------------------------------------------------------------------------------------
    # A node's children are the branches' nodes and then one node per branch for its queue: `n_in` counts the frames that the branch
    # has delivered, `n_out` those that have left.

    copies = True  # frames taken from a queue leave as they are, so they must not be views of it

    def open(self, frame: Any, init: InitContext) -> StateNode:
        names, inputs = self.names, self.split(frame)
        child_nodes = [open_child(m, f, init.below(name)) for m, f, name in zip(self._children, inputs, names, strict=True)]
        depths = waiting(tuple(m.timing for m in self._children), init.before)
        queues = [
            StateNode(init.below(name), "queue", child_node.out, self._queue(child_node.out, depth))
            for name, child_node, depth in zip(names, child_nodes, depths, strict=True)
        ]
        out = self._merge_frames([n.out for n in child_nodes], named(init.path, self))
        return StateNode(init, self.kind, out, children=child_nodes + queues, kept_spec=frame)

    @staticmethod
    def _queue(out: Any, depth: int) -> dict[str, Tensor]:
        return {f"queue{i or ''}": ring_zeros(f, depth) for i, f in enumerate(frames(out))} if depth else {}

    def plan(self, node: StateNode, lookahead: int | None) -> tuple[int, int, int | None] | None:
        plans = [child.plan(child_node, lookahead) for child, child_node in zip(self._children, node.children, strict=False)]
        rate = super().plan(node, lookahead)
        return None if any(p is None for p in plans) else rate

    def recount(self, node: StateNode, n: int, n_if_ended: int) -> tuple[int, int]:
        size = self.num_streams
        for child, child_node, queue in zip(self._children, node.children[:size], node.children[size:], strict=True):
            queue.n_in, _ = child.recount(child_node, n, n_if_ended)
        counts = super().recount(node, n, n_if_ended)
        for queue in node.children[size:]:
            queue.n_out = node.n_out
        return counts

    def _branches(
        self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates
    ) -> tuple[list[Wire | None], list[int], list[int]]:
        """Run the branches; return their outputs, how many they have delivered, and how many a clip of ``n_if_ended`` would have."""
        size = self.num_streams
        inputs = [None] * size if x is None else self.split(x)
        outs, have, ends = [], [], []
        for child, branch_input, child_node, queue in zip(
            self._children, inputs, node.children[:size], node.children[size:], strict=True
        ):
            y, ended = run_chunk(child, branch_input, child_node, n_if_ended, updates)
            if y is not None and queue.tensors:
                flat = _flat(y)
                match_memory_format(queue, flat)
                for i, t in enumerate(flat):
                    updates.ring(queue, i, queue.n_in, t)
            outs.append(y)
            have.append(queue.n_in + length(y))
            ends.append(ended)
        return outs, have, ends

    def _leave(self, x: Wire | None, node: StateNode, have: list[int], stop: int, updates: StateUpdates) -> None:
        """Count what has come and what has left."""
        for queue, n in zip(node.children[self.num_streams :], have, strict=True):
            updates.tick(queue, n, stop)
        updates.tick(node, node.n_in + length(x), stop)

    def advance(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        outs, have, ends = self._branches(x, node, n_if_ended, updates)
        if updates.final and min(ends) == 0:  # the clip is too short for one of them: forward refuses it, so nothing leaves
            return None, 0
        if updates.final and len(set(ends)) > 1:
            raise ShapeMismatch(
                f"{type(self).__name__}: the stream ends here, and its branches have {ends} output steps for this clip (forward "
                "refuses it too). Give them equal lengths: the same padding − receptive field balance and stride; where one goes down and "
                "up in time, end the stream where its strides divide the length"
            )
        stop = min(have)
        self._leave(x, node, have, stop, updates)
        if stop == node.n_out:
            return None, min(ends)
        queues = node.children[self.num_streams :]
        return self.merge([taken(q, y, node.n_out, stop) for q, y in zip(queues, outs, strict=True)]), min(ends)

    def advance_step(self, x: Wire, node: StateNode, updates: StateUpdates) -> Wire | None:
        child_nodes, first, stop = node.children, node.n_out, node.n_out + 1
        size = len(child_nodes) // 2
        outs: list[Wire | None] = []
        for child, branch_input, child_node, queue in zip(
            self._children, self.split(x), child_nodes, child_nodes[size:], strict=False
        ):
            y = run_step(child, branch_input, child_node, updates)
            outs.append(y)
            if y is None and queue.n_in <= first:
                stop = first  # this branch has not delivered the output that is due
        aligned: list[Wire] = []
        for y, queue in zip(outs, child_nodes[size:], strict=True):
            n_in = queue.n_in
            if stop > first and y is not None and n_in == first:
                aligned.append(y)  # has just come and leaves at once
            elif queue.tensors:
                if y is not None:
                    match_memory_format(queue, _flat(y))
                rings = queue.memo or _slots(queue)
                if stop > first:
                    aligned.append(self._waiting(queue, rings, first))
                if y is not None:
                    updates.slots.extend((ring[n_in % len(ring)], t) for ring, t in zip(rings, _flat(y), strict=True))
            updates.ticks.append((queue, n_in if y is None else n_in + 1, stop))
        updates.ticks.append((node, node.n_in + 1, stop))
        return self.merge(aligned) if stop > first else None

    def _waiting(self, queue: StateNode, rings: list[list[Tensor]], first: int) -> Wire:
        """A branch's output that has waited."""
        frames = [ring[first % len(ring)] for ring in rings]
        if self.copies:
            frames = [f.clone() for f in frames]
        return frames[0] if isinstance(queue.out, StepSpec) else _regroup(iter(frames), queue.out)

    def program(self, ctx: KernelContext) -> Run:
        """Side by side: outputs that are early wait in queues."""
        runs, size = children(ctx), len(self._children)
        timings = [node.before.then(child.timing) for child, node in zip(self._children, ctx.node.children, strict=False)]
        queues = [
            queue(ctx, node, child_node.out, ctx.plan.schedule(t))
            for t, child_node, node in zip(timings, ctx.node.children, ctx.node.children[size:], strict=False)
        ]

        def run(x: Wire, rows: CallRows) -> Wire:
            outs = [child(part, rows) for child, part in zip(runs, self.split(x), strict=True)]
            return self.merge([waited(q, y, rows, ctx.out_schedule.frames) for q, y in zip(queues, outs, strict=True)])

        return run


def _slots(queue: StateNode) -> list[list[Tensor]]:
    """Views of a queue's slots, made once."""
    queue.memo = [[ring.select(1, i) for i in range(ring.shape[1])] for ring in queue.tensors]
    return queue.memo


def _flat(wire: Wire) -> list[Tensor]:
    """All tensors of a wire."""
    return [wire] if isinstance(wire, Tensor) else [t for w in wire for t in _flat(w)]


def _regroup(tensors: Iterator[Tensor], like: Any) -> Wire:
    """Tensors as a wire that is nested like another."""
    return [_regroup(tensors, w) for w in like] if isinstance(like, list) else next(tensors)


def taken(queue: StateNode, y: Wire | None, first: int, stop: int) -> Any:
    """Outputs ``first … stop - 1`` of a branch, from its queue and from what has just come."""
    if not queue.tensors:
        return y
    fresh = [None] * len(queue.tensors) if y is None else _flat(y)
    return _regroup(iter([queued(queue, i, t, queue.n_in, first, stop) for i, t in enumerate(fresh)]), queue.out)


class BroadcastReduce(Parallel):
    """Feed the same stream to all branches and reduce their outputs to one.

    Args:
        modules: the branches, or one ``OrderedDict`` of them.
        reduce: ``"sum"``, ``"concat"`` (channels), ``"mul"``, ``"max"``, or a function of the list of tensors.
        auto_delay: align the branches' delays. With ``False`` they must be equal already.

    Raises:
        ShapeMismatch: branches with different temporal strides; or, at the end of a clip, of different lengths.
        NotStreamable: ``auto_delay=False`` with different delays.

    Example:
        >>> inception = co.BroadcastReduce(
        ...     co.Conv1d(2, 4, 1), co.Conv1d(2, 4, 3, padding=1), co.Conv1d(2, 4, 5, padding=2), reduce="concat"
        ... )
        >>> inception.receptive_field, inception.delay, inception(torch.randn(1, 2, 10)).shape
        (5, 2, torch.Size([1, 12, 10]))
    """

    reducer: Reduce

    def __init__(
        self,
        *modules: nn.Module | dict[str, nn.Module],
        reduce: str | Callable[[Sequence[Tensor]], Tensor] = "sum",
        auto_delay: bool = True,
    ):
        super().__init__(*modules, auto_delay=auto_delay)
        self.__dict__["reducer"] = Reduce(reduce)  # not a child: it has neither parameters nor state
        self.copies = not isinstance(self.reducer.reduce, str) or self.num_streams == 1

    def _like(self, modules: dict[str, nn.Module]) -> Any:
        return BroadcastReduce(modules, reduce=self.reduce, auto_delay=self.auto_delay)

    @property
    def reduce(self) -> str | Callable[[Sequence[Tensor]], Tensor]:
        """How the outputs are reduced."""
        return self.reducer.reduce

    @property
    def kind(self) -> str:
        return f"{type(self).__name__} {self.reducer.kind}"

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """The reduced outputs of the branches on the clip."""
        return self.reducer.rearrange(self.branches(input))

    def split(self, x: Any) -> Sequence[Any]:
        return [x] * self.num_streams

    def merge(self, outs: list[Wire]) -> Wire:
        return self.reducer.rearrange(outs)

    def _merge_frames(self, outs: list[Any], name: str) -> Any:
        return self.reducer.out(outs, name)

    def extra_repr(self) -> str:
        return f"reduce={self.reducer.extra_repr()}"


class Residual(BroadcastReduce):
    """A module and a shortcut around it, reduced. The shortcut waits for the module.

    The children are named ``"0"`` (the shortcut) and ``"1"`` (the module).

    The shortcut has every frame, so the windows of adaptive pools in the module reach back here. Take ``reduce="mul"``, a pool over
    ``kernel_size`` frames, and layers behind it that lose none. Each frame then meets the gate of the last ``kernel_size`` frames up to
    its own; at the start, of those that exist. It leaves with the step that brings it, and ``forward`` computes the same.

    Args:
        module: maps ``(B, C, T, *S)`` to a shape that can be reduced with its input.
        temporal_fill: what :meth:`warm_up` feeds, ``"zeros"`` (also for ``None``) or ``"neg_inf"``.
        reduce: as in :class:`BroadcastReduce`.
        residual_shrink: how the shortcut loses the frames that the module loses for want of padding. ``"centered"`` (or ``True``): at
            both ends; ``"lagging"``: at the end; ``"leading"``: at the start; ``False``: it loses none.

    Example:
        >>> block = co.Residual(co.Conv1d(4, 4, 3), residual_shrink=True)
        >>> block.delay, block(torch.randn(1, 4, 10)).shape
        (2, torch.Size([1, 4, 8]))
    """

    def __init__(
        self,
        module: nn.Module,
        temporal_fill: PaddingMode | str | None = None,
        reduce: str | Callable[[Sequence[Tensor]], Tensor] = "sum",
        residual_shrink: bool | str = False,
    ):
        if residual_shrink not in (False, True, "centered", "lagging", "leading"):
            raise ValueError(f"residual_shrink is False, True, 'centered', 'lagging' or 'leading', not {residual_shrink!r}")
        inner = self._converted(module, "1")
        if not residual_shrink:
            inner = with_every_frame(inner)
        super().__init__(shrinking(inner.timing, residual_shrink), inner, reduce=reduce)
        self.temporal_fill = fill_name(temporal_fill)

    def dummy_value(self) -> float:
        return FILLS.get(self.temporal_fill, 0.0) if self.temporal_fill else self._children[1].dummy_value()


def shrinking(timing: Timing, shrink: bool | str) -> CoModule:
    """The shortcut that loses the frames that a module with this timing loses."""
    if not shrink:
        return Identity()
    lost = lost_frames(timing)
    if lost < 0 or timing.stride != 1:
        raise ValueError(
            f"residual_shrink is for modules of stride 1 that lose frames; this one loses {lost} at stride {timing.stride}"
        )
    first = {"leading": lost, "lagging": 0}.get(str(shrink), lost // 2)
    return Trim(first, lost - first) if lost > first else Skip(first)


def queue(ctx: KernelContext, node: StateNode, out: Any, wire: FrameSchedule) -> list[DelayLine]:
    """The queues of a branch, one for each of its tensors."""
    within = KernelContext(ctx.plan, ctx.module, node, IDENTITY)
    return [within.delay_line(f"queue{i or ''}", f, ctx.out_schedule.first - wire.first, wire) for i, f in enumerate(frames(out))]


def waited(queues: list[DelayLine], y: Wire, rows: CallRows, count: int) -> Wire:
    """What leaves a branch, when all others have come as far."""
    own = iter(queues)

    def one(t: Tensor) -> Tensor:
        return next(own).delayed(rows, t, count)

    return rewire(one, y)
