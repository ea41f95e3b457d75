"""What a rule works with, and the tables in which rules are registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .emitter import Emitter
from .frame_groups import FrameGroups
from .length_constants import LengthConstants
from .op_call import Apply, OpCall
from .program_draft import ProgramDraft
from .provenance import Provenance
from .shape_queries import ShapeQueries
from .stream_aligner import StreamAligner
from .value_free import ValueFree
from .values import Value


@dataclass(frozen=True)
class RuleContext:
    """The parts of a conversion, as rules need them.

    Attributes:
        draft: the program so far.
        shapes: answers questions on lengths and shapes.
        emit: adds instructions and constants.
        lengths: builds what depends on the clip's length alone.
        origin: tells what values are computed from.
        streams: aligns streams.
        free: rebuilds what depends on no value of the streams.
        groups: takes frames together and apart.
        apply: evaluates another operation.
    """

    draft: ProgramDraft
    shapes: ShapeQueries
    emit: Emitter
    lengths: LengthConstants
    origin: Provenance
    streams: StreamAligner
    free: ValueFree
    groups: FrameGroups
    apply: Apply


Rule = Callable[[RuleContext, OpCall], Value]
R = TypeVar("R", bound=Rule)

RULES: dict[str, Rule] = {}
SCORE_RULES: dict[str, Rule] = {}  # for operations on attention scores, by names without overloads
SPECTRUM_RULES: dict[str, Rule] = {}  # for operations on the spectrum of the clip, by names without overloads
UNALIGNED = {
    "aten.slice_scatter.default",
    "aten.select_scatter.default",
    "aten.copy.default",
}  # rules that align streams themselves
KEEPS_LENGTH_DEPENDENT: set[str] = set()  # operations whose rules take length-dependent tensors as they are


def rule(*names: str, keeps_length_dependent: bool = False) -> Callable[[R], R]:
    """Register the rule of operations, by their names: ``"aten.add.Tensor"``, or ``"aten.add"`` for all overloads."""

    def registered(fn: R) -> R:
        RULES.update(dict.fromkeys(names, fn))
        if keeps_length_dependent:
            KEEPS_LENGTH_DEPENDENT.update(names)
        return fn

    return registered


def score_rule(*names: str) -> Callable[[R], R]:
    """Register the rule of operations on attention scores, by their names without overloads."""

    def registered(fn: R) -> R:
        SCORE_RULES.update(dict.fromkeys(names, fn))
        return fn

    return registered


def spectrum_rule(*names: str) -> Callable[[R], R]:
    """Register the rule of operations on the spectrum of the clip, by their names without overloads."""

    def registered(fn: R) -> R:
        SPECTRUM_RULES.update(dict.fromkeys(names, fn))
        return fn

    return registered
