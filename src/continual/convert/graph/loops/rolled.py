"""Modules whose loops over frames are single operations in exports."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.fx import Node as Fx
from torch.utils._pytree import tree_leaves

from ....errors import NotStreamable
from ..capture import Captured, TimeDims, clip_of, fresh, steps_of, tiled
from ..undone import quiet, replaced_forward
from .cell import NotACell
from .matching import Irregular, NotALoop
from .open_rows import capture_rows
from .operation import LOOPS
from .outer import Rolled, rolled
from .parametrised import GraphCall, parametrised
from .simplify import name_of
from .whole import WholeLoop

LENGTHS = ((7, 6), (11, 10), (16, 15), (24, 23), (33, 32))  # of clips that are exported, both so long that iterations repeat
MANY = 20_000  # calls by one line of code on such clips: more are not a loop over frames that an export could hold
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


class RolledModule:
    """What a module computes, with its loops as single operations.

    Attributes:
        numbers: those of its loops.
    """

    def __init__(self, module: nn.Module, captured: Captured, own: Rolled, other: Rolled, steps: tuple[int, int]):
        graph = parametrised(own.graph, other.graph, steps)
        for mine, others in zip(own.loops.values(), other.loops.values(), strict=True):
            if [code(g) for g in (mine.body, *mine.prologue)] != [code(g) for g in (others.body, *others.prologue)]:
                raise NotALoop(
                    "iterations of a loop do something else in clips of another length", "the same operations for all clips"
                )
            WholeLoop.of(mine, False)  # refuses what can't be followed
        self.numbers = tuple(own.loops)
        self._call, self._times = GraphCall(module, captured, graph), captured.time_dims

    def __call__(self, *inputs: Tensor) -> Any:
        """As the module's forward."""
        return self._call(steps_of(inputs, self._times), inputs)


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
        counts = [calls(module, c, MANY) for c in clips]
        if None in counts:
            continue
        if counts[0].total() == counts[1].total():
            return Loops(module, None, refusal)
        try:
            captured = [capture_rows(module, c, time_dim) for c in clips]
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
    steps = steps_of(inputs, times)
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
