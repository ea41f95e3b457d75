"""Kernels of this library in compiled programs: their sources become part of the code, with functions in C for their operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.node import map_arg

NAMESPACE = "continual"
Shims = dict[Any, list[str]]  # of operations, in the form of inductor's option ``aot_inductor.custom_ops_to_c_shims``

# What surrounds the loops of a compiled program is compiled at -O1, and without fused products and sums: so would a kernel be.
# As their library is, products take 3 to 11 % less (encoders of 4 layers, CoOadTR-b2), and round as eager steps do.
_EMBEDDED = """"C++" {{
#pragma GCC push_options
#pragma GCC optimize("O2,fp-contract=fast")
#ifndef CONTINUAL_IN_PACKAGE
#define CONTINUAL_IN_PACKAGE
#endif
extern "C" void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned);
{source}
{more}
#pragma GCC pop_options
}}"""


def embedded(source: Path, more: str = "") -> str:
    """The source of a kernel as a declaration. Inductor's own headers stand before it."""
    lines = source.read_text().splitlines(True)
    return _EMBEDDED.format(source="".join(line for line in lines if not line.startswith("#include")), more=more)


def openmp(parallel: int | None, threads: int) -> tuple[str, int]:
    """The runtime that a function in C gives to a kernel, and of how many threads."""
    return ("GOMP_parallel", threads) if threads > 1 and parallel is not None else ("nullptr", 1)


def calls(program: ExportedProgram, *names: str) -> bool:
    """Whether a program calls one of the operations of these names."""
    wanted = {f"{NAMESPACE}.{name}.default" for name in names}
    return any(str(node.target) in wanted for node in program.graph.nodes)


def is_float(node: Any) -> bool:
    """Whether a node gives float32 on the CPU."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.dtype == torch.float32 and value.device.type == "cpu"


def emit(graph: Graph, operation: Any, *args: Any) -> Node:
    """Write an operation whose result will be asked for its shape."""
    node = graph.call_function(operation, args)
    node.meta["val"] = operation(*map_arg(args, lambda n: n.meta["val"]))
    return node


def whole(graph: Graph, node: Node) -> Node:
    """A tensor in one piece of memory."""
    return node if node.meta["val"].is_contiguous() else graph.call_function(torch.ops.aten.contiguous.default, (node,))


def join_relus(program: ExportedProgram) -> None:
    """Leave a ReLU to the product or depthwise convolution before it, which has the numbers in registers."""
    places = {f"{NAMESPACE}.linear.default": 4, f"{NAMESPACE}.image_depthwise.default": 10}  # of `relu` among the arguments
    for node in list(program.graph.nodes):
        if node.target is not torch.ops.aten.relu.default:
            continue
        before: Any = node.args[0]
        turned = before.target is torch.ops.aten.permute.default and len(before.users) == 1
        kernel = before.args[0] if turned else before
        if str(kernel.target) in places and len(kernel.users) == 1:
            kernel.args = (*kernel.args[: places[str(kernel.target)]], True)
            node.replace_all_uses_with(before)
            program.graph.erase_node(node)


def constants(program: ExportedProgram) -> set[Node]:
    """What depends on parameters and buffers alone."""
    signature, found = program.graph_signature, set[Node]()
    kept = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    for node in program.graph.nodes:
        inputs = node.all_input_nodes
        if node.name in kept if node.op == "placeholder" else inputs and found.issuperset(inputs):
            found.add(node)
    return found
