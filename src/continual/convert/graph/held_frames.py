"""The first frame of the clip beside all frames: ``x - x[:, :1]`` is relative to where the clip began, as hands and trajectories are.

A stream has its first frame once, and can keep it. The exported graph has an operation that gives it for every frame, where what is
computed of it meets frames element by element.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph
from torch.fx import Node as Fx

from .masked_parts import before, is_pointwise
from .needed_nodes import writes_memory
from .slice_bounds import ALL, limits, rank

aten = torch.ops.aten
_library = torch.library.Library("continual", "FRAGMENT")
_library.define("held(Tensor x, int dim) -> Tensor")
_library.impl("held", lambda x, dim: x.narrow(dim, 0, 1).expand_as(x).clone(), "CompositeExplicitAutograd")
_library.impl("held", lambda x, dim: torch.empty_like(x), "Meta")
HELD = torch.ops.continual.held.default
REPEATS = (aten.expand.default, aten.expand_as.default, aten.repeat.default)


def with_held(graph: Graph) -> None:
    """Exchange first frames that meet all frames."""
    for node in list(graph.nodes):
        selected = node.target is aten.select.int and node.args[2] == 0
        if not selected and not (node.target is aten.slice.Tensor and limits(node) == (0, 1)):
            continue
        x: Any = node.args[0]
        at = cast(int, node.args[1]) % rank(x)
        found = _Region(rank(x) - 1 - at)
        if isinstance(x.meta["val"].shape[at], torch.SymInt) and not _is_written_later(x, node) and found.meets(node, selected):
            found.exchange(node, before(node, HELD, x, at))


def _is_written_later(x: Fx, node: Fx) -> bool:
    """Whether anything is written into a tensor behind a node, which is a view of it."""
    memory = x.meta["val"].untyped_storage()._cdata
    writes = (n for n in x.graph.nodes if n > node and writes_memory(n))
    return any(n.args[0].meta["val"].untyped_storage()._cdata == memory for n in writes)


class _Region:
    """What is computed of a first frame before it meets all frames.

    Args:
        behind: the number of dimensions behind that of time.
    """

    def __init__(self, behind: int):
        self._behind = behind
        self._computed: dict[Fx, None] = {}
        self._passed: list[Fx] = []  # what gives the frame a dimension of time, or repeats it

    def meets(self, node: Fx, selected: bool) -> bool:
        """Whether all that is computed of a node, element by element or channel by channel, meets all frames.

        Args:
            node: the first frame, or what is computed of it.
            selected: it has no dimension of time.
        """
        return bool(node.users) and all(self._goes_on(node, user, selected) for user in node.users)

    def exchange(self, node: Fx, held: Fx) -> None:
        """Compute the same of the first frame that is there for each frame."""
        node.replace_all_uses_with(held)
        for inner in (n for n in held.graph.nodes if n in self._computed or n in self._passed):
            value: Any = inner.args[0] if inner in self._passed else before(inner, inner.target, *inner.args, **inner.kwargs)
            inner.replace_all_uses_with(value)

    def _goes_on(self, node: Fx, user: Fx, selected: bool) -> bool:
        val, own = user.meta.get("val"), node.meta["val"]
        if not isinstance(val, Tensor) or val.ndim < self._behind + (not selected):
            return False
        if selected and user.target is aten.unsqueeze.default:
            self._passed.append(user)
            return cast(int, user.args[1]) % val.ndim == val.ndim - 1 - self._behind and self.meets(user, False)
        if selected:
            values = (n.meta["val"] for n in user.all_input_nodes if n is not node)
            fits = all(isinstance(v, Tensor) and v.ndim <= self._behind for v in values)
            return self._is_local(user) and (fits or user.target is aten.linear.default) and self._computes(user, True)
        time = val.shape[-1 - self._behind]
        if user.target in REPEATS and isinstance(time, torch.SymInt):
            self._passed.append(user)
            sizes = zip(own.shape, val.shape, strict=True) if own.ndim == val.ndim else [(0, 1)]
            return all(a is b or a == b or i == val.ndim - 1 - self._behind for i, (a, b) in enumerate(sizes))
        if is_pointwise(user) and isinstance(time, torch.SymInt):
            return True
        return time == 1 and (self._is_local(user) or self._is_part(user)) and self._computes(user, False)

    def _computes(self, user: Fx, selected: bool) -> bool:
        self._computed[user] = None
        return self.meets(user, selected)

    def _is_local(self, user: Fx) -> bool:
        everything = user.target is aten.slice.Tensor and limits(user) == ALL
        return is_pointwise(user) or everything or (user.target is aten.linear.default and self._behind > 0)

    def _is_part(self, user: Fx) -> bool:
        """Whether it is a slice of another dimension."""
        return user.target is aten.slice.Tensor and cast(int, user.args[1]) % rank(user) != rank(user) - 1 - self._behind
