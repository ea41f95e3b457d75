"""Backends of torch: the network's own operations one by one, or one compiled piece of code."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...core.program.context import FEW, SUMMED
from ...core.state import Wire, rewire
from ...core.step_spec import Nested
from ...errors import ExportError
from ..layouts import flat
from ..planning import Planned
from .base import CompiledCall, exported

ALONE = 1 << 18  # products of a call, up to which one thread is faster than two
IN_PLACE = ("inductor", "aot", "cudagraph")


class _InPlace(torch.nn.Module):
    """A program that writes the new state where the old one was, on a flat list of tensors: what compilers like best."""

    def __init__(self, planned: Planned, x: Wire, active: bool):
        super().__init__()
        self.planned, self.like, self.masked = planned, rewire(lambda _: 0, x), active

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """Which outputs there are, and the outputs. Takes what comes, the clock, the ends, perhaps the active rows, and the state."""
        given = iter(tensors)
        x = _nested(self.like, given)
        clock, end = next(given), next(given)
        active = next(given) if self.masked else None
        held = list(given)
        y, valid, later, fresh = self.planned(x, clock, end, active, held)
        clock.copy_(later)
        for old, new in zip(held, fresh, strict=True):
            old.copy_(new)
        return [valid, *flat(y)]


def _nested(like: Nested[int], tensors: Iterator[Tensor]) -> Wire:
    """Tensors as a wire that is nested like another."""
    return [_nested(w, tensors) for w in like] if isinstance(like, list) else next(tensors)


def eager(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """One operation after another. The state that was given stays as it is."""

    def run(*given: Any) -> Any:
        with torch.no_grad():
            return planned(*given)

    return run


Flat = Callable[[list[Tensor]], Any]  # of flat tensors, as :class:`_InPlace`


def _settled(planned: Planned, run: Flat) -> CompiledCall:
    """A backend that writes in place, as one that returns the state."""
    out = planned.node.out

    def call(x: Wire, clock: Tensor, end: Tensor, active: Tensor | None, held: list[Tensor]) -> Any:
        given = [t.contiguous() for t in flat(x)]  # code is made for these strides
        given += (clock, end) if active is None else (clock, end, active.contiguous())
        with torch.no_grad():
            valid, *y = run(given + held)
        return (_nested(out, iter(y)) if isinstance(out, list) else y[0]), valid, clock, held

    return call


def _flattened(planned: Planned, example: tuple[Any, ...]) -> tuple[torch.export.ExportedProgram, list[Tensor]]:
    """The program that writes in place, and tensors like those of a call."""
    x, clock, end, active, held = example
    tensors = [*flat(x), clock, end, *([] if active is None else [active]), *held]
    program = exported(planned, tuple(tensors), _InPlace(planned, x, active is not None))
    _sum_small_products(program.graph)
    program.graph_module.recompile()
    return program, tensors


def compiler_options(program: torch.export.ExportedProgram, frames: int | None = None) -> dict[str, Any]:
    """How inductor compiles: with weights as constants, in layouts of their own where there are convolutions over space.

    Small networks run on one thread, whatever torch has: starting others costs them more (9 instead of 12 µs for a Conv1d of 64 channels).
    ``frames`` is how many a call has in all rows, ``None`` where that is not known.
    """
    convolutions = (torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default, torch.ops.aten.convolution.default)
    images = any(node.target in convolutions for node in program.graph.nodes)
    small = not images and frames is not None and frames * sum(p.numel() for p in program.parameters()) <= ALONE
    return {"freezing": True, "cpp.weight_prepack": images} | ({"cpp.threads": 1} if small else {})


def _sum_small_products(graph: torch.fx.Graph) -> None:
    """Write linear maps of a few rows as sums: compiled, they fuse with what is around them, and a call to a library costs more."""
    ops = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not ops.linear.default or node.args[0].meta["val"].is_cuda:
            continue
        x, weight, bias = (*node.args, None)[:3]
        shape = x.meta["val"].shape
        if math.prod(shape[:-1]) > FEW or weight.meta["val"].numel() > SUMMED:
            continue
        with graph.inserting_before(node):
            product = graph.call_function(ops.mul.Tensor, (graph.call_function(ops.unsqueeze.default, (x, -2)), weight))
            total = graph.call_function(ops.sum.dim_IntList, (product, [-1]))
            y = total if bias is None else graph.call_function(ops.add.Tensor, (total, bias))
        node.replace_all_uses_with(y)
        y.meta = dict(node.meta)
        graph.erase_node(node)


def inductor(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """``torch.compile``, as one graph. Shapes are checked before, so it has no guards."""
    needs_compiler(example[1].device)
    program, _ = _flattened(planned, example)
    graph = program.module(check_guards=False)
    graph._forward_pre_hooks.clear()  # which would check what is checked
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    graph.recompile()
    options: dict[str, Any] = {
        **compiler_options(program, example[1].numel() * planned.plan.chunk),
        "cpp_wrapper": not example[1].is_cuda,
        "guard_filter_fn": lambda guards: [False] * len(guards),
    }
    compiled = torch.compile(graph.forward, fullgraph=True, dynamic=False, options=options)
    return _settled(planned, lambda tensors: compiled(*tensors))


def cudagraph(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """The compiled code, recorded as a CUDA graph: a step is one launch."""
    clock = example[1]
    if not clock.is_cuda:
        raise ExportError(f"co.compile: backend 'cudagraph' needs a network on a CUDA device, this one is on {clock.device}")
    compiled = inductor(planned, example)
    return _Recorded(compiled, example)


class _Recorded:
    """A call whose tensors stand at fixed addresses."""

    def __init__(self, run: CompiledCall, example: tuple[Any, ...]):
        from torch.utils._pytree import tree_map

        self._given = tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, example)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what is prepared at the first calls is not part of the graph
            for _ in range(3):
                run(*self._given)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = run(*self._given)

    def __call__(self, x: Wire, clock: Tensor, end: Tensor, active: Tensor | None, held: list[Tensor]) -> Any:
        from torch.utils._pytree import tree_leaves, tree_map

        given = (x, clock, end, active, held)
        for own, new in zip(tree_leaves(self._given), tree_leaves(given), strict=True):
            if isinstance(own, Tensor) and own is not new:
                own.copy_(new, non_blocking=True)
        self._graph.replay()
        y, valid = tree_map(lambda t: t.clone(), self._result[:2])
        return y, valid, self._given[1], self._given[4]


def aot(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """An AOTInductor package, made and loaded: its calls cost least."""
    needs_compiler(example[1].device)
    program, _ = _flattened(planned, example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        folder = tempfile.mkdtemp(prefix="continual-")
        try:
            path = torch._inductor.aoti_compile_and_package(
                program,
                package_path=os.path.join(folder, "program.pt2"),
                inductor_configs=compiler_options(program, example[1].numel() * planned.plan.chunk),
            )
            loaded = torch._inductor.aoti_load_package(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return _settled(planned, loaded.loader.run)  # its `__call__` would flatten what is flat


def needs_compiler(device: torch.device, who: str = "co.compile") -> None:
    """Refuse where there is no C++ compiler for code on the CPU."""
    if device.type == "cpu" and not any(shutil.which(c) for c in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if c):
        raise ExportError(
            f"{who}: this compiles C++ code, and there is no compiler (g++ or clang++). Install one"
            + (", or backend='eager'" if who == "co.compile" else ", or another format")
        )
