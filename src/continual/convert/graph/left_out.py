"""Operations that a module leaves out for clips of some lengths: ``if T % 4: x = F.pad(x, (0, 4 - T % 4))``.

Whether the export has the operation depends on the example's length. If it has, its formula pads a whole group of frames to clips
that need no padding. So the module is run on a clip of such a length, to see whether it pads.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ...core.length_function import LengthFunction
from ...core.timing_graph import Wiring
from .capture import fresh, source_line
from .op_call import OpCall
from .program_draft import ProgramDraft
from .undone import quiet, restored

FUNCTIONS = {
    "pad": "pad",
    "getitem": "slice",
    "narrow": "slice",
    "cat": "cat",
    "concat": "cat",
}  # and the operations in an export


class Lines(TorchFunctionMode):
    """Records at which lines of code a module pads and cuts tensors: its own lines, and those that call them.

    Attributes:
        found: operations and lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = FUNCTIONS.get(getattr(func, "__name__", "").strip("_"))
        frame = sys._getframe(1) if operation else None
        while operation and frame is not None:
            self.found.add((operation, f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"))
            frame = frame.f_back
        return func(*args, **(kwargs or {}))


def where_done(length: LengthFunction, timing: Wiring, own: bool, call: OpCall, draft: ProgramDraft) -> LengthFunction | None:
    """The length of a wire after an operation that the module may skip where it would add or cut a whole group of frames.

    Args:
        length: after the operation, if the module does not skip it.
        timing: of the wire before it.
        own: whether the length is a function of that wire's own, not of the clip's.
        call: the operation.
        draft: the program.

    Returns:
        The function; ``None`` if it has too many steps.
    """
    period = length.period
    at = max(length.transient, period)
    group = period if own else period / timing.stride
    doubtful = [n % period for n in range(at, at + period) if abs(length(n) - _before(timing, own, n)) == group]
    if period == 1 or len(doubtful) != 1 or not _is_left_out(timing, own, doubtful[0], period, call, draft):
        return length
    (rest,) = doubtful
    return LengthFunction.of(lambda n: _before(timing, own, n) if n % period == rest else length(n), period)


def _before(timing: Wiring, own: bool, n: int) -> int:
    return n if own else timing.ended(n)


def _is_left_out(timing: Wiring, own: bool, rest: int, period: int, call: OpCall, draft: ProgramDraft) -> bool:
    """Whether the module skips the line of an operation for a clip of a doubtful length."""
    captured = draft.captured
    first, done = captured.steps + 1, (call.op.replace("narrow", "slice"), source_line(call.node).partition("  ")[0])
    lengths = (t for t in range(first, first + 2 * timing.period * period) if (timing.ended(t) if own else t) % period == rest)
    steps = next(lengths, None)
    if steps is None or done not in (_lines(draft, captured.steps) or ()):
        return False
    found = _lines(draft, steps)
    return found is not None and done not in found


def _lines(draft: ProgramDraft, steps: int) -> set[tuple[str, str]] | None:
    """The operations and lines that the module reaches for a clip of this many steps; ``None`` if it refuses the clip."""
    lines = Lines()
    with restored(draft.module), quiet(), torch.no_grad():
        try:
            with lines:
                draft.module(*fresh(draft.captured.of_length(steps)))
        except Exception:  # no length of this module
            return None
    return lines.found
