"""What a converted module knows of the windows that it scores."""

from __future__ import annotations

from fractions import Fraction

from ....core.module import CoModule
from ....core.state import State, StateNode, StepSpec
from ....errors import StateMismatch
from ..exec_context import ExecContext
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

    def _is_single(self, m: ExecContext, wire: int) -> bool:
        """Whether a clip is one window, whose score has no dimension for windows then."""
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
