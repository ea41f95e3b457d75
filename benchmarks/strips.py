"""Pictures of timing, frame by frame: which inputs an output sees, and which call returns it. Both are measured, by gradients and by calls.

python -m benchmarks.strips docs
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch
from torch import Tensor, nn

import continual as co
from continual.tools.pictures import GREY, INK, ORANGE, PALE, PAPER, SKY

CELL, LEFT, ROW = 34, 92, 46


@dataclass(frozen=True)
class Strip:
    """A clip of one channel through a network, step by step.

    Attributes:
        steps: of the clip.
        came: the number of the call that returned each output; ``steps`` for the end of the clip.
        marked: the output that is explained.
        seen: the inputs on which it depends.
        before: frames of padding that it sees at the start.
        after: frames of padding that it sees at the end.
    """

    steps: int
    came: tuple[int, ...]
    marked: int
    seen: tuple[int, ...]
    before: int
    after: int


def came(net: co.CoModule, clip: Tensor) -> tuple[int, ...]:
    """The call that returns each output: one for each step, and the last for the end of the clip."""
    calls: list[int] = []
    with torch.no_grad():
        net.clean_state()
        for t in range(clip.shape[2]):
            ended = net.forward_steps(clip[:, :, t : t + 1], pad_end=True, update_state=False)
            y = net.forward_steps(clip[:, :, t : t + 1])
            now = 0 if y is None else y.shape[2]
            calls += [t] * now
        last = 0 if ended is None else ended.shape[2] - now
        net.clean_state()
    return (*calls, *[clip.shape[2]] * last)


def measured(net: co.CoModule, steps: int, marked: int) -> Strip:
    """Stream a clip of ``steps`` frames, and ask the gradient what output ``marked`` depends on."""
    clip = torch.rand(1, 1, steps, requires_grad=True)
    with torch.enable_grad():
        y: Tensor = net(clip)
        y[:, :, marked].sum().backward()
    assert clip.grad is not None
    seen = tuple(int(t) for t in clip.grad[0, 0].nonzero().flatten())
    first, last = net.timing.span(marked, marked)
    return Strip(steps, came(net, clip.detach()), marked, seen, max(0, -first), max(0, last - steps + 1))


def drawn(strip: Strip) -> str:
    """The strip as SVG: inputs above, and below them what each call returned."""
    columns = range(-strip.before, strip.steps + max(1, strip.after))
    width, height = LEFT + CELL * len(columns) + 12, 2 * ROW + 36

    def x(column: int) -> int:
        return LEFT + CELL * (column + strip.before)

    def cell(column: int, row: int, text: str, fill: str, dashed: bool = False) -> str:
        line = f'stroke="{GREY}"' + (' stroke-dasharray="3 3"' if dashed else "")
        box = f'<rect x="{x(column) + 2}" y="{row}" width="{CELL - 4}" height="30" rx="4" fill="{fill}" {line}/>'
        size = ' font-size="10"' if len(text) > 3 else ""  # so that 10–11 fits
        return box + f'<text x="{x(column) + CELL // 2}" y="{row + 20}" text-anchor="middle"{size}>{escape(text)}</text>'

    def name(row: int, text: str) -> str:
        return f'<text x="8" y="{row + 20}">{text}</text>'

    top, low = 10, 10 + ROW
    parts = [name(top, "input"), name(low, "returned")]
    for column in columns:
        if 0 <= column < strip.steps:
            parts.append(cell(column, top, str(column), SKY if column in strip.seen else PALE))
        elif column < 0 or column < strip.steps + strip.after:
            parts.append(cell(column, top, "0", PAPER, dashed=True))
    for call in range(strip.steps + 1):
        outputs = [j for j, when in enumerate(strip.came) if when == call]
        if outputs:
            text = f"y{outputs[0]}" if len(outputs) == 1 else f"{outputs[0]}–{outputs[-1]}"
            parts.append(cell(call, low, text, ORANGE if strip.marked in outputs else PALE))
        elif call < strip.steps:
            parts.append(cell(call, low, "–", PAPER))
    end = f'<text x="{x(strip.steps) + CELL // 2}" y="{low + 44}" text-anchor="middle" font-size="11" fill="{GREY}">end</text>'
    calls = [
        f'<text x="8" y="{low + 44}" font-size="11" fill="{GREY}">in call</text>',
        end if strip.came[-1] == strip.steps else "",
    ]
    calls += [
        f'<text x="{x(t) + CELL // 2}" y="{low + 44}" text-anchor="middle" font-size="11" fill="{GREY}">{t}</text>'
        for t in range(strip.steps)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="13" fill="{INK}">\n<rect width="{width}" height="{height}" fill="{PAPER}"/>\n'
        + "\n".join(part for part in [*parts, *calls] if part)
        + "\n</svg>\n"
    )


def _conv(kernel: int, padding: int = 0) -> Any:
    """A convolution whose weights are all positive: no gradient is 0 by chance."""
    conv = co.Conv1d(1, 1, kernel, padding=padding)
    nn.init.constant_(conv.weight, 0.5)
    return conv


def _windows() -> Any:
    """A classifier of clips of 6 frames, with its own score of the last 6 every 2 steps."""
    module = nn.Sequential(_conv(3, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
    return co.continual(module, torch.rand(2, 1, 6), windows=co.WindowPlan(every=2))


PICTURES: dict[str, tuple[Callable[[], Any], int, int]] = {  # a network, the steps of the clip, the output that is marked
    "plain": (lambda: _conv(5), 12, 3),
    "padded": (lambda: _conv(5, padding=2), 12, 3),
    "padded_start": (lambda: _conv(5, padding=2), 12, 0),
    "padded_end": (lambda: _conv(5, padding=2), 12, 11),
    "causal": (lambda: co.Sequential(_conv(5, padding=4), co.Trim(0, 4)), 12, 5),
    "strided": (lambda: co.Sequential(_conv(3, padding=1), nn.AvgPool1d(2)), 12, 2),
    "residual": (lambda: co.Residual(_conv(5, padding=2)), 12, 3),
    "upsampled": (lambda: co.Sequential(_conv(3, padding=1), nn.AvgPool1d(2), co.Upsample(scale_factor=2)), 12, 4),
    "windows": (_windows, 12, 1),
}


def pictures() -> dict[str, str]:
    """The name of each file and what is in it."""
    return {f"timing_{name}.svg": drawn(measured(make(), steps, marked)) for name, (make, steps, marked) in PICTURES.items()}


if __name__ == "__main__":
    for name, picture in pictures().items():
        Path(sys.argv[1], name).write_text(picture, encoding="utf-8")
