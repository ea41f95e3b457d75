"""Replaces code that computes the first frames otherwise than the rest: differences of neighbours, deltas, shifts in place.

``F.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))`` computes on one frame fewer than the clip has, and puts one before the result. As
written, a stream would hold back a frame that may be cut, and return two at once. So the operation is computed for all frames,
followed by a choice by position: ``torch.where(torch.arange(T) < 1, 0, x - shifted)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from .slice_bounds import CATS, END, cut_of, pad_amounts, rank

aten = torch.ops.aten
PADS = (aten.pad.default, aten.constant_pad_nd.default)
FILLS: dict[Any, Any] = {aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0}
FRESH = (*FILLS, aten.clone.default)
# Operations on each element, which may be done on more frames.
ELEMENTWISE = {
    getattr(aten, name) for name in ("abs", "add", "clamp", "exp", "mul", "neg", "relu", "sigmoid", "square", "sub", "tanh")
}


def with_choices(graph: Graph) -> None:
    """Replace the forms in a graph by operations on all frames."""
    for node in list(graph.nodes):
        new = _of_cat(node) if node.target in CATS else _of_pad(node) if node.target in PADS else _of_diff(node)
        if new is not None:
            node.replace_all_uses_with(new)
        elif node.target in FRESH:
            _written(node)


# ---- the forms ------------------------------------------------------------------------------------------------------------


def _of_cat(node: Fx) -> Fx | None:
    """``cat((first frames, the rest))``."""
    parts, at = cast(Any, node.args[0]), node.args[1] if len(node.args) > 1 else 0
    if len(parts) != 2 or not all(isinstance(p, Fx) for p in parts) or not isinstance(at, int):
        return None
    first, rest = parts
    if rank(first) != rank(node):  # nothing at all, torch.tensor([]), has one dimension beside any tensor
        return None
    at %= rank(node)
    count = first.meta["val"].shape[at]
    return _chosen(node, at, count, first, rest) if isinstance(count, int) else None


def _of_pad(node: Fx) -> Fx | None:
    """``pad(the rest)`` with a constant, at the start alone."""
    rest, amounts, *more = cast(tuple[Any, ...], node.args)
    mode = more[0] if node.target is aten.pad.default and more else "constant"
    value = (more[1] if len(more) > 1 else None) if node.target is aten.pad.default else (more[0] if more else None)
    used = [i for i, n in enumerate(amounts) if not isinstance(n, int) or n]
    if mode != "constant" or len(used) != 1 or used[0] % 2 or not isinstance(amounts[used[0]], int) or amounts[used[0]] < 0:
        return None
    return _chosen(node, rank(node) - 1 - used[0] // 2, amounts[used[0]], float(value or 0), rest)


def _of_diff(node: Fx) -> Fx | None:
    """``diff(x, prepend=x[:, :1])``, whose first frame is 0."""
    if node.target is not aten.diff.default or len(node.args) != 4 or node.args[1] != 1:
        return None
    x, _, at, before = cast(tuple[Any, ...], node.args)
    at %= rank(node)
    if not isinstance(before, Fx) or cut_of(before, at, x) != (x, (0, 1)) or not _moves(node, at):
        return None
    make = _Maker(node, at, node)
    return make.choice(1, 0.0, make(aten.sub.Tensor, x, make.shifted(x, 1)))


def _written(base: Fx) -> None:
    """A new tensor whose later frames are overwritten, ``out[:, k:] = the rest``, and which is read only after the last write."""
    through = {user: _write_through(user) for user in base.users}
    if not any(through.values()):
        return
    order = {n: i for i, n in enumerate(base.graph.nodes)}
    users = sorted(base.users, key=order.__getitem__)
    writes = [w for w in map(through.__getitem__, users) if w is not None]
    last = max(map(order.__getitem__, writes))
    if any(through[u] is None and order[u] < last for u in users):
        return
    plans = []
    for write in writes:
        at, count = _later_frames(cast(Fx, write.args[0]), base)
        plan = None if not count else _plan(write, at, count, write.args[1], base)
        if plan is None:
            return
        plans.append((write, at, count, plan))
    current: Fx | float = FILLS.get(base.target, base)
    for write, at, count, plan in plans:
        current = _Maker(write, at, base).choice(count, current, plan())
        write.graph.erase_node(write)
    for user in users:
        if order[user] > last:
            user.replace_input_with(base, cast(Fx, current))


def _write_through(view: Fx) -> Fx | None:
    """The write into a slice of a tensor, if the slice has no other use."""
    while view.target is aten.slice.Tensor and len(view.users) == 1:
        view = next(iter(view.users))
    alone = view.target is aten.copy_.default and not view.users
    return view if alone else None


def _later_frames(view: Fx, base: Fx) -> tuple[int, int]:
    """The dimension and the first frame of a slice that has all later frames and covers the other dimensions; 0 for the frame of other
    slices."""
    for at in range(rank(base)):
        source, (count, end) = cut_of(view, at, base)
        if source is base and end == END and count > 0:
            return at, count
    return 0, 0


# ---- the same for all frames ----------------------------------------------------------------------------------------------


def _chosen(node: Fx, at: int, count: int, first: Fx | float, rest: Any) -> Fx | None:
    """The choice between the first frames and the rest, if both can be computed for all frames.

    Args:
        node: which is exchanged.
        at: the dimension of time.
        count: of the first frames.
        first: these frames, or their value.
        rest: the others.
    """
    plan = _plan(node, at, count, rest, node)
    own: Any = first
    if isinstance(first, Fx):
        source, bounds = cut_of(first, at)
        own = (
            FILLS[first.target]
            if first.target in FILLS
            else source
            if bounds == (0, count) and _alike(source, node, at)
            else None
        )
    return None if plan is None or own is None else _Maker(node, at, node).choice(count, own, plan())


def _plan(node: Fx, at: int, count: int, rest: Any, like: Fx) -> Callable[[], Any] | None:
    """A function that inserts, before a node, the computation of the rest for all frames. ``None`` where there is none, or for a
    slice: that is a shift."""
    if count < 1 or not isinstance(rest, Fx) or not _moves(like, at) or not _is_followed(rest):
        return None
    return _whole(rest, at, count, _Maker(node, at, like))


def _is_followed(node: Fx) -> bool:
    """Whether it computes frames by an operation that can run on more frames."""
    packet = getattr(node.target, "overloadpacket", None)
    return node.target is aten.diff.default or (packet in ELEMENTWISE and not node.kwargs)


def _whole(rest: Any, at: int, count: int, make: _Maker) -> Callable[[], Any] | None:
    """The node that makes a tensor of all frames, whose frames from ``count`` on are those of another tensor; ``None`` if it is
    unknown."""
    if not isinstance(rest, Fx) or not _has_frames(rest, make.like, at):
        return lambda: rest
    if not _alike(rest, make.like, at):
        return None
    if rest.target is aten.slice.Tensor:
        source, (later, end) = cut_of(rest, at)
        cut = 0 if end == END else -end
        if not 0 <= later <= count or later + cut != count:
            return None
        return (lambda: make.shifted(source, cut)) if cut else (lambda: source)
    if not _is_followed(rest):
        return None
    if rest.target is aten.diff.default:
        source, times, dim = cast(tuple[Any, ...], (*rest.args, *(None, 1, -1)[len(rest.args) :])[:3])
        alone = len(rest.args) < 4 and (times, dim % rank(rest), count) == (1, at, 1)
        return (lambda: make(aten.sub.Tensor, source, make.shifted(source, 1))) if alone else None
    parts = [_whole(a, at, count, make) for a in rest.args]
    if None in parts:
        return None
    return lambda: make(rest.target, *(part() for part in cast(Any, parts)))


class _Maker:
    """Inserts operations before a node, on tensors of all frames.

    Args:
        node: which is exchanged.
        at: the dimension of time.
        like: a node of the same shape and type as the results.
    """

    def __init__(self, node: Fx, at: int, like: Fx):
        self._node, self._at, self.like = node, at, like

    def __call__(self, target: Any, *args: Any, val: Any = None) -> Fx:
        with self._node.graph.inserting_before(self._node):
            made = self._node.graph.call_function(target, args)
        made.meta = dict(self._node.meta) | {
            "val": torch.empty_like(self.like.meta["val"]) if val is None else val
        }  # memory of its own
        return made

    def shifted(self, x: Fx, count: int) -> Fx:
        """A shift by ``count`` frames, filled with zeros."""
        val, at = x.meta["val"], self._at
        longer = [n + count if i == at else n for i, n in enumerate(val.shape)]
        padded = self(aten.pad.default, x, pad_amounts(x, at, count), val=val.new_empty(longer))
        return self(aten.slice.Tensor, padded, at, 0, -count, val=padded.meta["val"].narrow(at, 0, val.shape[at]))

    def choice(self, count: int, first: Fx | float, rest: Fx) -> Fx:
        """``first`` for a number of frames, and then ``rest``."""
        val, at = self.like.meta["val"], self._at
        size = self(aten.sym_size.int, rest, at, val=val.shape[at])
        place = val.new_zeros((val.shape[at],), dtype=torch.int64)
        places = self(aten.arange.default, size, val=place)
        behind = self(aten.ge.Scalar, places, count, val=place >= count)
        for i in range(val.ndim - 1 - at):
            behind = self(aten.unsqueeze.default, behind, i + 1, val=behind.meta["val"].unsqueeze(i + 1))
        if isinstance(first, Fx):
            return self(aten.where.self, behind, rest, first)
        return self(
            aten.where.ScalarOther, behind, rest, first if val.dtype.is_floating_point or val.dtype.is_complex else int(first)
        )


# ---- questions ------------------------------------------------------------------------------------------------------------


def _moves(node: Fx, at: int) -> bool:
    """Whether the length of the clip is in this dimension."""
    return isinstance(node.meta["val"].shape[at], torch.SymInt)


def _has_frames(node: Fx, like: Fx, at: int) -> bool:
    """Whether two tensors have time in the same dimension, counted from the last one."""
    val, back = node.meta.get("val"), rank(like) - at
    return isinstance(val, torch.Tensor) and val.ndim >= back and isinstance(val.shape[val.ndim - back], torch.SymInt)


def _alike(node: Fx, like: Fx, at: int) -> bool:
    """Whether two tensors have the same type, and the same shape except for time."""
    a, b = node.meta["val"], like.meta["val"]
    return (
        a.dtype == b.dtype
        and a.ndim == b.ndim
        and all(i == at or m == n for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)))
    )
