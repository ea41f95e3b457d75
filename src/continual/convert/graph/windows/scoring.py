"""The windows that a converted module scores."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from torch.utils._pytree import tree_map

from ....core.module import CoModule
from ....core.state import State, StateNode, StepSpec
from ....errors import StateMismatch
from ..exec_context import ExecContext
from ..io_layout import ModuleLayout
from ..program import Program
from .instruction import Windows
from .report import WindowReport


class Scoring(CoModule):
    """A module that may score windows.

    Attributes:
        windows: how, if it does.
    """

    windows: WindowReport | None = None
    _window_notes: tuple[str, ...] = ()
    _program: Program
    io_layout: ModuleLayout

    @property
    def running(self) -> tuple[int, ...]:
        """The numbers of the outputs that are values of the clip so far, such as the state of a recurrent layer, beside frames.

        The module and :meth:`forward` give the value after the clip. In a stream each step has one, and a chunk has those of its steps,
        stacked in dim 2 (or the last one, if there are fewer).
        """
        found = [out.windows for out in self.io_layout.outputs]
        return () if all(found) else tuple(i for i, windows in enumerate(found) if windows)

    def _after_clip(self, outputs: Any) -> Any:
        """Outputs as the module gives them. For values of the clip so far, this is the value after the end of the clip."""
        layout = self.io_layout
        if not self.running:
            return outputs
        numbers = layout.nesting if layout.nesting is not None else list(range(len(layout.outputs)))

        def after(number: int | None, y: Any) -> Any:
            return y.select(layout.outputs[number].time, -1) if number in self.running else y

        return tree_map(after, numbers, outputs)

    def _is_single(self, m: ExecContext, wire: int) -> bool:
        """Whether a clip is one window. Its score then has no dimension for windows."""
        if self.windows is not None and self.windows.mode == "exact":
            return m.frames[0] == self.windows.length
        return m.frames[wire] == 1

    def _fresh_like(self, state: State) -> State:
        try:
            return super()._fresh_like(state)
        except StateMismatch as error:
            theirs = state.plan
            if self.windows is None or theirs in ("", repr(self.windows.plan)):
                raise
            raise StateMismatch(
                f"{type(self).__name__}: this state is of windows that are computed in another way: {theirs}, and here "
                f"{self.windows.plan!r}. Convert the module with the plan of the state, co.continual(module, clip, windows=co.{theirs})"
            ) from error

    def macs_of_clip(self, node: StateNode, frame: StepSpec, n_in: int, n_out: int) -> int | Fraction:
        whole = [i.alone.macs for i in self._program.instructions if isinstance(i, Windows)]
        return sum(whole) * n_out if whole else super().macs_of_clip(node, frame, n_in, n_out)
