"""From rows to boxes: what is local in time joins the box above it, frames that wait become boxes of their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from ...core.op_rows import Graph, Refusal, Row
from .lanes import Edge

INPUT, OUTPUT, TEMPORAL, LOCAL, JOIN, QUEUE, REFUSED = "input", "output", "temporal", "local", "join", "queue", "refused"
_QUEUES = ("wait", "waits", "queue")


@dataclass
class Box:
    """One box of the drawing.

    Attributes:
        kind: what it is, for its colour.
        rows: the operations in it, the first of which gave the kind.
        label: of what is no operation.
        frames: how many wait, in a queue.
        refusal: why it is refused.
    """

    kind: str
    rows: list[Row]
    label: str = ""
    frames: int = 0
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Boxes:
    """Boxes, each after those whose outputs it takes, and the lines between them."""

    boxes: list[Box]
    edges: list[Edge]

    @property
    def queues(self) -> frozenset[int]:
        """Which boxes are queues."""
        return frozenset(i for i, box in enumerate(self.boxes) if box.kind == QUEUE)


def boxes_of(graph: Graph) -> Boxes:
    """The boxes of a network, with its inputs and outputs."""
    made = _Maker(graph)
    for row in graph.rows:
        made.add(row)
    many = len(graph.outputs) > 1
    for k, index in enumerate(graph.outputs):
        made.box(Box(OUTPUT, [], f"output {k}" if many else "output"), [(index, 0)])
    shown = {box.refusal for box in made.boxes}
    for refusal in graph.refusals:
        if refusal not in shown:
            made.box(Box(REFUSED, [], refusal.path or refusal.op, refusal=refusal), [])
    return Boxes(made.boxes, made.edges)


class _Maker:
    """Makes boxes one after another."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.boxes: list[Box] = []
        self.edges: list[Edge] = []
        self.of_row: list[int] = []  # the box that each row is in
        self.inputs: dict[int, int] = {}  # the boxes of the network's inputs
        self.uses = Counter(i for row in graph.rows for i in row.inputs) + Counter(graph.outputs)
        for index in sorted({i for i in self.uses if i < 0}, reverse=True):
            self.inputs[index] = self._new(Box(INPUT, [], self._input_label(index)))

    def _input_label(self, index: int) -> str:
        k = -1 - index
        return self.graph.inputs[k] if k < len(self.graph.inputs) else f"input {k}"

    def _new(self, box: Box) -> int:
        self.boxes.append(box)
        return len(self.boxes) - 1

    def box(self, box: Box, takes: list[tuple[int, int]]) -> int:
        """A box with lines from rows (or inputs), through queues where frames wait."""
        above = []
        for index, waits in takes:
            source = self.of_row[index] if index >= 0 else self.inputs[index]
            if waits:
                queue = self._new(Box(QUEUE, [], frames=waits))
                self.edges.append(Edge(source, queue))
                source = queue
            above.append(source)
        at = self._new(box)
        self.edges += [Edge(source, at) for source in above]
        return at

    def add(self, row: Row) -> None:
        """A row: in the box above it, or in one of its own."""
        refusal = self.graph.refusal_of(row)
        kind = REFUSED if refusal else kind_of(row, [self.graph.rows[i] for i in row.inputs if i >= 0])
        if kind == LOCAL and self._joins(row):
            self.of_row.append(self.of_row[row.inputs[0]])
            self.boxes[self.of_row[-1]].rows.append(row)
        elif kind == QUEUE:
            queue = Box(QUEUE, [row], row.op, row.waits[0])
            self.of_row.append(self.box(queue, [(row.inputs[0], 0)]))
        else:
            self.of_row.append(self.box(Box(kind, [row], refusal=refusal), list(zip(row.inputs, row.waits, strict=True))))

    def _joins(self, row: Row) -> bool:
        """Whether a local row is the only one that takes what is above it, and takes it at once."""
        above = row.inputs[0] if len(row.inputs) == 1 and not row.waits[0] else -1
        return above >= 0 and self.uses[above] == 1 and self.boxes[self.of_row[above]].kind not in (QUEUE, REFUSED)


def kind_of(row: Row, above: list[Row]) -> str:
    """What a row is, from its numbers: it sees other moments than its inputs do, or keeps a state, or neither.

    Args:
        row: the row.
        above: those whose outputs it takes.
    """
    if row.op.split(" ")[0].lower() in _QUEUES and len(row.inputs) == 1:
        return QUEUE
    if not row.inputs:
        return LOCAL  # a constant
    rates = {r.rate for r in above}
    if len(above) < len(row.inputs):
        rates.add(Fraction(1))  # the network's own inputs
    if row.rate not in rates or (row.state_bytes and not any(row.waits)):
        return TEMPORAL
    if len(row.inputs) > 1:
        return JOIN
    span, delay = (above[0].receptive_field, above[0].delay) if above else (1, 0)
    return LOCAL if (row.receptive_field, row.delay) == (span, delay) else TEMPORAL
