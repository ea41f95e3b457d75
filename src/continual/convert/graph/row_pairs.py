"""Two exports of a module that reads the batch size as a plain number, ``y.reshape(len(x), -1)``: for two batch sizes.

Each is valid for its batch size alone. A number in which they differ is a multiple of the batch size, plus a constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node as Fx
from torch.fx.immutable_collections import immutable_dict, immutable_list

from .exec_context import Count
from .row_sizes import ROW_ARGS, ROW_SIZES, known


class Unlike(Exception):
    """Two exports differ in more than numbers."""


def pair_rows(program: ExportedProgram, other: ExportedProgram, rows: int, others: int) -> None:
    """Note the numbers of an export that grow with the rows, as :class:`Count`; nothing is noted if the exports differ otherwise.

    Args:
        program: for one number of rows; its nodes get the notes.
        other: for others.
    """
    nodes, counterparts = list(program.graph.nodes), list(other.graph.nodes)
    found: list[tuple[Fx, Any, Any]] = []
    pair = _Pair(dict(zip(counterparts, nodes, strict=False)), rows, others)
    try:
        if len(nodes) != len(counterparts) or not _alike(program.constants, other.constants):
            return
        for a, b in zip(nodes, counterparts, strict=True):
            inner = a.op == "get_attr" or str(a.target).startswith("continual.")  # which have graphs of their own
            if inner or (a.op, str(a.target)) != (b.op, str(b.target)):
                return
            args = pair.of((tuple(a.args), dict(a.kwargs)), (tuple(b.args), dict(b.kwargs)))
            found.append((a, args, pair.sizes(a.meta.get("val"), b.meta.get("val"))))
    except Unlike:
        return
    for node, args, sizes in found:
        node.meta |= {ROW_ARGS: args} | ({} if sizes is None else {ROW_SIZES: sizes})


class _Pair:
    """Compares corresponding nodes and arguments of two exports.

    Args:
        node_of: for each node of the second, that of the first.
        rows, others: of the first and the second.
    """

    def __init__(self, node_of: Mapping[Fx, Fx], rows: int, others: int):
        self._node_of, self._rows, self._step = node_of, rows, others - rows

    def of(self, a: Any, b: Any) -> Any:
        """Arguments with counts in the place of numbers that differ."""
        if isinstance(a, Fx):
            if self._node_of.get(b) is not a:
                raise Unlike
            return a
        if isinstance(a, (list, tuple)):
            if not isinstance(b, (list, tuple)) or len(a) != len(b):
                raise Unlike
            parts = [self.of(x, y) for x, y in zip(a, b, strict=True)]
            return parts if isinstance(a, (list, immutable_list)) else tuple(parts)
        if isinstance(a, (dict, immutable_dict)):
            return {k: self.of(v, b[k]) for k, v in a.items()}
        return self.number(a, b) if type(a) is type(b) is int else self._same(a, b)

    def number(self, a: int, b: int) -> int | Count:
        """A number, or how it grows."""
        rate, rest = divmod(b - a, self._step)
        if rest or rate < 0:
            raise Unlike
        return Count(rate, a - rate * self._rows) if rate else a

    def sizes(self, a: Any, b: Any) -> list[tuple[int | Count, ...]] | None:
        """The sizes of each tensor that a node gives."""
        if isinstance(a, Tensor):
            a, b = [a], [b]
        if not isinstance(a, (list, tuple)):
            return None
        pairs = zip(a, b, strict=True)
        return [tuple(map(self.number, map(_plain, x.shape), map(_plain, y.shape))) for x, y in pairs if isinstance(x, Tensor)]

    @staticmethod
    def _same(a: Any, b: Any) -> Any:
        if type(a) is not type(b) or (not isinstance(a, torch.SymInt) and a != b):
            raise Unlike
        return a


def _plain(size: Any) -> int:
    found = known(size)
    if isinstance(found, Count):
        raise Unlike
    return found


def _alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether the constants of two exports are the same."""
    return a.keys() == b.keys() and all(not isinstance(x, Tensor) or torch.equal(x, b[n]) for n, x in a.items())


def with_more_rows(inputs: Sequence[Tensor], batches: Sequence[int | None]) -> tuple[Tensor, ...]:
    """The example with a row more."""
    return tuple(x if b is None else torch.cat((x, x.narrow(b, 0, 1)), b) for x, b in zip(inputs, batches, strict=True))
