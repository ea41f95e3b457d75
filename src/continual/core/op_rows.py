"""The parts of an explanation: a row for every operation of a network, and a refusal for every one that can't be streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True)
class Row:
    """One operation of a network.

    Attributes:
        path: ``"layer1.0.conv1"``, unique in the network.
        op: its name: ``"Conv3d k3 s2 p1"``, ``"add"``.
        inputs: indices of its input rows; ``-1 - k`` is input ``k`` of the network.
        waits: for each input, the depth of its queue in frames; 0: no queue.
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
        row: the path of its :class:`Row`, where that is not the module's.
        mixes_rows: whether the reason is that rows of the batch, which are streams of their own, depend on each other.
        in_loop: whether it is one of as many operations as the clip has frames.
    """

    path: str
    op: str
    source: str
    reason: str
    remedy: str
    row: str = ""
    mixes_rows: bool = False
    in_loop: bool = False


_TITLES = ("", "path", "op", "takes", "rate", "receptive field", "delay", "state bytes")
_LEFT = (1, 2, 3)  # columns of words


@dataclass(frozen=True)
class Graph:
    """The operations of a network and their connections.

    Attributes:
        name: the network's.
        rows: its operations; each comes after those whose outputs it takes.
        outputs: indices of the output rows; ``-1 - k`` for input ``k`` that is returned unchanged.
        notes: remarks on the whole network.
        refusals: the reasons for which it can't be streamed; the rows are then those that could be followed.
        inputs: the inputs of the network, such as ``"x (2, 3, T, 32, 32)"``.
    """

    name: str
    rows: tuple[Row, ...]
    outputs: tuple[int, ...]
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row.inputs) != len(row.waits):
                raise ValueError(f"row {index} ({row.path}) has {len(row.inputs)} inputs and {len(row.waits)} waits")
            if late := [i for i in row.inputs if i >= index]:
                raise ValueError(f"row {index} ({row.path}) takes row {late[0]}, which does not come before it")
        if missing := [i for i in self.outputs if i >= len(self.rows)]:
            raise ValueError(f"output {missing[0]} of {len(self.rows)} rows")

    @property
    def streamable(self) -> bool:
        """Whether there is no refusal."""
        return not self.refusals

    @property
    def state_bytes(self) -> int:
        """Of all rows, for the example's batch."""
        return sum(row.state_bytes for row in self.rows)

    @property
    def delay(self) -> int:
        """Input steps to observe before the one that brings the first output; of several outputs the latest."""
        return max((self.rows[i].delay for i in self.outputs if i >= 0), default=0)

    @property
    def receptive_field(self) -> int:
        """In input steps; of several outputs the largest."""
        return max((self.rows[i].receptive_field for i in self.outputs if i >= 0), default=1)

    def refusal_of(self, row: Row) -> Refusal | None:
        """The refusal of a row, if there is one."""
        return next((r for r in self.refusals if (r.row or r.path) == row.path and (r.row or r.path or r.op == row.op)), None)

    def all_notes(self) -> tuple[str, ...]:
        """The notes on the network, and those on rows with their paths."""
        paths: dict[str, list[str]] = {}
        for row in self.rows:
            if row.note:
                paths.setdefault(row.note, []).append(row.path)
        return self.notes + tuple(f"{', '.join(found)}: {note}" for note, found in paths.items())

    def __str__(self) -> str:
        head = "  ←  ".join(part for part in (self.name, ", ".join(self.inputs)) if part)
        parts = [head] if head else []
        if self.rows:
            parts.append(table(self))
        if self.refusals:
            parts.append(("\n" if self.rows else "") + format_refusals(self.name, self.refusals))
        parts += [f"note: {note}" for note in self.all_notes()]
        return "\n".join(parts)


def cells(graph: Graph, index: int) -> tuple[str, ...]:
    """The line of the table for a row."""
    row = graph.rows[index]
    takes = ", ".join(
        (str(i) if i >= 0 else input_name(graph, i)) + (f" (waits {n})" if n else "")
        for i, n in zip(row.inputs, row.waits, strict=True)
    )
    numbers = (str(row.rate), f"{row.receptive_field:,}", f"{row.delay:,}", f"{row.state_bytes:,}")
    return (str(index), row.path, row.op, takes, *numbers)


def totals(graph: Graph) -> list[tuple[str, ...]]:
    """The last lines of the table: one for each output, the first with the state of the whole network."""
    lines: list[tuple[str, ...]] = []
    for i in graph.outputs:
        row = graph.rows[i] if i >= 0 else None
        name, rate = (row.path, str(row.rate)) if row else (input_name(graph, i), "1")
        span, delay = (f"{row.receptive_field:,}", f"{row.delay:,}") if row else ("1", "0")
        lines.append(("→", name, "", "", rate, span, delay, "" if lines else f"{graph.state_bytes:,}"))
    return lines


def input_name(graph: Graph, index: int) -> str:
    """The name of the input ``k`` of the network, for an input ``-1 - k`` of a row."""
    k = -1 - index
    words = graph.inputs[k].split() if k < len(graph.inputs) else []
    return words[0] if words else f"input {k}"


def table(graph: Graph) -> str:
    """One line for each row, with titles and totals."""
    body, last = [cells(graph, i) for i in range(len(graph.rows))], totals(graph)
    lines = [_TITLES, *body, *last]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_TITLES))]
    shown = [
        "  ".join(c.ljust(w) if i in _LEFT else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]
    rule = "─" * max(map(len, shown))
    return "\n".join([shown[0], rule, *shown[1 : 1 + len(body)], *([rule, *shown[1 + len(body) :]] if last else [])])


def format_refusals(name: str, refusals: Sequence[Refusal]) -> str:
    """All refusals of a module, numbered: where, source line, reason and remedy. Repeated refusals are listed once.

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
    alike: dict[Refusal, list[str]] = {}
    for refusal in dict.fromkeys(replace(refusal, row="") for refusal in refusals):
        alike.setdefault(replace(refusal, path=""), []).append(refusal.path)
    refusals = [replace(refusal, path=_together(paths)) for refusal, paths in alike.items()]
    places = f", for {len(refusals)} reasons" if len(refusals) > 1 else ""
    lines = [f"{name or 'the module'} can't be streamed exactly{places}:"]
    for number, refusal in enumerate(refusals, 1):
        head = f"  {number}. "
        remedy = f"Remedy: {refusal.remedy}" if refusal.remedy else ""
        shown = [part for part in (where(refusal), refusal.source, refusal.reason, remedy) if part]
        first, *rest = (line for part in shown for line in part.splitlines())
        lines += [head + first, *(" " * len(head) + line for line in rest)]
    return "\n".join(lines)


def _together(paths: Sequence[str]) -> str:
    """The paths of modules that are refused for one reason."""
    return (
        paths[0]
        if len(paths) == 1
        else f"{len(paths)} modules, {', '.join(paths[:2])}{' … ' + paths[-1] if len(paths) > 2 else ''}"
    )


def where(refusal: Refusal) -> str:
    """The path and the operation."""
    return f"{refusal.path} ({refusal.op})" if refusal.path and refusal.op else refusal.path or refusal.op
