"""What `co.explain` returns: the operations of a network as a table, a drawing or a page."""

from __future__ import annotations

from dataclasses import dataclass

from .rows import Refusal, Row, format_refusals

__all__ = ["Explanation", "Refusal", "Row", "format_refusals"]

_TITLES = ("", "path", "op", "takes", "rate", "receptive field", "delay", "state bytes")
_LEFT = (1, 2, 3)  # columns of words


@dataclass(frozen=True)
class Explanation:
    """How a network streams, or why it does not. Prints as a table.

    Attributes:
        name: the network's.
        rows: its operations; each comes after those whose outputs it takes.
        outputs: indices of the rows that leave; ``-1 - k`` for input ``k`` handed on as it is.
        notes: remarks on the whole network.
        refusals: why it can't be streamed; the rows are then those that could be followed.
        inputs: what the network takes, such as ``"x (2, 3, T, 32, 32)"``.

    Example:
        >>> from fractions import Fraction
        >>> conv = Row("conv", "Conv1d k3 p1", (-1,), (0,), Fraction(1), 3, 1, 16)
        >>> add = Row("add", "add", (0, -1), (0, 1), Fraction(1), 3, 1, 8)
        >>> print(Explanation("Net", (conv, add), (1,), inputs=("x (1, 2, T)",)))
        Net  ←  x (1, 2, T)
           path  op            takes           rate  receptive field  delay  state bytes
        ────────────────────────────────────────────────────────────────────────────────
        0  conv  Conv1d k3 p1  x                  1                3      1           16
        1  add   add           0, x (waits 1)     1                3      1            8
        ────────────────────────────────────────────────────────────────────────────────
        →  add                                    1                3      1           24
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
        """Whether nothing was refused."""
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

    def input_name(self, index: int) -> str:
        """What stands for a row's input ``-1 - k``: the name of the network's input ``k``."""
        k = -1 - index
        words = self.inputs[k].split() if k < len(self.inputs) else []
        return words[0] if words else f"input {k}"

    def refusal_of(self, row: Row) -> Refusal | None:
        """Why a row is refused, if it is."""
        return next((r for r in self.refusals if (r.path, r.op) == (row.path, row.op)), None)

    def all_notes(self) -> tuple[str, ...]:
        """The notes on the network, and those on single rows with their paths."""
        return self.notes + tuple(f"{row.path}: {row.note}" for row in self.rows if row.note)

    def cells(self, index: int) -> tuple[str, ...]:
        """The table's line for a row."""
        row = self.rows[index]
        takes = ", ".join(
            (str(i) if i >= 0 else self.input_name(i)) + (f" (waits {n})" if n else "")
            for i, n in zip(row.inputs, row.waits, strict=True)
        )
        numbers = (str(row.rate), f"{row.receptive_field:,}", f"{row.delay:,}", f"{row.state_bytes:,}")
        return (str(index), row.path, row.op, takes, *numbers)

    def totals(self) -> list[tuple[str, ...]]:
        """The table's last lines: one for each output, the first with the state of the whole network."""
        lines: list[tuple[str, ...]] = []
        for i in self.outputs:
            row = self.rows[i] if i >= 0 else None
            name, rate = (row.path, str(row.rate)) if row else (self.input_name(i), "1")
            span, delay = (f"{row.receptive_field:,}", f"{row.delay:,}") if row else ("1", "0")
            lines.append(("→", name, "", "", rate, span, delay, "" if lines else f"{self.state_bytes:,}"))
        return lines

    def __str__(self) -> str:
        head = "  ←  ".join(part for part in (self.name, ", ".join(self.inputs)) if part)
        parts = [head] if head else []
        if self.rows:
            parts.append(self._table())
        if self.refusals:
            parts.append(("\n" if self.rows else "") + format_refusals(self.name, self.refusals))
        parts += [f"note: {note}" for note in self.all_notes()]
        return "\n".join(parts)

    def _table(self) -> str:
        body, totals = [self.cells(i) for i in range(len(self.rows))], self.totals()
        lines = [_TITLES, *body, *totals]
        widths = [max(len(line[i]) for line in lines) for i in range(len(_TITLES))]
        shown = [
            "  ".join(
                c.ljust(w) if i in _LEFT else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "─" * max(map(len, shown))
        return "\n".join([shown[0], rule, *shown[1 : 1 + len(body)], *([rule, *shown[1 + len(body) :]] if totals else [])])
