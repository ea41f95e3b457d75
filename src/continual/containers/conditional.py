"""`Conditional`: one module or another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from torch import Tensor, nn

from ..core.function_source import shown
from ..core.module import CoModule
from ..core.program.context import KernelContext, Run
from ..core.state import StateNode, StateUpdates, Wire, rewire
from ..core.step_spec import Inputs, length
from ..errors import NotStreamable, ShapeMismatch
from ..layers.closure import Identity
from ..layers.wrapped import over_channels
from .base import run_chunk, run_clip
from .parallel import Parallel, taken


class Conditional(Parallel):
    """Run one module or another, as a predicate says. Both are fed, so that a switch in mid-stream is seamless.

    Args:
        predicate: ``predicate(module, x) -> bool``. In a stream ``x`` is the step or the chunk at hand (an empty one when only the
            stream's end is asked for), in ``forward`` it is the clip. Only for predicates that depend neither on the chunking nor
            on the batch are the three ways to run equal.
        on_true: module for ``True``. Of an ``nn.Softmax()``, which leaves its dimension open, the streaming version is over the channels.
        on_false: module for ``False``; by default the identity.

    Warns:
        UserWarning: for such a softmax.

    Example:
        >>> smooth = co.Conditional(lambda module, x: module.on, co.AvgPool1d(3, stride=1, padding=1))
        >>> smooth.on = False
        >>> smooth.delay, smooth(torch.tensor([[[3.0, 0.0, 3.0]]]))
        (1, tensor([[[3., 0., 3.]]]))
    """

    def __init__(self, predicate: Callable[[CoModule, Any], bool], on_true: nn.Module, on_false: nn.Module | None = None):
        if not callable(predicate):
            raise TypeError(f"Conditional takes a function predicate(module, x) -> bool, got {type(predicate).__name__}")
        super().__init__(over_channels(on_true), Identity() if on_false is None else over_channels(on_false))
        self.predicate = predicate

    def _like(self, modules: dict[str, nn.Module]) -> Any:
        raise NotStreamable("Conditional has exactly two modules, on_true and on_false: build another one")

    def _changed(self) -> None:
        super()._changed()
        if len(self) != 2:
            self._like({})

    def _choice(self, x: Any) -> int:
        return 0 if self.predicate(self, x) else 1

    @overload
    def forward(self, input: Tensor) -> Tensor: ...
    @overload
    def forward(self, input: Sequence[Inputs]) -> Wire: ...
    def forward(self, input: Any) -> Wire:
        """The chosen module's clip computation."""
        return run_clip(self._children[self._choice(input)], input)

    def split(self, x: Any) -> Sequence[Any]:
        return [x, x]

    def _merge_frames(self, outs: list[Any], name: str) -> Any:
        if outs[0] != outs[1]:
            raise ShapeMismatch(f"{name}: on_true gives steps {outs[0]} and on_false {outs[1]}; they must be alike")
        return outs[0]

    def advance(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        if updates.final:
            return self._end(x, node, n_if_ended, updates)
        outs, have, ends = self._branches(x, node, n_if_ended, updates)
        stop, ended = min(have), min(ends)
        if x is None and stop == node.n_out:
            self._leave(x, node, have, stop, updates)  # a branch that pads may have delivered all the same
            return None, ended
        choice = self._choice_of_chunk(x, node)
        self._leave(x, node, have, stop, updates)
        if stop == node.n_out:
            return None, ended
        return taken(node.children[2 + choice], outs[choice], node.n_out, stop), ended

    def _choice_of_chunk(self, x: Wire | None, node: StateNode) -> int:
        return self._choice(rewire(lambda f: f.zeros(0), node.kept_spec) if x is None else x)

    def _end(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        """The stream ends: nothing is fed any more, and the other module may refuse to end here."""
        choice = self._choice_of_chunk(x, node)
        queue = node.children[2 + choice]
        y, ended = run_chunk(self._children[choice], x, node.children[choice], n_if_ended, updates)
        stop = queue.n_in + length(y)
        return (None if stop == node.n_out else taken(queue, y, node.n_out, stop)), ended

    def advance_step(self, x: Wire, node: StateNode, updates: StateUpdates) -> Wire | None:
        choice = self._choice(x)
        both = super().advance_step(x, node, updates)
        return None if both is None else both[choice]

    def extra_repr(self) -> str:
        return f"predicate={shown(self.predicate)}"

    def program(self, ctx: KernelContext) -> Run:
        """Which module is run is known with the data alone."""
        raise ctx.refuse(
            "its predicate looks at the data, and a program does the same for all of them. Compile its two modules, and choose outside"
        )
