"""What a converted module knows of the windows that it scores."""

from __future__ import annotations

from fractions import Fraction

from ....core.kernel import Kernel
from ....core.state import StateNode, StepSpec
from ..instructions import ExecContext
from ..program import Program
from .instruction import Windows
from .report import WindowReport


class Scoring(Kernel):
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

    def macs_of_clip(self, node: StateNode, frame: StepSpec, n_in: int, n_out: int) -> int | Fraction:
        whole = [i.alone.macs for i in self._program.instructions if isinstance(i, Windows)]
        return sum(whole) * n_out if whole else super().macs_of_clip(node, frame, n_in, n_out)
