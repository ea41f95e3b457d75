"""The part of an exported graph that outputs depend on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import Graph
from torch.fx import Node as Fx


def needed_nodes(graph: Graph) -> set[Fx]:
    """The nodes on which outputs depend, also by writes into tensors. A loss that nobody asks for need not stream.

    A write is needed where another needed node has the same memory: it may read what was written. What has effects of its own, such as an
    assertion, is needed.
    """
    found, memory = set[Fx](), set[int]()
    writes = [node for node in graph.nodes if writes_memory(node)]
    todo = [
        n for n in graph.nodes if n.op in ("output", "placeholder") or (n.is_impure(impure_random=False) and not writes_memory(n))
    ]
    while todo:
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                memory.update(_memory(node))
                todo += node.all_input_nodes
        todo = [w for w in writes if w not in found and not memory.isdisjoint(_memory(w))]
    return found


def writes_memory(node: Fx) -> bool:
    """Whether an operation writes into a tensor that it takes."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _memory(node: Fx) -> Iterator[int]:
    """Where the tensors that a node gives, or writes into, lie."""
    for value in (node, *(node.all_input_nodes if writes_memory(node) else ())):
        val = value.meta.get("val")
        for v in val if isinstance(val, (list, tuple)) else [val]:
            if isinstance(v, Tensor) and v.layout == torch.strided:
                yield v.untyped_storage()._cdata
