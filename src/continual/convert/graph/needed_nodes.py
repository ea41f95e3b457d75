"""The part of an exported graph on which outputs depend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.fx import Node as Fx


def keep_needed(graph: Graph) -> None:
    """Erase the nodes on which no output depends."""
    needed = needed_nodes(graph)
    for node in reversed(graph.nodes):
        if node not in needed:
            graph.erase_node(node)


def needed_nodes(graph: Graph) -> set[Fx]:
    """The nodes on which outputs depend, also by writes into tensors. A loss that nobody asks for need not stream.

    A write is needed where a needed node reads the same memory later, or an input of the graph has it. Of what has effects of its own
    assertions alone are not needed: they are of the example.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    needed, read = set[Fx](), dict[int, int]()  # where memory is read last by needed nodes
    writes = [node for node in graph.nodes if writes_memory(node)]
    todo = [
        n for n in graph.nodes if n.op in ("output", "placeholder") or (n.is_impure(impure_random=False) and not _is_aside(n))
    ]
    while todo:
        while todo:
            node = todo.pop()
            if node not in needed:
                needed.add(node)
                for source in (node, *node.all_input_nodes):
                    at = len(order) if source.op == "placeholder" else order[node]
                    read |= {m: max(at, read.get(m, -1)) for m in _memory(source)}
                todo += node.all_input_nodes
        todo = [w for w in writes if w not in needed and any(read.get(m, -1) > order[w] for m in _written(w))]
    return needed


def asserts(name: str) -> bool:
    """Whether an operation only checks a condition."""
    return "_assert" in name or name.startswith("aten.sym_constrain")


def _is_aside(node: Fx) -> bool:
    """Whether it has side effects that outputs may not need."""
    return writes_memory(node) or asserts(str(node.target))


def writes_memory(node: Fx) -> bool:
    """Whether an operation writes into a tensor that it takes."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _written(node: Fx) -> Iterator[int]:
    """The memory that a node writes into."""
    arguments: Any = node.target._schema.arguments  # type: ignore[union-attr]
    by_name = dict(zip((a.name for a in arguments), node.args, strict=False)) | dict(node.kwargs)
    for argument in arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            found = by_name.get(argument.name)
            for source in found if isinstance(found, (list, tuple)) else [found]:
                if isinstance(source, Fx):
                    yield from _memory(source)


def _memory(node: Fx) -> Iterator[int]:
    """The memory of the tensors that a node returns."""
    val = node.meta.get("val")
    for v in val if isinstance(val, (list, tuple)) else [val]:
        if isinstance(v, Tensor) and v.layout == torch.strided:
            yield v.untyped_storage()._cdata
