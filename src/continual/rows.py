"""What an explanation is made of: a row for every operation of a network, and a refusal for every one that can't be streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Row:
    """One operation of a network.

    Attributes:
        path: ``"layer1.0.conv1"``, unique in the network.
        op: what it is, in words: ``"Conv3d k3 s2 p1"``, ``"add"``.
        inputs: indices of the rows that it takes; ``-1 - k`` is input ``k`` of the network.
        waits: for each input, how many frames of it wait here in a queue at most; 0: none.
        rate: outputs per input step of the network.
        receptive_field, delay: from the network's input to here, in input steps.
        state_bytes: for the example's batch, queues included.
        source: the user's line, ``"file.py:12  y = self.conv(x)"``, if known.
        note: a remark.
    """

    path: str
    op: str
    inputs: tuple[int, ...]
    waits: tuple[int, ...]
    rate: Fraction
    receptive_field: int
    delay: int
    state_bytes: int
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """One operation that can't be streamed exactly.

    Attributes:
        path, op, source: as in :class:`Row`.
        reason: why.
        remedy: what to write instead.
    """

    path: str
    op: str
    source: str
    reason: str
    remedy: str


def format_refusals(name: str, refusals: Sequence[Refusal]) -> str:
    """All refusals of a module, numbered: where, the source line, why, and what to do.

    Args:
        name: what is refused; ``""`` for "the module".
        refusals: at least one.

    Example:
        >>> norm = Refusal("norm", "GroupNorm(2, 4)", "model.py:9  y = self.norm(x)", "it sees the whole clip.", "BatchNorm.")
        >>> print(format_refusals("Net", [norm]))
        Net can't be streamed exactly:
          1. norm (GroupNorm(2, 4))
             model.py:9  y = self.norm(x)
             it sees the whole clip.
             Remedy: BatchNorm.
    """
    places = f", for {len(refusals)} reasons" if len(refusals) > 1 else ""
    lines = [f"{name or 'the module'} can't be streamed exactly{places}:"]
    for number, refusal in enumerate(refusals, 1):
        head = f"  {number}. "
        remedy = f"Remedy: {refusal.remedy}" if refusal.remedy else ""
        shown = [part for part in (where(refusal), refusal.source, refusal.reason, remedy) if part]
        first, *rest = (line for part in shown for line in part.splitlines())
        lines += [head + first, *(" " * len(head) + line for line in rest)]
    return "\n".join(lines)


def where(refusal: Refusal) -> str:
    """The path and the operation."""
    return f"{refusal.path} ({refusal.op})" if refusal.path and refusal.op else refusal.path or refusal.op
