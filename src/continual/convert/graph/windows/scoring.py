"""What a converted module knows of the windows that it scores."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from torch.utils._pytree import tree_unflatten

from ....core.kernel import Kernel
from ....core.state import Node, StepSpec
from ..instructions import ExecContext
from .instruction import Windows
from .report import WindowReport


class Scoring(Kernel):
    """A module that may score windows.

    Attributes:
        windows: how, if it does.
    """

    windows: WindowReport | None = None
    _spec: Any = None  # how its outputs are nested, where that is more than a list
    _nested: bool
    _program: list[Any]

    def _nest(self, values: list[Any]) -> Any:
        if self._spec is not None:
            return tree_unflatten(values, self._spec)
        return values if self._nested else values[0]

    def _alone(self, m: ExecContext, wire: int) -> bool:
        """Whether a clip is one window, whose score has no dimension for windows then."""
        exact = self.windows is not None and self.windows.mode == "exact"
        return m.frames[0] == self.windows.length if exact and self.windows is not None else m.frames[wire] == 1

    def macs_of_clip(self, node: Node, frame: StepSpec, given: int, outputs: int) -> int | Fraction:
        whole = [i.alone.macs for i in self._program if isinstance(i, Windows)]
        return sum(whole) * outputs if whole else super().macs_of_clip(node, frame, given, outputs)
