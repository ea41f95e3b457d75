"""Modules whose loops over frames are single operations in exports."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Interpreter
from torch.fx import Node as Fx
from torch.fx import traceback as fx_traceback
from torch.utils._pytree import tree_leaves, tree_unflatten

from ....errors import NotStreamable
from ..capture import Captured, TimeDims, capture_window, clip_of, fresh, quiet, replaced_forward, tiled
from .cell import NotACell
from .matching import Irregular, NotALoop
from .operation import LOOPS
from .outer import Rolled, rolled
from .simplify import name_of

LENGTHS = ((7, 6), (11, 10), (16, 15), (24, 23), (33, 32))  # of clips that are exported, both so long that iterations repeat
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


class RolledModule:
    """What a module computes, with its loops as single operations.

    Attributes:
        graph: the graph around the loops, whose places are parameters, constants and inputs.
        numbers: those of its loops.
    """

    def __init__(self, module: nn.Module, captured: Captured, own: Rolled, other: Rolled, steps: tuple[int, int]):
        self.graph = parametrised(own.graph, other.graph, steps)
        for mine, others in zip(own.loops.values(), other.loops.values(), strict=True):
            if [code(g) for g in (mine.body, *mine.prologue)] != [code(g) for g in (others.body, *others.prologue)]:
                raise NotALoop(
                    "iterations of a loop do something else in clips of another length", "the same operations for all clips"
                )
        self.numbers = tuple(own.loops)
        self._module, self._captured = module, captured
        signature = captured.program.graph_signature
        self._inputs = signature.user_inputs
        self._of = dict(signature.inputs_to_parameters) | dict(signature.inputs_to_buffers)
        self._constants = dict(signature.inputs_to_lifted_tensor_constants)
        self._machine = GraphModule(nn.Module(), self.graph)

    def __call__(self, *inputs: Tensor) -> Any:
        """As the module's forward."""
        given = iter(inputs)
        captured, prefix = self._captured, self._captured.prefix
        streams = [i for i, t in enumerate(captured.time_dims) if t is not None]
        first = streams[0]
        values: list[Any] = [inputs[first].shape[captured.time_dims[first] or 0]]
        for node in self.graph.nodes:
            if node.op != "placeholder" or node.name == LENGTH:
                continue
            if node.name in self._inputs:
                values.append(next(given))
            elif node.name in self._of:
                values.append(_tensor(self._module, self._of[node.name].removeprefix(prefix)))
            else:
                values.append(captured.program.constants[self._constants[node.name]])
        with fx_traceback.preserve_node_meta():
            found = Interpreter(self._machine).run(*values)
        spec = captured.program.call_spec.out_spec
        return tree_unflatten(list(found), spec) if spec is not None else found[0]


LENGTH = "length_of_the_clip"


def _tensor(module: nn.Module, name: str) -> Tensor:
    path, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(path), last)
    return found


def parametrised(own: Graph, other: Graph, steps: tuple[int, int]) -> Graph:
    """A graph for clips of any length, of two for clips of one.

    Raises:
        NotALoop: they are not alike.
    """
    graph = Graph()
    length = graph.placeholder(LENGTH)
    env: dict[Fx, Fx] = {}
    mine, others = list(own.nodes), list(other.nodes)
    if len(mine) != len(others):
        raise _differs()
    same = dict(zip(mine, others, strict=True))

    def value(a: Any, b: Any) -> Any:
        if isinstance(a, Fx):
            if same[a] is not b:
                raise _differs()
            return env[a]
        if isinstance(a, (list, tuple)):
            if not isinstance(b, (list, tuple)) or len(a) != len(b):
                raise _differs()
            return [value(x, y) for x, y in zip(a, b, strict=True)]
        if type(a) is int and type(b) is int and a != b:
            return _affine(graph, length, a, b, steps)
        if isinstance(a, torch.SymInt):
            return a
        if a != b and not (isinstance(a, float) and a != a):
            raise _differs()
        return a

    for a, b in same.items():
        if a.op != b.op or name_of(a) != name_of(b):
            raise _differs()
        if a.op == "placeholder":
            env[a] = graph.placeholder(a.name)
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


def _affine(graph: Graph, length: Fx, a: int, b: int, steps: tuple[int, int]) -> Any:
    """A number of the clip's length, of its values for two lengths."""
    rate, rest = divmod(b - a, steps[1] - steps[0])
    if rest:
        raise NotALoop(
            f"a size is {a} for clips of {steps[0]} frames, {b} for {steps[1]}: it does not grow with the clip alone",
            "sizes that grow with the clip",
        )
    product = length if rate == 1 else graph.call_function(operator.mul, (length, rate))
    more = a - rate * steps[0]
    return graph.call_function(operator.add, (product, more)) if more else product


def _differs() -> NotALoop:
    return NotALoop("the module does something else for clips of another length", "the same operations for all clips")


def code(graph: Graph) -> list[Any]:
    """A graph in a form that can be compared with another one."""
    number = {n: i for i, n in enumerate(graph.nodes)}

    def plain(value: Any) -> Any:
        if isinstance(value, Fx):
            return "node", number[value]
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return str(value) if not isinstance(value, torch.SymInt) else "size"

    return [(n.op, name_of(n), plain(n.args), plain(list(n.kwargs.items()))) for n in graph.nodes]


# ---- what a conversion does with it --------------------------------------------------------------------------------------


class Loops:
    """What is known of the loops of a module.

    Attributes:
        rolled: what the module computes, with its loops as single operations; ``None`` if it has none, or they can't be.
        refusal: why they can't be.
    """

    def __init__(self, module: nn.Module, found: RolledModule | None = None, refusal: NotALoop | None = None):
        self.rolled, self.refusal, self._module = found, refusal, module

    @contextlib.contextmanager
    def exporting(self) -> Iterator[None]:
        """Exports of the module under this context have its loops as single operations."""
        if self.rolled is None:
            yield
            return
        forward, own = self._module.forward, self.rolled

        @functools.wraps(forward)
        def routed(*args: Any, **kwargs: Any) -> Any:
            whole = torch.compiler.is_exporting() and not kwargs
            return own(*args) if whole else forward(*args, **kwargs)

        with replaced_forward(self._module, routed):
            yield

    def close(self) -> None:
        """Forget the loops."""
        for number in self.rolled.numbers if self.rolled is not None else ():
            LOOPS.pop(number, None)


def loops_of(module: nn.Module, clip: Sequence[Tensor], time_dim: TimeDims, calls: Callable[..., Any]) -> Loops:
    """Find the loops of a module over the frames of a clip.

    Args:
        calls: gives the number of calls of each line of code on a clip; ``None`` if the module refuses it.
    """
    inputs, times, batches = tiled(module, clip, time_dim)
    refusal: NotALoop | None = None
    for steps in LENGTHS:
        clips = [clip_of(inputs, times, batches, n, 2) for n in steps]
        counts = [calls(module, c) for c in clips]
        if None in counts:
            continue
        if counts[0].total() == counts[1].total():
            return Loops(module)
        try:
            captured = [capture_window(module, c, time_dim) for c in clips]
            own, other = map(rolled, captured)
            if own is None or other is None:
                return Loops(module)
            found = RolledModule(module, captured[0], own, other, steps)
            _compare(module, found, inputs, times, batches)
            return Loops(module, found)
        except NotACell as error:
            why = f"a loop over frames can't be followed: {error}"
            refusal = refusal or NotALoop(why, "operations that keep the rows of the batch apart")
        except NotALoop as error:
            refusal = refusal or error
            if not isinstance(error, Irregular):
                break
        except NotStreamable:
            return Loops(module)
    return Loops(module, None, refusal)


def _compare(module: nn.Module, found: RolledModule, inputs: Any, times: Any, batches: Any) -> None:
    """Refuse loops that give something else than the module, on a clip as long as the example or longer."""
    steps = next(x.shape[t] for x, t in zip(inputs, times, strict=True) if t is not None)
    for n in (steps, steps + steps // 2 + 3):
        clip = clip_of(inputs, times, batches, n, 2)
        with torch.no_grad(), quiet():
            try:
                want = tree_leaves(module(*fresh(clip)))
            except Exception:  # not a length of this module
                continue
            got = tree_leaves(found(*fresh(clip)))
        for a, b in zip(got, want, strict=True):
            if isinstance(b, Tensor) and (a.shape != b.shape or _off(a, b) > TOLERANCES.get(b.dtype, 5e-2)):
                raise NotALoop(
                    f"the module does something else with a clip of {n} frames", "the same operations for all clips and frames"
                )


def _off(a: Tensor, b: Tensor) -> float:
    if not b.numel():
        return 0.0
    a, b = a.to(torch.float64).nan_to_num(0.0), b.to(torch.float64).nan_to_num(0.0)
    return float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
