"""An explanation as a page: the drawing, the refusals, the table and the notes, without anything from outside."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.op_rows import Graph, Refusal, where
from .picture import draw, facts
from .style import PAGE_CSS
from .words import safe

_TITLES = ("", "path", "op", "takes", "rate", "receptive field", "delay", "state bytes", "source")
_WORDS = {1: "word mono", 2: "word", 3: "word", 8: "word mono"}  # classes of the columns that are no numbers


def page(graph: Graph) -> str:
    """A whole HTML document."""
    title = safe(graph.name or "network")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}: how it streams</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>body{margin:0}</style></head>\n'
        f"<body>{fragment(graph)}</body></html>\n"
    )


def fragment(graph: Graph) -> str:
    """What stands in the page's body; a notebook shows it as it is."""
    parts = [
        f'<div class="co-page"><style>{PAGE_CSS}</style>',
        f"<h1>{safe(graph.name or 'network')}</h1>",
        f'<p class="facts">{safe(" · ".join([*graph.inputs, facts(graph)]))}</p>',
        *(["<h2>Refused</h2>", _refusals(graph.refusals)] if graph.refusals else []),
        f'<h2>Graph</h2><div class="wide">{draw(graph, titled=False)}</div>',
        *(["<h2>Operations</h2>", _table(graph)] if graph.rows else []),
        *(["<h2>Notes</h2>", _notes(graph.all_notes())] if graph.all_notes() else []),
        "</div>",
    ]
    return "\n".join(parts)


def _line(cells: Sequence[str], tag: str = "td", kind: str = "") -> str:
    inside = "".join(
        f'<{tag} class="{_WORDS[i]}">{safe(cell)}</{tag}>' if i in _WORDS else f"<{tag}>{safe(cell)}</{tag}>"
        for i, cell in enumerate(cells)
    )
    return f'<tr class="{kind}">{inside}</tr>' if kind else f"<tr>{inside}</tr>"


def _table(graph: Graph) -> str:
    lines = [
        _line((*graph.cells(i), row.source), kind="bad" if graph.refusal_of(row) else "") for i, row in enumerate(graph.rows)
    ]
    totals = "".join(_line((*cells, "")) for cells in graph.totals())
    head = _line(_TITLES, "th")
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead>{head}</thead>\n<tbody>{body}</tbody>\n<tfoot>{totals}</tfoot></table></div>'


def _refusals(refusals: Sequence[Refusal]) -> str:
    items = []
    for refusal in refusals:
        parts = [f"<p><b>{safe(where(refusal))}</b></p>"]
        parts += [f"<p><code>{safe(refusal.source)}</code></p>"] if refusal.source else []
        parts.append(f"<p>{safe(refusal.reason)}</p>")
        parts += [f"<p><b>Remedy:</b> {safe(refusal.remedy)}</p>"] if refusal.remedy else []
        items.append(f"<li>{''.join(parts)}</li>")
    return f'<ol class="refusals">{"".join(items)}</ol>'


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{safe(note)}</li>" for note in notes)}</ul>'
