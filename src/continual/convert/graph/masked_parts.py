"""Elements that a mask chooses, as an operation on all elements: ``y[y < 0] = 0`` is ``torch.where(y < 0, 0, y)``.

How many elements a mask chooses depends on values. Nothing depends on their number where they are written back by the same mask, after
operations on each of them or on each of their rows: ``y[m] = linear(x[m])``. The exported graph has these operations on all elements,
and the choice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.fx import Graph
from torch.fx import Node as Fx
from torch.fx.node import map_arg

from .needed_nodes import keep_needed, writes_memory
from .slice_bounds import rank

aten = torch.ops.aten
IN_PLACE = (aten.index_put_.default, aten._index_put_impl_.default)
PUTS = (*IN_PLACE, aten.index_put.default, aten._unsafe_index_put.default)
BY_ROWS = (aten.linear.default, aten.clone.default, aten.alias.default, aten.detach.default, aten.dropout.default, aten.to.dtype)
UNCHOSEN = 0.5  # in the place of what the mask leaves out: most functions, and their gradients, are finite there


class _Mask(NamedTuple):
    """A mask of a tensor's dimensions.

    Attributes:
        node: the mask.
        at: the first dimension that it covers.
        covered: how many dimensions it covers.
    """

    node: Fx
    at: int
    covered: int

    def covers(self, x: Fx, trailing: int) -> bool:
        """Whether a tensor has so many dimensions behind those of the mask."""
        return rank(x) == self.at + self.covered + trailing


def with_masks(graph: Graph) -> None:
    """Exchange the elements that masks choose for all elements."""
    done: dict[Fx, Fx] = {}
    for node in list(graph.nodes):
        if node.target in PUTS and (mask := _mask_of(node.args[1])) is not None and not any(node.args[3:]):
            _put(node, mask, done)
    if done:
        keep_needed(graph)  # not the chosen elements, and what torch says of their number


def _mask_of(indices: Any) -> _Mask | None:
    """The mask that is the only index of a tensor."""
    present = [(i, v) for i, v in enumerate(indices) if v is not None]
    if len(present) != 1 or not isinstance(present[0][1], Fx):
        return None
    at, node = present[0]
    val = node.meta.get("val")
    return _Mask(node, at, val.ndim) if isinstance(val, Tensor) and val.dtype == torch.bool and val.ndim else None


def _put(node: Fx, mask: _Mask, done: dict[Fx, Fx]) -> None:
    """Exchange a write at the places of a mask.

    Args:
        node: the write.
        mask: the mask.
        done: operations on chosen elements, and the same on all elements; takes those that are made.
    """
    x, values = node.args[0], node.args[2]
    if not isinstance(x, Fx) or not isinstance(values, Fx):
        return
    trailing = rank(x) - mask.at - mask.covered
    if not _is_shared(values, trailing):
        if not _can_be_whole(values, mask, trailing):
            return
        values = _whole(values, mask, trailing, done)
    chosen = before(node, aten.where.self, _spread(node, mask, trailing), values, x)
    if node.target in IN_PLACE:
        written = before(node, aten.copy_.default, x, chosen)
        node.replace_all_uses_with(written)
    else:
        node.replace_all_uses_with(chosen)
    node.graph.erase_node(node)


def _is_shared(node: Any, trailing: int) -> bool:
    """Whether a tensor has the same values for all chosen elements."""
    val = node.meta.get("val") if isinstance(node, Fx) else None
    return not isinstance(node, Fx) or not isinstance(val, Tensor) or val.ndim <= trailing


def _can_be_whole(node: Fx, mask: _Mask, trailing: int) -> bool:
    """Whether chosen elements are computed of elements that the same mask chooses, each or each row by itself."""
    if node.target is aten.index.Tensor:
        own, x = _mask_of(node.args[1]), node.args[0]
        return (
            own is not None and isinstance(x, Fx) and own.covers(x, trailing) and own.at == mask.at and _same(own.node, mask.node)
        )
    if not isinstance(node.target, torch._ops.OpOverload) or not _is_by_rows(node, trailing):
        return False
    parts = [n for n in node.all_input_nodes if not _is_shared(n, trailing) and not _is_weight(node, n)]
    return bool(parts) and all(_can_be_whole(n, mask, trailing) for n in parts)


def _same(a: Any, b: Any) -> bool:
    """Whether two nodes compute the same: one is written down twice in ``y[y < 0] = f(y[y < 0])``."""
    if a is b or not (isinstance(a, Fx) and isinstance(b, Fx)):
        return a is b or (type(a) is type(b) and a == b)
    if a.target is not b.target or a.kwargs != b.kwargs or len(a.args) != len(b.args) or a.op != "call_function":
        return False
    return all(map(_same, a.args, b.args)) and not _writes_between(a, b)


def _writes_between(a: Fx, b: Fx) -> bool:
    """Whether anything is written into a tensor between two nodes."""
    first, last = (a, b) if a < b else (b, a)
    while first is not last:
        if writes_memory(first):
            return True
        first = first.next
    return False


def _is_by_rows(node: Fx, trailing: int) -> bool:
    return trailing > 0 if node.target is aten.linear.default else node.target in BY_ROWS or is_pointwise(node)


def is_pointwise(node: Fx) -> bool:
    """Whether an operation computes each element by itself."""
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags


def _is_weight(node: Fx, arg: Fx) -> bool:
    return node.target is aten.linear.default and arg in node.args[1:]


def _whole(node: Fx, mask: _Mask, trailing: int, done: dict[Fx, Fx]) -> Fx:
    """The same operation on all elements, at the same place of the graph: what it reads may be written into later."""
    if node in done:
        return done[node]
    if node.target is aten.index.Tensor:
        x: Any = node.args[0]
        rest: Any = UNCHOSEN if x.meta["val"].is_floating_point() or x.meta["val"].is_complex() else 1
        own: Any = _mask_of(node.args[1])
        made = before(node, aten.where.ScalarOther, _spread(node, own, trailing), x, rest)
    else:
        chosen = {n for n in node.all_input_nodes if not _is_shared(n, trailing) and not _is_weight(node, n)}
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: _whole(n, mask, trailing, done) if n in chosen else n)
        made = before(node, node.target, *args, **kwargs)
    done[node] = made
    return made


def _spread(node: Fx, mask: _Mask, trailing: int) -> Fx:
    """The mask with dimensions of size 1 behind its own."""
    spread = mask.node
    for _ in range(trailing):
        spread = before(node, aten.unsqueeze.default, spread, -1)
    return spread


def before(node: Fx, target: Any, *args: Any, **kwargs: Any) -> Fx:
    """A new operation in front of a node."""
    with node.graph.inserting_before(node):
        made = node.graph.call_function(target, args, kwargs)
    positional, named = map_arg((args, kwargs), lambda n: n.meta["val"])
    fake = detect_fake_mode([n.meta["val"] for n in made.all_input_nodes])
    made.meta = dict(node.meta)
    if target is aten.copy_.default:
        made.meta["val"] = args[0].meta["val"]
    elif fake is not None:
        with fake:
            made.meta["val"] = target(*positional, **named)
    return made
