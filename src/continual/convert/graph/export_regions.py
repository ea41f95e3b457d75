"""Code under ``torch.autocast``, under other modes of gradients or in ``torch.vmap``, which `torch.export` keeps apart."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx import GraphModule
from torch.fx import Node as Fx

AUTOCAST, GRADIENTS = torch.ops.higher_order.wrap_with_autocast, torch.ops.higher_order.wrap_with_set_grad_enabled
BODY = {AUTOCAST: 4, GRADIENTS: 1}  # behind the settings: the place of the graph, before the values that it takes


def without_regions(program: ExportedProgram) -> ExportedProgram:
    """The program with the operations of a region in its place, where the region leaves what they compute as it is.

    Autocast that is switched off does, and autocast for another kind of device than the example's. The program is changed.
    """
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    devices = {v.device.type for v in values if isinstance(v, torch.Tensor)}
    if _inlined(program.graph_module, devices):
        outputs = program.graph.output_node().args[0]
        for spec, node in zip(program.graph_signature.output_specs, outputs, strict=True):
            if isinstance(spec.arg, TensorArgument) and isinstance(node, Fx):
                spec.arg = dataclasses.replace(spec.arg, name=node.name)
    return program


def without_vmap(program: ExportedProgram) -> ExportedProgram:
    """The program with operations on whole tensors in the place of those that ``torch.vmap`` does on parts of them."""
    found = any(getattr(node.target, "__name__", "") == "_add_batch_dim" for node in program.graph.nodes)
    return program.run_decompositions({}) if found else program


def why_region(node: Fx) -> tuple[str, str] | None:
    """Why the code of a region does not stream, and what to write instead; ``None`` for other operations."""
    if node.target is not AUTOCAST:
        return None
    return (
        f"switches autocast to {node.args[1]} on, which decides by the operation in which dtype it is computed",
        f"leave autocast out of forward, and convert the module in that dtype: module.to({node.args[1]})",
    )


def _inlined(module: GraphModule, devices: Collection[str]) -> bool:
    graph, found = module.graph, False
    for node in list(graph.nodes):
        if node.target not in BODY or (node.target is AUTOCAST and node.args[2] and node.args[0] in devices):
            continue
        place = BODY[node.target]
        body, operands = node.args[place], node.args[place + 1 :]
        part = getattr(module, body.target)
        _inlined(part, devices)
        arrive = [n for n in part.graph.nodes if n.op == "placeholder"]
        with graph.inserting_before(node):
            values: Any = graph.graph_copy(part.graph, dict(zip(arrive, operands, strict=True)))
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(values[user.args[1]])
                graph.erase_node(user)
        graph.erase_node(node)
        graph.erase_node(body)
        found = True
    if found:
        module.recompile()
    return found
