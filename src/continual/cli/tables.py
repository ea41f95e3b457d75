"""Tables: drawn on a terminal that is wide enough; on narrow ones and in pipes plain text, which no line break cuts."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import NARROW

GAP = "  "


def show(table: Table, console: Console | None = None) -> None:
    """Print a table in the way that suits where it goes."""
    console = console or Console()
    if console.is_terminal and console.width >= NARROW:
        console.print(table)
        return
    for line in plain(table):
        console.print(Text(line), soft_wrap=True)


def pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """A table of names and values."""
    table = Table(title=Text(title, "bold"), title_justify="left", show_header=False)
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def plain(table: Table) -> list[str]:
    """The lines of a table as text: columns side by side, further lines of a cell below its first."""
    columns = [[_text(cell) for cell in column.cells] for column in table.columns]
    heads = [_text(column.header) for column in table.columns]
    rows = ([heads] if table.show_header and any(heads) else []) + [list(row) for row in zip(*columns, strict=True)]
    widths = [max((len(line) for row in rows for line in row[i].splitlines()), default=0) for i in range(len(heads))]
    title = [] if table.title is None else [_text(table.title)]
    lines = []
    for row in rows:
        cells = [cell.splitlines() or [""] for cell in row]
        for k in range(max(map(len, cells), default=0)):
            parts = [(cell[k] if k < len(cell) else "").ljust(width) for cell, width in zip(cells, widths, strict=True)]
            lines.append(GAP.join(parts).rstrip())
    return [*title, *lines, *([] if table.caption is None else [_text(table.caption)])]


def in_digits(number: float) -> str:
    """A number, to four digits.

    Example:
        >>> in_digits(26920.4), in_digits(14.98765)
        ('26,920', '14.99')
    """
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _text(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
