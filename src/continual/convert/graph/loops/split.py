"""The parts of a loop that need no state. They are computed for all frames at once, before and after the part that carries the state."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node as Fx

from ..row_sizes import Unfollowed
from .cell import NotACell
from .layout import Layout
from .matching import Body, Fixed, Frame, Key, Result
from .simplify import short

PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d", "mm", "bmm", "addmm", "baddbmm", "matmul",
            "einsum", "scaled_dot_product_attention")  # fmt: skip
PIECES = ("slice", "select", "unsqueeze", "squeeze", "view", "permute", "transpose")


@dataclass(frozen=True)
class Computed:
    """An input that a loop reads frame by frame: results of one operation of its iterations, computed for all frames before."""

    key: Key


@dataclass(frozen=True)
class Parts:
    """The stateless parts of a loop.

    Attributes:
        before: operations on frames alone.
        behind: operations on results of the same iteration, which no state depends on.
    """

    before: frozenset[Key] = frozenset()
    behind: frozenset[Key] = frozenset()

    @property
    def all(self) -> frozenset[Key]:
        """All of these operations."""
        return self.before | self.behind


def split(body: Body) -> Parts:
    """Split a loop. What remains reads the results of the part that is computed before it.

    Operations without products stay in the loop: they cost less than to separate frames and join them again.
    """
    if body.first:
        return Parts()
    free = {k for k in body.keys if _rows_alone(body.node[k])}
    before: set[Key] = set()
    for key in body.keys:
        if key in free and all(_of_frame(a) or (isinstance(a, Result) and not a.lag and a.key in before) for a in body.args[key]):
            before.add(key)
    needed = _needed(body)
    behind: set[Key] = set()
    for key in reversed(body.keys):
        arguments = body.args[key]
        here = all(_of_frame(a) or (isinstance(a, Result) and not a.lag) for a in arguments)
        if here and key in free - needed - before and all(other in behind for other in _users(body, key)):
            behind.add(key)
    for key in body.keys:  # of several results, the one that is used is taken where they are computed
        if (
            key in behind
            and body.node[key].target is operator.getitem
            and not all(a.key in behind for a in body.args[key] if isinstance(a, Result))
        ):
            behind.discard(key)
    core = set(body.keys) - before - behind
    if core:
        before = before if _has_products(body, before) else set()
        behind = behind if _has_products(body, behind) else set()
        before = _without_pieces(body, before, behind)
    parts = Parts(frozenset(before), frozenset(behind))
    _rewired(body, parts)
    return parts


def _rows_alone(node: Fx) -> bool:
    """Whether the rows of the batch are one dimension of each result of an operation."""
    val = node.meta.get("val")
    try:
        return all(Layout.of(v).rows is not None for v in (val if isinstance(val, (list, tuple)) else [val]))
    except (NotACell, Unfollowed, AttributeError):
        return False


def _of_frame(a: Any) -> bool:
    """Whether an argument is a frame, or the same for all frames and rows."""
    if isinstance(a, Frame):
        return not a.lag
    if not isinstance(a, Fixed):
        return False
    val = a.value.meta.get("val") if isinstance(a.value, Fx) else None
    try:
        return not isinstance(val, torch.Tensor) or Layout.of(val).rows is None
    except (NotACell, Unfollowed):
        return False


def _needed(body: Body) -> set[Key]:
    """Operations that states depend on."""
    found: set[Key] = set()
    todo = list(body.lags)
    while todo:
        key = todo.pop()
        if key not in found:
            found.add(key)
            todo += [a.key for a in body.args[key] if isinstance(a, Result) and not a.lag]
    return found


def _users(body: Body, key: Key) -> list[Key]:
    return [k for k in body.keys if any(isinstance(a, Result) and a.key == key for a in body.args[k])]


def _has_products(body: Body, keys: set[Key]) -> bool:
    return any(short(body.node[k]) in PRODUCTS for k in keys)


def _without_pieces(body: Body, before: set[Key], behind: set[Key]) -> set[Key]:
    """The operations before the loop, without those that only split a result for it: the loop reads the whole tensor."""
    kept = set(before)
    for key in reversed(body.keys):
        users = _users(body, key)
        piece = short(body.node[key]) in PIECES and any(isinstance(a, Result) for a in body.args[key])
        if key in kept and piece and users and not any(u in kept or u in behind for u in users):
            kept.discard(key)
    return kept


def _rewired(body: Body, parts: Parts) -> None:
    """Let the part that carries the state read the results of the part before it as frames."""
    for key in body.keys:
        if key not in parts.all:
            own = body.args[key]
            body.args[key] = [Frame(Computed(a.key), 0) if isinstance(a, Result) and a.key in parts.before else a for a in own]
