"""The drawing of a network as SVG: what keeps a state, what is local, where branches meet, and where frames wait."""

from __future__ import annotations

from fractions import Fraction

from ...core.op_rows import Graph, Row
from .boxes import INPUT, JOIN, LOCAL, OUTPUT, QUEUE, REFUSED, TEMPORAL, Box, boxes_of
from .routes import Drawn, Size, route
from .style import GRAPH_CSS
from .words import MONO, OP, SMALL, TITLE, cut, safe, size

MARGIN, PAD, WIDEST = 20, 10, 330
BODY, STRIP, PILL, CELLS = 40, 19, 26, 38  # heights: of two lines, of the local operations below, of inputs, of a queue
MOST_CELLS = 8
_LEGEND = {
    TEMPORAL: "sees other moments",
    LOCAL: "local in time",
    JOIN: "branches meet",
    QUEUE: "frames wait for a slower branch",
    REFUSED: "can't be streamed",
}


def draw(graph: Graph, titled: bool = True) -> str:
    """A network as SVG: self-contained, readable on light and dark pages.

    Args:
        graph: the network.
        titled: write its name and numbers above it.
    """
    found = boxes_of(graph)
    sizes = [_size(box) for box in found.boxes]
    drawn = route(sizes, found.edges, found.queues)
    header, top, least = _header(graph, {box.kind for box in found.boxes}, titled)
    width, height = max(drawn.width, least) + 2 * MARGIN, top + drawn.height + MARGIN
    left = (width - drawn.width) / 2
    title = safe(f"{graph.name or 'network'}: how it streams")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="co-graph" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{title}">',
        f"<style>{GRAPH_CSS}</style>",
        f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>',
        *header,
        f'<g transform="translate({left:.1f} {top:.1f})">',
        *(_line(points, found.boxes[e.src], found.boxes[e.dst]) for points, e in zip(drawn.lines, found.edges, strict=True)),
        *_all_boxes(found.boxes, sizes, drawn),
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def facts(graph: Graph) -> str:
    """The numbers of the whole network, in a line."""
    rates = {graph.rows[i].rate for i in graph.outputs if i >= 0}
    said = [
        f"receptive field {graph.receptive_field:,}",
        f"delay {graph.delay:,}",
        f"{size(graph.state_bytes)} of state",
        *(_often(rate) for rate in sorted(rates) if rate != 1),
    ]
    refused = len(graph.refusals)
    return " · ".join(said) if graph.streamable else f"can't be streamed exactly: {refused} reason{'s' * (refused > 1)}"


def _often(rate: Fraction) -> str:
    """How often an output comes."""
    return f"an output every {rate.denominator} steps" if rate.numerator == 1 else f"{rate} outputs a step"


def _header(graph: Graph, kinds: set[str], titled: bool) -> tuple[list[str], float, float]:
    """Name, numbers and legend, where the drawing begins below them, and how wide they are."""
    parts, least, y = [], 0.0, float(MARGIN)
    if titled:
        name, numbers = cut(graph.name or "network", 700, TITLE), facts(graph)
        parts += [
            _text("title ink", MARGIN, y + 14, name),
            _text("dim", MARGIN, y + 34, numbers),
        ]
        least, y = max(TITLE * len(name), 6.8 * len(numbers)), y + 50
    x = float(MARGIN)
    for kind in (k for k in _LEGEND if k in kinds):
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="14" height="11" rx="3"/>')
        parts.append(_text("small dim", x + 19, y + 9.5, _LEGEND[kind]))
        x += 19 + 5.9 * len(_LEGEND[kind]) + 20
    return parts, y + (36 if x > MARGIN else 0), max(least, x - MARGIN)


def _lines(box: Box) -> tuple[tuple[str, str], tuple[str, str]]:
    """What stands in a box: left and right, in two lines."""
    if not box.rows:
        refused = box.refusal
        return (refused.op or refused.path if refused else box.label, ""), (refused.path if refused else "", "")
    row = box.rows[0]
    if box.kind == LOCAL and len(box.rows) > 1:
        return (", ".join(r.op for r in box.rows), ""), (
            f"{box.rows[0].path} … {box.rows[-1].path}",
            f"{len(box.rows)} local",
        )
    rate = f"rate {row.rate}" if row.rate != 1 else ""
    if box.kind == LOCAL:
        return (row.op, ""), (row.path, "")
    timing = " · ".join(part for part in (rate, f"delay {row.delay:,}") if part)
    state = size(row.state_bytes) if row.state_bytes else ""
    span = f"field {row.receptive_field:,}"
    return (row.op, timing), (row.path, " · ".join(part for part in (span, state) if part))


def _strip(box: Box) -> str:
    """The local operations that follow in the same box."""
    after = [] if box.kind == LOCAL else box.rows[1:]
    return "then " + ", ".join(_short(row) for row in after) if after else ""


def _short(row: Row) -> str:
    """A local operation without its options."""
    return row.op.split(" ")[0].split("(")[0]


def _size(box: Box) -> Size:
    if box.kind == QUEUE:
        label = _waits(box)
        return Size(max(30.0, SMALL * len(label) + 14, 7.0 * min(box.frames, MOST_CELLS) + 15), CELLS)
    if box.kind in (INPUT, OUTPUT):
        return Size(min(WIDEST, MONO * len(box.label) + 28), PILL)
    (op, timing), (path, numbers) = _lines(box)
    gap = 18
    wide = max(
        OP * len(op) + SMALL * len(timing) + gap * bool(timing),
        MONO * len(path) + SMALL * len(numbers) + gap * bool(numbers),
        min(240, SMALL * len(_strip(box))),
    )
    return Size(min(WIDEST, max(120.0, wide + 2 * PAD)), BODY + STRIP * bool(_strip(box)))


def _waits(box: Box) -> str:
    return f"waits {box.frames:,}" if box.frames else box.label


def _all_boxes(boxes: list[Box], sizes: list[Size], drawn: Drawn) -> list[str]:
    """The boxes, as one element each, with a title that browsers show when the mouse rests on it."""
    made = []
    for box, measure, (x, y) in zip(boxes, sizes, drawn.corners, strict=True):
        title = safe(_title(box))
        inside = (
            _queue(box, measure)
            if box.kind == QUEUE
            else _pill(box, measure)
            if box.kind in (INPUT, OUTPUT)
            else _body(box, measure)
        )
        made.append(f'<g transform="translate({x:.1f} {y:.1f})"><title>{title}</title>{"".join(inside)}</g>')
    return made


def _title(box: Box) -> str:
    """All that is known of a box."""
    lines = []
    for row in box.rows:
        lines.append(f"{row.path}: {row.op}" if row.path else row.op)
        lines += [part for part in (row.source, row.note) if part]
    if box.rows:
        last = box.rows[-1]
        state = sum(row.state_bytes for row in box.rows)
        lines.append(
            f"rate {last.rate}, receptive field {last.receptive_field:,}, delay {last.delay:,}, state {size(state)} for the batch"
        )
    if box.kind == QUEUE:
        lines.append(f"{box.frames:,} frames wait here" if box.frames != 1 else "1 frame waits here")
    if box.refusal:
        lines += [box.refusal.reason, box.refusal.remedy and f"Remedy: {box.refusal.remedy}"]
    return "\n".join(line for line in [*lines, *([box.label] if not lines else [])] if line)


def _rect(kind: str, measure: Size, radius: float) -> str:
    return f'<rect class="{kind}" width="{measure.width:.1f}" height="{measure.height:.1f}" rx="{radius}"/>'


def _text(classes: str, x: float, y: float, text: str, anchor: str = "") -> str:
    side = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}"{side}>{safe(text)}</text>' if text else ""


def _body(box: Box, measure: Size) -> list[str]:
    (op, timing), (path, numbers) = _lines(box)
    right = measure.width - PAD
    room = measure.width - 2 * PAD
    parts = [
        _rect(box.kind, measure, 7),
        _text("op ink", PAD, 17, cut(op, room - SMALL * (len(timing) + 2 * bool(timing)), OP)),
        _text("small dim", right, 17, timing, "end"),
        _text("mono dim", PAD, 32, cut(path, room - SMALL * (len(numbers) + 2 * bool(numbers)), MONO, end=True)),
        _text("small dim", right, 32, numbers, "end"),
    ]
    if strip := _strip(box):
        parts.append(f'<line class="{box.kind}-rule" x1="0" x2="{measure.width:.1f}" y1="{BODY}" y2="{BODY}"/>')
        parts.append(_text("small dim", PAD, BODY + 13.5, cut(strip, room, SMALL)))
    return parts


def _pill(box: Box, measure: Size) -> list[str]:
    """Inputs and outputs."""
    text = _text("mono ink", measure.width / 2, measure.height / 2 + 4, cut(box.label, measure.width - 16, MONO), "middle")
    return [_rect(box.kind, measure, measure.height / 2), text]


def _queue(box: Box, measure: Size) -> list[str]:
    """A frame with a cell for each waiting frame, up to some."""
    shown = min(box.frames, MOST_CELLS) or 1
    more = box.frames > MOST_CELLS
    pitch, wide = 7.0, 5.0
    x = (measure.width - pitch * shown + (pitch - wide)) / 2
    cells = [
        f'<rect class="cell" x="{x + pitch * i:.1f}" y="7" width="{wide}" height="11" rx="1"'
        + (f' opacity="{0.85 - 0.25 * (i - shown + 4):.2f}"/>' if more and i >= shown - 3 else "/>")
        for i in range(shown)
    ]
    label = _text("small ink", measure.width / 2, measure.height - 7, _waits(box), "middle")
    return [_rect(QUEUE, measure, 5), *cells, label]


def _line(points: list[tuple[float, float]], src: Box, dst: Box) -> str:
    """A line with round corners; it has a head where it enters an operation, and the queue's colour next to a queue."""
    late = QUEUE in (src.kind, dst.kind)
    (x, y), radius = points[0], 6.0
    path = [f"M{x:.1f} {y:.1f}"]
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        r = min(radius, (abs(bx - ax) + abs(by - ay)) / 2, (abs(cx - bx) + abs(cy - by)) / 2)
        path.append(f"L{bx - r * _sign(bx - ax):.1f} {by - r * _sign(by - ay):.1f}")
        path.append(f"Q{bx:.1f} {by:.1f} {bx + r * _sign(cx - bx):.1f} {by + r * _sign(cy - by):.1f}")
    x, y = points[-1]
    head = dst.kind != QUEUE
    path.append(f"L{x:.1f} {y - 4 * head:.1f}")
    line = f'<path class="line{" late" if late else ""}" d="{"".join(path)}"/>'
    if head:
        line += f'<path class="{"late-head" if late else "head"}" d="M{x - 4:.1f} {y - 6.5:.1f}h8l-4 6.5z"/>'
    return line


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
