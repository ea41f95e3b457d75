"""The boxes of a diagram: one for each operation; operations that are local in time share the box of the operation above."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

from ...core.op_rows import Graph, Refusal, Row

INPUT, OUTPUT, TEMPORAL, LOCAL, JOIN, QUEUE, REFUSED = "input", "output", "temporal", "local", "join", "queue", "refused"
LEGEND = {
    TEMPORAL: "sees other time steps",
    LOCAL: "local in time",
    JOIN: "joins branches",
    QUEUE: "frames wait for a slower branch",
    REFUSED: "can't be streamed",
}
_QUEUE_OPS = ("wait", "waits", "queue")
_WIDEST = 44  # letters in a line
_FORBIDDEN = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML can't hold


@dataclass
class Box:
    """One box.

    Attributes:
        kind: ``"temporal"``, ``"local"``, … : its colour.
        above: indices of the boxes that it takes from.
        rows: the operations in it; the first one gives the kind.
        label: its text, if it holds no operation.
        refusal: why it is refused.
    """

    kind: str
    above: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    label: str = ""
    refusal: Refusal | None = None

    def lines(self) -> list[str]:
        """Its text: the operation, its path, its numbers, and the local operations after it."""
        if not self.rows:
            refused = self.refusal
            text = (refused.op, refused.path) if refused else ()
            return [clean(line) for line in text if line] or [clean(self.label)]
        first, *rest = self.rows
        if self.kind == QUEUE:
            return [f"waits {first.waits[0]:,}"]
        numbers = [
            f"field {first.receptive_field:,}",
            f"delay {first.delay:,}" if first.delay else "",
            f"rate {first.rate}" if first.rate != 1 else "",
            size(first.state_bytes) if first.state_bytes else "",
        ]
        after = "then " + ", ".join(re.split(r"[ (]", row.op)[0] for row in rest) if rest else ""
        shown = "" if self.kind == LOCAL else " · ".join(part for part in numbers if part)
        return [clean(line) for line in (first.op, first.path, shown, after) if line]

    def tooltip(self) -> str:
        """All that is known of it."""
        lines = []
        for row in self.rows:
            lines += [f"{row.path}: {row.op}" if row.path else row.op, row.source, row.note]
        if self.rows:
            last, state = self.rows[-1], size(sum(row.state_bytes for row in self.rows))
            lines.append(f"rate {last.rate}, receptive field {last.receptive_field:,}, delay {last.delay:,}, state {state}")
        if self.refusal:
            lines += [self.refusal.reason, self.refusal.remedy and f"Remedy: {self.refusal.remedy}"]
        return "\n".join(line for line in lines if line) or self.label


def boxes_of(graph: Graph) -> list[Box]:
    """The boxes of a network, each after those that it takes from."""
    maker = _Maker(graph)
    for row in graph.rows:
        maker.add(row)
    many = len(graph.outputs) > 1
    for k, index in enumerate(graph.outputs):
        maker.boxes.append(Box(OUTPUT, [maker.box_of(index)], label=f"output {k}" if many else "output"))
    shown = [box.refusal for box in maker.boxes]
    maker.boxes += [
        Box(REFUSED, label=r.path or r.op or "refused", refusal=r) for r in dict.fromkeys(graph.refusals) if r not in shown
    ]
    return maker.boxes


class _Maker:
    """Makes boxes row by row."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.uses = Counter(i for row in graph.rows for i in row.inputs) + Counter(graph.outputs)
        self.inputs = {index: place for place, index in enumerate(sorted((i for i in self.uses if i < 0), reverse=True))}
        self.boxes = [Box(INPUT, label=self._input_label(-1 - index)) for index in self.inputs]
        self.of_row: list[int] = []  # the box of each row

    def _input_label(self, k: int) -> str:
        return self.graph.inputs[k] if k < len(self.graph.inputs) else f"input {k}"

    def box_of(self, index: int) -> int:
        """The box of a row, or of an input of the network."""
        return self.of_row[index] if index >= 0 else self.inputs[index]

    def add(self, row: Row) -> None:
        """A row: in the box above it, or in a box of its own."""
        refusal = self.graph.refusal_of(row)
        kind = REFUSED if refusal else kind_of(row, [self.graph.rows[i] for i in row.inputs if i >= 0])
        if kind == LOCAL and self._joins(row):
            self.of_row.append(self.of_row[row.inputs[0]])
            self.boxes[self.of_row[-1]].rows.append(row)
            return
        waits = (0,) if kind == QUEUE else row.waits
        above = [self._queued(self.box_of(i), n) for i, n in zip(row.inputs, waits, strict=True)]
        self.of_row.append(len(self.boxes))
        self.boxes.append(Box(kind, above, [row], refusal=refusal))

    def _queued(self, source: int, waits: int) -> int:
        """A box, or the queue below it in which its frames wait."""
        if not waits:
            return source
        self.boxes.append(Box(QUEUE, [source], label=f"waits {waits:,}"))
        return len(self.boxes) - 1

    def _joins(self, row: Row) -> bool:
        """Whether the row alone takes the output of the row above it, and takes it at once."""
        above = row.inputs[0] if len(row.inputs) == 1 and not row.waits[0] else -1
        return above >= 0 and self.uses[above] == 1 and self.boxes[self.of_row[above]].kind not in (QUEUE, REFUSED)


def kind_of(row: Row, above: list[Row]) -> str:
    """The kind of a row, from its numbers: temporal if its timing differs from its inputs' or if it keeps a state.

    Args:
        row: the row.
        above: the rows that it takes.
    """
    if row.op.split(" ")[0].lower() in _QUEUE_OPS and len(row.inputs) == 1:
        return QUEUE
    if not row.inputs:
        return LOCAL  # a constant
    rates = {r.rate for r in above} | ({Fraction(1)} if len(above) < len(row.inputs) else set())  # 1: the network's inputs
    if row.rate not in rates or (row.state_bytes and not any(row.waits)):
        return TEMPORAL
    if len(row.inputs) > 1:
        return JOIN
    span, delay = (above[0].receptive_field, above[0].delay) if above else (1, 0)
    return LOCAL if (row.receptive_field, row.delay) == (span, delay) else TEMPORAL


def facts(graph: Graph) -> str:
    """The numbers of the whole network in one line."""
    if not graph.streamable:
        refused = len(graph.refusals)
        return f"can't be streamed exactly: {refused} reason{'s' * (refused > 1)}"
    rates = sorted({graph.rows[i].rate for i in graph.outputs if i >= 0} - {Fraction(1)})
    often = [f"an output every {r.denominator} steps" if r.numerator == 1 else f"{r} outputs a step" for r in rates]
    numbers = [f"receptive field {graph.receptive_field:,}", f"delay {graph.delay:,}", f"{size(graph.state_bytes)} of state"]
    return " · ".join([*numbers, *often])


def size(count: int) -> str:
    """Bytes for people: ``"1.23 kB"``."""
    if count < 1000:
        return f"{count} B"
    power = next((k for k in (1, 2, 3) if count < 999.5 * 1000**k), 4)
    return f"{count / 1000**power:.3g} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def clean(text: str) -> str:
    """One line of a label: without what XML can't hold, cut in the middle if it is long; the ends of paths tell them apart."""
    text = _FORBIDDEN.sub("\ufffd", " ".join(text.split()))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST // 3]}…{text[len(text) - _WIDEST + _WIDEST // 3 + 1 :]}"


def safe(text: str) -> str:
    """Text without what XML can't hold."""
    return _FORBIDDEN.sub("\ufffd", text)
