"""An explanation as a page: the picture, the refusals, the table and the notes. Nothing in it is fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...core.op_rows import Graph, Refusal, cells, totals, where
from ...core.optional_packages import TOGETHER, pip_install
from . import boxes
from .diagram import COLOURS, INK, LINE, PAPER, mermaid, svg

_TITLES = ("", "path", "op", "takes", "rate", "receptive field", "delay", "state bytes", "source")
_WORDS = {1: "word mono", 2: "word", 3: "word", 8: "word mono"}  # classes of the columns of words
_SANS = "ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def _shades(dark: bool) -> str:
    """The colours of light or dark pages, by name."""
    named = {"paper": PAPER[dark], "ink": INK[dark], "line": LINE[dark], "bad": ("#c2352b", "#ff8077")[dark]}
    named |= {kind: COLOURS[kind][2 * dark] for kind in boxes.LEGEND}
    return ";".join(f"--co-{name}:{colour}" for name, colour in named.items())


_CSS = f"""
.co-page{{color-scheme:light dark;{_shades(False)};background:var(--co-paper);color:var(--co-ink);font:14px/1.5 {_SANS};padding:20px}}
@media (prefers-color-scheme:dark){{.co-page{{{_shades(True)}}}}}
.co-page h1{{font-size:22px;margin:0 0 4px}} .co-page h2{{font-size:16px;margin:28px 0 8px}}
.co-page .wide{{overflow-x:auto}} .co-page .dim,.co-page th{{opacity:.75}}
.co-page .key{{border:1px solid var(--co-line);border-radius:3px;padding:1px 8px;margin:0 8px 4px 0;display:inline-block}}
.co-page table{{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;color:inherit}}
.co-page th,.co-page td{{padding:3px 10px;text-align:right;border-bottom:1px solid color-mix(in srgb,var(--co-line) 30%,transparent);
  white-space:nowrap;vertical-align:top;background:none;color:inherit}}
.co-page .word{{text-align:left}} .co-page .mono,.co-page code,.co-page pre{{font-family:{_MONO};font-size:12px}}
.co-page tfoot td{{font-weight:600;border-bottom:0}} .co-page tr.bad td{{color:var(--co-bad)}}
.co-page .refusals{{list-style:none;padding:0}}
.co-page .refusals li{{margin:0 0 14px;border-left:3px solid var(--co-bad);padding:2px 12px;white-space:pre-line}}
.co-page .refusals p{{margin:2px 0}}
"""


def page(graph: Graph) -> str:
    """A whole HTML document."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_safe(graph.name or "network")}: how it streams'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1"><style>body{margin:0}</style></head>\n'
        f"<body>{fragment(graph)}</body></html>\n"
    )


def fragment(graph: Graph) -> str:
    """The body of the page, which notebooks show."""
    notes = "".join(f"<li>{_safe(note)}</li>" for note in graph.all_notes())
    parts = [
        f'<div class="co-page"><style>{_CSS}</style>',
        f"<h1>{_safe(graph.name or 'network')}</h1>",
        f'<p class="dim">{_safe(" · ".join([*graph.inputs, boxes.facts(graph)]))}</p>',
        _section("Refused", "".join(map(_refusal, graph.refusals)), '<ol class="refusals">{}</ol>'),
        _section("Graph", _picture(graph), '<div class="wide">{}</div>'),
        _section("Operations", _table(graph) if graph.rows else "", '<div class="wide">{}</div>'),
        _section("Notes", notes, "<ul>{}</ul>"),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _safe(text: str) -> str:
    return escape(boxes.safe(text), quote=True)


def _section(title: str, content: str, around: str) -> str:
    return f"<h2>{title}</h2>{around.format(content)}" if content else ""


def _picture(graph: Graph) -> str:
    """The picture with its legend; where it can't be drawn, its text in Mermaid and what to install."""
    try:
        drawn = svg(graph, titled=False)
    except ImportError:
        advice = f"Graphviz is not installed, so the graph is shown as text of Mermaid; this installs it: {pip_install(*TOGETHER['draw'])}"
        return f'<p class="dim">{_safe(advice)}</p><details><summary>text</summary><pre>{_safe(mermaid(graph))}</pre></details>'
    kinds = {box.kind for box in boxes.boxes_of(graph)}
    keys = (f'<span class="key" style="background:var(--co-{k})">{said}</span>' for k, said in boxes.LEGEND.items() if k in kinds)
    return f"<p>{''.join(keys)}</p>{drawn}"


def _line(cells: Sequence[str], tag: str = "td", kind: str = "") -> str:
    classes = (f' class="{_WORDS[i]}"' if i in _WORDS else "" for i in range(len(cells)))
    inside = "".join(f"<{tag}{c}>{_safe(cell)}</{tag}>" for c, cell in zip(classes, cells, strict=True))
    return f'<tr class="{kind}">{inside}</tr>' if kind else f"<tr>{inside}</tr>"


def _table(graph: Graph) -> str:
    body = "\n".join(
        _line((*cells(graph, i), row.source), kind="bad" if graph.refusal_of(row) else "") for i, row in enumerate(graph.rows)
    )
    foot = "".join(_line((*line, "")) for line in totals(graph))
    return f"<table><thead>{_line(_TITLES, 'th')}</thead>\n<tbody>{body}</tbody>\n<tfoot>{foot}</tfoot></table>"


def _refusal(refusal: Refusal) -> str:
    parts = [f"<p><b>{_safe(where(refusal))}</b></p>"]
    parts += [f"<p><code>{_safe(refusal.source)}</code></p>"] if refusal.source else []
    parts.append(f"<p>{_safe(refusal.reason)}</p>")
    parts += [f"<p><b>Remedy:</b> {_safe(refusal.remedy)}</p>"] if refusal.remedy else []
    return f"<li>{''.join(parts)}</li>"
