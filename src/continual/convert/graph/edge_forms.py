"""Replaces code that spells out one operation: padding by `cat`, pre-emphasis by `cat`, one position of every window by `unfold`.

``torch.cat((x[:, :, :1].repeat(1, 1, 3), x), 2)`` is padding by replication. As written, it reads the first frame of the clip,
which a stream has only once, so it would be refused; as padding it streams.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.fx import Graph
from torch.fx import Node as Fx

from .slice_bounds import CATS, END, cut_of, pad_amounts, rank

aten = torch.ops.aten


def with_operations(graph: Graph) -> None:
    """Replace the forms in a graph by operations."""
    for node in list(graph.nodes):
        if node.target in CATS and isinstance(node.args[0], (list, tuple)):
            parts, dim = list(node.args[0]), node.args[1] if len(node.args) > 1 else 0
            new = _padded(node, parts, dim) or _filled(node, parts, dim) or _emphasised(node, parts, dim)
        else:
            new = _one_place(node) if node.target is aten.select.int else None
        if new is not None:
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)


def _one_place(node: Fx) -> Fx | None:
    """The same position of each sliding window, ``x.unfold(2, size, step)[..., k]``: a slice, which needs no other position."""
    windows, dim, index = cast(tuple[Any, ...], node.args)
    if not isinstance(windows, Fx) or windows.target is not aten.unfold.default or not isinstance(index, int):
        return None
    x, at, size, step = cast(tuple[Any, ...], windows.args)
    if dim % rank(windows) != rank(windows) - 1:
        return None
    first = index % size
    end = first - size + 1 or END
    with node.graph.inserting_before(node):
        return node.graph.call_function(aten.slice.Tensor, (x, at, first, end, step))


# ---- edges ----------------------------------------------------------------------------------------------------------------


def _padded(node: Fx, parts: list[Any], dim: Any) -> Fx | None:
    """Padding that repeats or mirrors a tensor's edges."""
    if not isinstance(dim, int) or not all(isinstance(p, Fx) for p in parts) or len(parts) not in (2, 3):
        return None
    for i, x in enumerate(parts):
        if len(parts) == 3 and i != 1:
            continue
        at = dim % rank(x)
        if not isinstance(x.meta["val"].shape[at], torch.SymInt):  # space, which needs no other form, or the edge itself
            continue
        start = _edge(parts[0], x, at, False) if i else (None, 0)
        end = _edge(parts[-1], x, at, True) if i < len(parts) - 1 else (None, 0)
        modes = {mode for mode, _ in (start, end) if mode is not None} if start and end else set()
        if start and end and len(modes) == 1:
            with node.graph.inserting_before(node):
                return node.graph.call_function(aten.pad.default, (x, pad_amounts(x, at, start[1], end[1]), modes.pop()))
    return None


def _edge(node: Fx, x: Fx, dim: int, last: bool) -> tuple[str, Any] | None:
    """How the frames beside a tensor derive from its first or last frames, and how many there are."""
    if node.target is aten.flip.default and [d % rank(node) for d in _numbers(node.args[1])] == [dim]:
        inner: Any = node.args[0]
        bounds = _bounds(inner, x, dim)
        if bounds is not None and not last and bounds[0] == 1 and 1 < bounds[1] < END:
            return "reflect", bounds[1] - 1
        if bounds is not None and last and bounds[1] == -1 and bounds[0] < -1:
            return "reflect", -1 - bounds[0]
        return None
    copies = 1
    if node.target in (aten.repeat.default, aten.expand.default):
        copies = _copies(node, dim)
        node = node.args[0]  # type: ignore[assignment]
    wanted = (-1, END) if last else (0, 1)
    return ("replicate", copies) if copies != 0 and _bounds(node, x, dim) == wanted else None


def _copies(node: Fx, dim: int) -> Any:
    """How often the single frame of a tensor is repeated, perhaps a formula of the length; 0 if anything else is repeated."""
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    same = len(before) == len(after) and all(
        i == dim or a is b or a == b for i, (a, b) in enumerate(zip(before, after, strict=True))
    )
    if not same or before[dim] != 1:
        return 0
    return after[dim] if isinstance(after[dim], int) else node.args[1][dim]  # type: ignore[index]


# ---- frames of one value, as many as the length says ------------------------------------------------------------------------

# where the sizes and the value are among the arguments
CREATIONS: dict[Any, tuple[int, int | None]] = {
    aten.zeros.default: (0, None), aten.new_zeros.default: (1, None), aten.ones.default: (0, None), aten.new_ones.default: (1, None),
    aten.full.default: (0, 1), aten.new_full.default: (1, 2),
}  # fmt: skip


def _filled(node: Fx, parts: list[Any], dim: Any) -> Fx | None:
    """Padding by frames of one value, whose number is a formula of the length. Other padding is an ordinary constant."""
    if not isinstance(dim, int) or not all(isinstance(p, Fx) for p in parts) or len(parts) not in (2, 3):
        return None
    made = [p.target in CREATIONS for p in parts]
    if made.count(False) != 1:
        return None
    i, at = made.index(False), dim % rank(parts[0])
    before, after = ([_made(p, at, parts[i]) for p in side] for side in (parts[:i], parts[i + 1 :]))
    known = [pair for pair in (*before, *after) if pair is not None]
    if len(known) < len(parts) - 1 or max(len(before), len(after)) > 1 or len({value for _, value in known}) != 1:
        return None
    if not any(isinstance(count, Fx) for count, _ in known):
        return None
    amounts = [pair[0][0] if pair and pair[0] else 0 for pair in (before, after)]
    with node.graph.inserting_before(node):
        return node.graph.call_function(
            aten.pad.default, (parts[i], pad_amounts(parts[i], at, *amounts), "constant", known[0][1])
        )


def _made(node: Fx, dim: int, like: Fx) -> tuple[Any, float] | None:
    """The number of frames and the value of a tensor of one value, if it has the dtype of another tensor."""
    sizes, value = CREATIONS[node.target]
    constant = 1.0 if "ones" in str(node.target) else 0.0
    fill: Any = constant if value is None else node.args[value]
    if node.meta["val"].dtype != like.meta["val"].dtype or not isinstance(fill, (int, float)):
        return None
    return node.args[sizes][dim], float(fill)  # type: ignore[index]


# ---- pre-emphasis -----------------------------------------------------------------------------------------------------------


def _emphasised(node: Fx, parts: list[Any], dim: Any) -> Fx | None:
    """``cat((x[:k], x[k:] - a * x[:-k]))`` as ``x - a * pad(x[:-k])``, with zeros before the first frame."""
    if len(parts) != 2 or not isinstance(dim, int) or not all(isinstance(p, Fx) for p in parts):
        return None
    first, rest = parts
    at = dim % rank(first)
    x, bounds = cut_of(first, at)
    if bounds[0] != 0 or not 0 < bounds[1] < END or rest.target is not aten.sub.Tensor or rest.kwargs:
        return None
    count, (later, scaled) = bounds[1], rest.args
    if _bounds(later, x, at) != (count, END) or not isinstance(scaled, Fx) or scaled.target is not aten.mul.Tensor:
        return None
    for place, factor in ((0, 1), (1, 0)):
        earlier, by = scaled.args[place], scaled.args[factor]
        if _bounds(earlier, x, at) == (0, -count) and isinstance(by, (int, float)):
            with node.graph.inserting_before(node):
                shifted = node.graph.call_function(aten.pad.default, (earlier, pad_amounts(x, at, count)))
                product = node.graph.call_function(aten.mul.Tensor, (shifted, by))
                shifted.meta, product.meta = dict(node.meta), dict(node.meta)
                return node.graph.call_function(aten.sub.Tensor, (x, product))
    return None


# ---- slices -----------------------------------------------------------------------------------------------------------------


def _bounds(node: Any, x: Fx, dim: int) -> tuple[int, int] | None:
    """The bounds of a slice of ``x`` in one dimension, if it covers the other dimensions; ``None`` for other nodes."""
    source, bounds = cut_of(node, dim, x)
    return bounds if source is x else None


def _numbers(values: Any) -> list[int]:
    return [int(v) for v in values]
