"""Modules whose loops over frames are single operations in exports."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from .matching import Irregular, NotALoop, NothingDone
from .open_rows import capture_rows
from .operation import LOOPS
from .outer import Rolled, rolled
from .paces import SHORTEST, Pace, pace_of
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

    def __init__(
        self,
        module: nn.Module,
        captured: Captured,
        own: Rolled,
        other: Rolled,
        steps: tuple[int, int],
        grows_at: int | None = None,
    ):
        graph = parametrised(own.graph, other.graph, steps, grows_at=grows_at)
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
    """The known facts about the loops of a module.

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
    return _Search(module, clip, time_dim, calls).run()


class _Search:
    """Looks for loops in exports of short clips, of which two show what depends on the length.

    Args:
        module, clip, time_dim, calls: as of :func:`loops_of`.
    """

    def __init__(self, module: nn.Module, clip: Sequence[Tensor], time_dim: TimeDims, calls: Callable[..., Any]):
        self._module, self._time_dim, self._calls = module, time_dim, calls
        self._inputs, self._times, self._batches = tiled(module, clip, time_dim)
        self._steps = steps_of(self._inputs, self._times)
        self._totals: dict[int, int | None] = {}
        self._refusal: NotALoop | None = None

    def run(self) -> Loops:
        """The loops that are found, or the refusal."""
        found = self._first(LENGTHS)
        if found is None and self._refusal is None and self._grows():
            # perhaps an iteration takes several frames, or the loop is behind temporal strides
            pace = pace_of(self._total, self._steps)
            found = self._at(pace) if pace is not None and pace.frames > 1 else None
        return Loops(self._module, found, None if found is not None else self._refusal)

    def _at(self, pace: Pace) -> RolledModule | None:
        """Loops whose iterations take several frames."""
        found = self._first(pace.clips(), pace)
        known = isinstance(self._refusal, NothingDone)
        if (
            found is None
            and not known
            and pace.unit < pace.frames
            and any(self._rolls(steps, pace) for steps in pace.clips(full=True))
        ):
            why = f"an iteration takes {pace.frames} frames, and the last one fewer if the clip ends within it: a stream has no last one"
            crop = f"leave the rest out before the loop: x[:, :, : T // {pace.frames} * {pace.frames}] for a clip x of T frames"
            self._refusal = NotALoop(why, crop)
        return found

    def _first(self, lengths: Iterable[tuple[int, int]], pace: Pace | None = None) -> RolledModule | None:
        """The loops that are found on the first lengths that show any; ``None`` if no length does.

        Args:
            lengths: of two clips each.
            pace: of the loop. Without it, clips after one that shows a loop that is no recurrence are left out.
        """
        for steps in lengths:
            long, short = map(self._total, steps)
            if long is None or short is None:
                continue
            if long == short:
                break
            try:
                return self._rolled(steps, pace)
            except NotACell as error:
                why = f"a loop over frames can't be followed: {error}"
                self._refusal = self._refusal or NotALoop(why, "operations that keep the rows of the batch apart")
            except NotALoop as error:
                self._refusal = self._refusal or error
                if isinstance(error, NothingDone) or (pace is None and not isinstance(error, Irregular)):
                    break
            except NotStreamable:
                break
        return None

    def _rolls(self, steps: tuple[int, int], pace: Pace) -> bool:
        """Whether two clips show a loop, whatever other clips show."""
        if None in map(self._total, steps):
            return False
        try:
            return None not in [rolled(capture_rows(self._module, self._clip(n), self._time_dim), pace.frames) for n in steps]
        except (NotACell, NotALoop, NotStreamable):
            return False

    def _total(self, steps: int) -> int | None:
        """The number of calls on a clip of so many frames."""
        if steps not in self._totals:
            calls = self._calls(self._module, self._clip(steps), MANY)
            self._totals[steps] = None if calls is None else calls.total()
        return self._totals[steps]

    def _grows(self) -> bool:
        """Whether the number of calls depends on the length, as far as is known."""
        known = {total for total in self._totals.values() if total is not None}
        if len(known) > 1:
            return True
        longer = self._clip(max(self._steps, SHORTEST)) if known else self._inputs
        calls = self._calls(self._module, longer) or self._calls(self._module, self._inputs)
        return calls is not None and calls.total() not in known  # None: its calls can't be counted

    def _clip(self, steps: int) -> tuple[Tensor, ...]:
        return clip_of(self._inputs, self._times, self._batches, steps, 2)

    def _rolled(self, steps: tuple[int, int], pace: Pace | None) -> RolledModule | None:
        """The module with its loops as single operations; ``None`` if it takes no frames one by one."""
        frames = 1 if pace is None else pace.frames
        captured = capture_rows(self._module, self._clip(steps[0]), self._time_dim)
        own = rolled(captured, frames)  # first: exports take long, and where this one shows no loop, the other is not made
        other = None if own is None else rolled(capture_rows(self._module, self._clip(steps[1]), self._time_dim), frames)
        if own is None or other is None:
            return None
        if pace is None:
            return self._compared(RolledModule(self._module, captured, own, other, steps))
        try:  # two lengths do not tell what grows with each frame from what grows with each iteration
            return self._compared(RolledModule(self._module, captured, own, other, steps, pace.begins % frames), frames)
        except NotALoop:
            return self._compared(RolledModule(self._module, captured, own, other, steps), frames)

    def _compared(self, made: RolledModule, frames: int = 1) -> RolledModule:
        """Refuse loops whose outputs differ from the module's, on clips that end anywhere in an iteration."""
        longer = self._steps + self._steps // 2 + 3
        for n in dict.fromkeys((self._steps, longer, longer + frames // 2, longer + frames - 1)):
            if not _same(self._module, made, self._clip(n)):
                why = f"the module does something else with a clip of {n} frames"
                raise NotALoop(why, "the same operations for all clips and frames")
        return made


def _same(module: nn.Module, found: RolledModule, clip: Sequence[Tensor]) -> bool:
    """Whether the module with single loops has the outputs of the module. Clips that the module refuses are ignored."""
    with torch.no_grad(), quiet():
        try:
            want = tree_leaves(module(*fresh(clip)))
        except Exception:  # not a length of this module
            return True
        got = tree_leaves(found(*fresh(clip)))
    pairs = [(a, b) for a, b in zip(got, want, strict=True) if isinstance(b, Tensor)]
    return all(a.shape == b.shape and _off(a, b) <= TOLERANCES.get(b.dtype, 5e-2) for a, b in pairs)


def _off(a: Tensor, b: Tensor) -> float:
    if not b.numel():
        return 0.0
    a, b = a.to(torch.float64).nan_to_num(0.0), b.to(torch.float64).nan_to_num(0.0)
    return float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
