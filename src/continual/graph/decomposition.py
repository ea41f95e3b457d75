"""Operations that have no rule, taken apart into operations that may have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.fx import Graph, GraphModule
from torch.fx import Node as Fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from .program import resolve
from .values import Value


def taken_apart(node: Fx, name: str) -> GraphModule | None:
    """The graph of what torch itself makes of an operation, of the same inputs; ``None`` if it is one of the basic ones.

    Args:
        node: a call of the operation, whose inputs carry examples of their values.
        name: of the operation, ``"aten.tensordot.default"``; that of the node, or what it writes.
    """
    op: Any = resolve(name)
    if op._can_decompose():
        fn: Any = op.decompose
    elif op in decomposition_table:
        fn = decomposition_table[op]
    else:
        return None
    inputs = node.all_input_nodes
    examples = [n.meta.get("val") for n in inputs]
    if any(v is None or isinstance(v, (list, tuple)) for v in examples):
        return None

    def call(*values: Any) -> Any:
        given = dict(zip(inputs, values, strict=True))
        args, kwargs = map_arg(node.args, given.__getitem__), map_arg(node.kwargs, given.__getitem__)
        return fn(*args, **kwargs)

    try:
        with torch.no_grad():
            made = make_fx(call)(*examples)
    except Exception:  # whatever goes wrong in torch: then the operation has no rule
        return None
    made.graph.eliminate_dead_code()
    if not _smaller(made.graph, op):
        return None
    for inner in made.graph.nodes:
        inner._rename(f"{node.name}_{inner.name}")
        inner.meta |= {k: node.meta[k] for k in ("stack_trace", "nn_module_stack") if k in node.meta}
    return made


def _smaller(graph: Graph, op: Any) -> bool:
    """Whether the operation itself is not among the parts."""
    return all(n.target is not op for n in graph.nodes)


def paired(given: Any, value: Value) -> Iterator[tuple[Fx, Value]]:
    """The nodes in an argument, and their values."""
    if isinstance(given, Fx):
        yield given, value
    elif isinstance(given, (list, tuple)):
        for g, v in zip(given, value, strict=True):
            yield from paired(g, v)
