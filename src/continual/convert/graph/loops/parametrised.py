"""A graph for any length or any number of rows, made from two graphs for one number each."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter
from torch.fx import Node as Fx
from torch.fx import traceback as fx_traceback
from torch.utils._pytree import tree_unflatten

from ..capture import Captured
from .matching import NotALoop
from .simplify import name_of

NUMBER = "number_that_graphs_differ_in"


def parametrised(own: Graph, other: Graph, numbers: tuple[int, int], what: str = "frames", grows_at: int | None = None) -> Graph:
    """A graph with one more placeholder: the number on which sizes depend.

    Args:
        own, other: what a module computes of clips that differ in that number.
        numbers: the number for each of them.
        what: of what it is the number, for messages.
        grows_at: a number at which sizes grow; they grow again after each difference of the two numbers. ``None``: sizes grow with
            every number.

    Raises:
        NotALoop: they are not alike.
    """
    graph = Graph()
    number = graph.placeholder(NUMBER)
    env: dict[Fx, Fx] = {}
    mine, others = list(own.nodes), list(other.nodes)
    if len(mine) != len(others):
        raise _differs(what)
    same = dict(zip(mine, others, strict=True))

    def value(a: Any, b: Any) -> Any:
        if isinstance(a, Fx):
            if same[a] is not b:
                raise _differs(what)
            return env[a]
        if isinstance(a, (list, tuple)):
            if not isinstance(b, (list, tuple)) or len(a) != len(b):
                raise _differs(what)
            return [value(x, y) for x, y in zip(a, b, strict=True)]
        if type(a) is int and type(b) is int and a != b:
            return _affine(graph, number, (a, b), numbers, what, grows_at)
        if isinstance(a, torch.SymInt):
            return a
        if a != b and not (isinstance(a, float) and a != a):
            raise _differs(what)
        return a

    for a, b in same.items():
        if a.op != b.op or name_of(a) != name_of(b):
            raise _differs(what)
        if a.op == "placeholder":
            env[a] = graph.placeholder(str(a.target))
        elif a.op == "output":
            graph.output(value(a.args[0], b.args[0]))
        else:
            loop = name_of(a) == "continual.loop.default"
            args = [x if loop and i == 3 else value(x, b.args[i]) for i, x in enumerate(a.args)]
            kwargs = {k: value(v, b.kwargs.get(k)) for k, v in a.kwargs.items()}
            env[a] = graph.call_function(a.target, tuple(args), kwargs)
        if a in env:
            env[a].meta = {k: v for k, v in a.meta.items() if k in ("stack_trace", "nn_module_stack")}
    return graph


def _affine(graph: Graph, number: Fx, sizes: tuple[int, int], numbers: tuple[int, int], what: str, grows_at: int | None) -> Any:
    """A size, from its values for two numbers."""
    growth, distance = sizes[0] - sizes[1], numbers[0] - numbers[1]
    if grows_at is not None:
        grown = graph.call_function(operator.sub, (number, grows_at)) if grows_at else number
        grown = graph.call_function(operator.floordiv, (grown, distance))
        rate, more = growth, sizes[0] - growth * ((numbers[0] - grows_at) // distance)
    elif growth % distance:
        raise NotALoop(
            f"a size is {sizes[0]} for clips of {numbers[0]} {what}, {sizes[1]} for {numbers[1]}: it does not grow with the clip alone",
            "sizes that grow with the clip",
        )
    else:
        grown, rate, more = number, growth // distance, sizes[0] - growth // distance * numbers[0]
    product = grown if rate == 1 else graph.call_function(operator.mul, (grown, rate))
    return graph.call_function(operator.add, (product, more)) if more else product


def _differs(what: str) -> NotALoop:
    return NotALoop(f"the module does something else for clips of another number of {what}", "the same operations for all clips")


class GraphCall:
    """Runs a graph with a number as its argument, on a module's own parameters.

    Args:
        module: whose parameters they are.
        captured: the export that the graph was made of.
        graph: with the places of the exported graph, and one for the number.
    """

    def __init__(self, module: nn.Module, captured: Captured, graph: Graph):
        self._module, self._captured, self._machine = module, captured, GraphModule(nn.Module(), graph)
        signature = captured.program.graph_signature
        self._inputs = signature.user_inputs
        self._of = dict(signature.inputs_to_parameters) | dict(signature.inputs_to_buffers)
        self._constants = dict(signature.inputs_to_lifted_tensor_constants)

    def __call__(self, number: Any, inputs: tuple[Tensor, ...]) -> Any:
        """As the module's forward.

        Args:
            number: that the graph depends on.
            inputs: of the module.
        """
        remaining, captured = iter(inputs), self._captured
        values: list[Any] = [number]
        for node in self._machine.graph.nodes:
            if node.op != "placeholder" or node.target == NUMBER:
                continue
            if node.target in self._inputs:
                values.append(next(remaining))
            elif node.target in self._of:
                values.append(_tensor(self._module, self._of[str(node.target)].removeprefix(captured.prefix)))
            else:
                values.append(captured.program.constants[self._constants[str(node.target)]])
        with fx_traceback.preserve_node_meta():
            found = Interpreter(self._machine).run(*values)
        spec = captured.program.call_spec.out_spec
        return tree_unflatten(list(found), spec) if spec is not None else found[0]


def _tensor(module: nn.Module, name: str) -> Tensor:
    path, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(path), last)
    return found
