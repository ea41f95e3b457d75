"""The backends of torch: operations one by one, or compiled code."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves, tree_map

from ...core.program.context import INLINE_ROWS, SUMMED
from ...core.state import Wire, rewire
from ...errors import ExportError
from ...layers.native.product import computes_products
from ..layouts import flat, nested
from ..planning import Planned
from . import attentions, images, products
from .base import CompiledCall, exported
from .cells import write_out_cells
from .native_code import join_relus
from .norms import fold_norms
from .package_cache import loaded

ONE_THREAD = 1 << 18  # products of a call up to which one thread is faster than two


class _InPlace(torch.nn.Module):
    """A program that writes the new state over the old one, on a flat list of tensors: the fastest form for compilers."""

    def __init__(self, planned: Planned, x: Wire, active: bool):
        super().__init__()
        self.planned, self.like, self.masked = planned, rewire(lambda _: 0, x), active

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """From the inputs, the clock, the ends, the active rows if masked, and the state, to ``valid`` and the outputs."""
        inputs = iter(tensors)
        x = nested(self.like, inputs)
        clock, end = next(inputs), next(inputs)
        active = next(inputs) if self.masked else None
        state = list(inputs)
        y, valid, later, new_state = self.planned(x, clock, end, active, state)
        clock.copy_(later)
        for old, new in zip(state, new_state, strict=True):
            old.copy_(new)
        return [valid, *flat(y)]


def eager(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """Run one operation after another. The previous state stays valid."""

    def run(*inputs: Any) -> Any:
        with torch.no_grad():
            return planned(*inputs)

    return run


FlatRun = Callable[[list[Tensor]], Any]  # as :class:`_InPlace`


def _returning_state(planned: Planned, run: FlatRun) -> CompiledCall:
    """A compiled call that returns the state which ``run`` updates in place."""
    out = planned.node.out

    def call(x: Wire, clock: Tensor, end: Tensor, active: Tensor | None, state: list[Tensor]) -> Any:
        inputs = [t.contiguous() for t in flat(x)]  # the code is compiled for these strides
        inputs += (clock, end) if active is None else (clock, end, active.contiguous())
        with torch.no_grad():
            valid, *y = run(inputs + state)
        return nested(out, iter(y)), valid, clock, state

    return call


def _flattened(planned: Planned, example: tuple[Any, ...]) -> tuple[torch.export.ExportedProgram, list[Tensor]]:
    """The program that writes in place, and the arguments of a call."""
    x, clock, end, active, state = example
    tensors = [*flat(x), clock, end, *([] if active is None else [active]), *state]
    program = exported(planned, tuple(tensors), _InPlace(planned, x, active is not None))
    write_out_cells(program)
    _sum_small_products(program.graph)
    use_kernels(program)
    program.graph_module.recompile()
    return program, tensors


def compiler_options(program: torch.export.ExportedProgram, frames: int | None = None) -> dict[str, Any]:
    """Options of inductor: weights are constants, packed if there are convolutions over space.

    Small networks run on one thread, whatever torch has, since starting threads costs them more (9 instead of 12 µs for a Conv1d of 64
    channels). ``frames`` is the number of frames per call in all rows, ``None`` if unknown.
    """
    convolutions = (torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default, torch.ops.aten.convolution.default)
    over_space = any(node.target in convolutions or str(node.target) in images.OWN for node in program.graph.nodes)
    small = not over_space and frames is not None and frames * sum(p.numel() for p in program.parameters()) <= ONE_THREAD
    options = {"freezing": True, "cpp.weight_prepack": over_space} | ({"cpp.threads": 1} if small else {})
    return options | _kernels(program, 1 if small else torch.get_num_threads())


def use_kernels(program: torch.export.ExportedProgram) -> None:
    """Write a program with the operations of this library's kernels, which :func:`compiler_options` makes part of the code."""
    fold_norms(program)
    attentions.use_attention(program)
    images.use_images(program)
    products.use_products(program)
    join_relus(program)


def _kernels(program: torch.export.ExportedProgram, threads: int) -> dict[str, Any]:
    """The option of inductor that makes kernels of this library part of the code."""
    shims = products.code(program, threads) | attentions.code(program, threads) | images.code(program, threads)
    return {"aot_inductor.custom_ops_to_c_shims": shims} if shims else {}


def _linear_layers(graph: Graph) -> Iterator[tuple[Node, Node, Node, Node | None, list[int]]]:
    """The linear layers of a graph: each with its input, weight, bias and the sizes of its rows."""
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.linear.default:
            x, weight, bias = (*node.args, None)[:3]
            yield node, x, weight, bias, list(x.meta["val"].shape[:-1])


def _exchange(node: Node, y: Node) -> None:
    """Put another node in the place of one."""
    node.replace_all_uses_with(y)
    y.meta = dict(node.meta)
    node.graph.erase_node(node)


def _sum_small_products(graph: Graph) -> None:
    """Write linear layers of a few rows as sums: compilers fuse these with their neighbours, and a library call costs more."""
    ops = torch.ops.aten
    for node, x, weight, bias, rows in _linear_layers(graph):
        few = 1 if computes_products(x.meta["val"]) else INLINE_ROWS
        if x.meta["val"].is_cuda or math.prod(rows) > few or weight.meta["val"].numel() > SUMMED:
            continue
        with graph.inserting_before(node):
            product = graph.call_function(ops.mul.Tensor, (graph.call_function(ops.unsqueeze.default, (x, -2)), weight))
            total = graph.call_function(ops.sum.dim_IntList, (product, [-1]))
            y = total if bias is None else graph.call_function(ops.add.Tensor, (total, bias))
        _exchange(node, y)


def inductor(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """Compile by inductor, the compiler of ``torch.compile``, without its guards, which cost more than a small call: :class:`StepProgram`
    checks shapes."""
    needs_compiler(example[1].device)
    program, tensors = _flattened(planned, example)
    graph = program.module(check_guards=False)
    graph._forward_pre_hooks.clear()  # they check shapes again
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    graph.recompile()
    options: dict[str, Any] = {
        **compiler_options(program, example[1].numel() * planned.plan.chunk),
        "cpp_wrapper": not example[1].is_cuda,
    }
    with torch.no_grad():
        compiled: Any = torch._inductor.compile(graph, [*tensors], options=options)
    return _returning_state(planned, lambda tensors: compiled(*tensors))


def cudagraph(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """Record the compiled code as a CUDA graph: a call is one launch."""
    clock = example[1]
    if not clock.is_cuda:
        raise ExportError(f"co.compile: backend 'cudagraph' needs a network on a CUDA device, this one is on {clock.device}")
    compiled = inductor(planned, example)
    return _Recorded(compiled, example)


class _Recorded:
    """A call whose tensors have fixed addresses."""

    def __init__(self, run: CompiledCall, example: tuple[Any, ...]):
        self._inputs = tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, example)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # the preparations of the first calls stay out of the graph
            for _ in range(3):
                run(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = run(*self._inputs)

    def __call__(self, x: Wire, clock: Tensor, end: Tensor, active: Tensor | None, state: list[Tensor]) -> Any:

        inputs = (x, clock, end, active, state)
        for own, new in zip(tree_leaves(self._inputs), tree_leaves(inputs), strict=True):
            if isinstance(own, Tensor) and own is not new:
                own.copy_(new, non_blocking=True)
        self._graph.replay()
        y, valid = tree_map(lambda t: t.clone(), self._result[:2])
        return y, valid, self._inputs[1], self._inputs[4]


def aot(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """Compile an AOTInductor package, or take the one of an earlier run, and load it: the least overhead per call."""
    needs_compiler(example[1].device)
    program, _ = _flattened(planned, example)
    options = compiler_options(program, example[1].numel() * planned.plan.chunk)

    def compile(path: str) -> str:
        return torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=options)

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        package = loaded(program, options, compile)
    return _returning_state(planned, package.loader.run)  # `__call__` would flatten the list again


def needs_compiler(device: torch.device, who: str = "co.compile") -> None:
    """Check that there is a C++ compiler for code on the CPU.

    Raises:
        ExportError: there is none.
    """
    if device.type == "cpu" and not any(shutil.which(c) for c in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if c):
        raise ExportError(
            f"{who}: this compiles C++ code, and there is no compiler (g++ or clang++). Install one"
            + (", or backend='eager'" if who == "co.compile" else ", or another format")
        )
