"""Parts of an exported graph under ``torch.autocast(…, enabled=False)``, which computes them as they are written."""

from __future__ import annotations

from typing import Any

from torch.fx import Graph
from torch.fx import Node as Fx


def inline_parts(graph: Graph) -> None:
    """Put the operations of such parts into the graph itself. An export has each part as a graph of its own."""
    for node in list(graph.nodes):
        if str(node.target) == "wrap_with_autocast" and node.args[2] is False:
            _inline(graph, node)


def _inline(graph: Graph, node: Fx) -> None:
    part: Any = node.args[4]
    owner: Any = graph.owning_module
    inner = owner.get_submodule(part.target).graph
    if any(n.op == "get_attr" for n in inner.nodes):  # parts of its own
        return
    places = [n for n in inner.nodes if n.op == "placeholder"]
    found: dict[Fx, Any] = dict(zip(places, node.args[5:], strict=True))
    with graph.inserting_before(node):
        results = graph.graph_copy(inner, found)
    for user in list(node.users):  # items of the results
        number: Any = user.args[1]
        user.replace_all_uses_with(results[number])  # type: ignore[index, arg-type]
        graph.erase_node(user)
    graph.erase_node(node)
