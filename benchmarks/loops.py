"""Loops over frames: a step of the converted network against the cell called by hand, and a chunk against its steps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import continual as co
from tests.convert.loops.networks import ConvLSTMCell

from . import report
from .measure import Effort, require_equal
from .timing import Local, alternate, conditions

CHUNK = 64  # frames
HEADER = ("loop", "step, µs", "cell by hand, µs", "step / cell", f"chunk of {CHUNK} / its steps")
ALLOWED = 1.5  # times the cell by hand


class Looped(nn.Module):
    """A cell over the frames of a clip ``(B, T, C, *S)``."""

    def __init__(self, cell: Any, states: int):
        super().__init__()
        self.cell, self.states = cell, states

    def cold(self, frame: Tensor) -> Any:
        """Zeros before the first frame."""
        zeros = [frame.new_zeros(frame.shape[0], self.cell.hidden_size, *frame.shape[2:]) for _ in range(self.states)]
        return tuple(zeros) if self.states > 1 else zeros[0]

    def forward(self, x: Tensor) -> Tensor:
        state, outs = self.cold(x[:, 0]), []
        for i in range(x.shape[1]):
            state = self.cell(x[:, i], state)
            outs.append(state[0] if self.states > 1 else state)
        return torch.stack(outs, 1)


class Leaky(nn.Module):
    """An exponential mean with weights that depend on the frame: linear in the state."""

    hidden_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(64, 64)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        a = torch.sigmoid(self.gate(x))
        return a * h + (1 - a) * x


class Case(NamedTuple):
    """A loop, and the shape of a frame."""

    make: Callable[[], Looped]
    frame: tuple[int, ...]


CASES = {
    "LSTMCell 64": Case(lambda: Looped(nn.LSTMCell(64, 64), 2), (64,)),
    "GRUCell 64": Case(lambda: Looped(nn.GRUCell(64, 64), 1), (64,)),
    "ConvLSTM 16 channels, 32²": Case(lambda: Looped(ConvLSTMCell(16, 16), 2), (16, 32, 32)),
    "ConvLSTM 16 channels, 8²": Case(lambda: Looped(ConvLSTMCell(16, 16), 2), (16, 8, 8)),
    "gated mean 64": Case(lambda: Looped(Leaky(), 1), (64,)),
}


class Row(NamedTuple):
    """What was measured: seconds a step, and ratios within rounds."""

    name: str
    step: float
    hand: float
    ratio: float
    chunk: float

    def cells(self) -> tuple[str, ...]:
        """For a table."""
        return (
            self.name, report.number(1e6 * self.step), report.number(1e6 * self.hand), f"{self.ratio:.2f}×", f"{self.chunk:.2f}×"
        )  # fmt: skip


def row(name: str, effort: Effort) -> Row:
    """Measure one loop at batch 1."""
    case = CASES[name]
    with torch.inference_mode(False), torch.no_grad():
        module = case.make().eval()
        net = co.continual(module, torch.randn(2, 9, *case.frame), time_dim=1)
    chunk = torch.randn(1, CHUNK, *case.frame)
    require_equal(name, net.forward_steps(chunk), module(chunk))
    frame, state = chunk[:, 0], [module.cold(chunk[:, 0])]

    def by_hand() -> None:
        state[0] = module.cell(frame, state[0])

    def steps() -> None:
        for t in range(CHUNK):
            net.forward_step(chunk[:, t])

    single = alternate([Local("step", lambda: net.forward_step(frame)), Local("hand", by_hand)], effort.rounds, effort.min_block)
    several = alternate(
        [Local("chunk", lambda: net.forward_steps(chunk)), Local("steps", steps)], max(3, effort.rounds // 3), effort.min_block
    )
    return Row(
        name, single.stats("step").median, single.stats("hand").median, single.ratio("step", "hand").median,
        several.ratio("chunk", "steps").median,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the numbers in Markdown; the status is 1 if a step takes too long."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.loops", description="Loops over frames against their cells.")
    line.add_argument("--only", choices=list(CASES), metavar="LOOP", help=f"one of {', '.join(CASES)}")
    line.add_argument("--quick", action="store_true", help="short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'loops' of a page")
    args = line.parse_args(argv)
    effort = Effort(3, 0.002) if args.quick else Effort()
    with conditions(1):
        rows = [row(name, effort) for name in ([args.only] if args.only else CASES)]
    said = f"Measured: {report.Machine.here()}; 1 thread, batch 1, medians of alternating blocks."
    text = f"{said}\n\n{report.markdown_table(HEADER, [r.cells() for r in rows])}"
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "loops", text)
    return int(any(r.ratio > ALLOWED for r in rows))


if __name__ == "__main__":
    sys.exit(main())
