"""Depthwise convolutions over time and space: the compiled kernel against torch's operations, and the limit of the machine."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import continual as co
from continual.layers.conv import _Conv

from . import report
from .limits import Limit
from .measure import Effort, require_equal
from .timing import Local, alternate, conditions

CHUNK = 16  # frames
LAST, FIRST = "channels last", "channels first"
FORMATS = {LAST: (torch.channels_last, torch.channels_last_3d), FIRST: (torch.contiguous_format, torch.contiguous_format)}
HEADER = (
    "channels × frame", *(f"{what}, {how}" for what in ("step", "chunk") for how in (LAST, FIRST)), "limit", "bound by", "of the limit"
)  # fmt: skip
NETWORKS = ("cox3d_s", "cox3d_m")


class Case(NamedTuple):
    """A layer and the size of its frames."""

    channels: int
    size: int
    stride: int = 1
    kernel: tuple[int, int, int] = (3, 3, 3)

    @property
    def name(self) -> str:
        """For a table."""
        stride = ", stride 2" if self.stride == 2 else ""
        return f"{self.channels} × {self.size}²{stride}" + (", over time alone (k 5)" if self.kernel[1] == 1 else "")


CASES = (  # of CoX3D-S, CoX3D-M and the suite
    Case(24, 80, kernel=(5, 1, 1)), Case(54, 80, 2), Case(54, 40), Case(108, 40, 2), Case(108, 20), Case(216, 20, 2), Case(216, 10),
    Case(432, 10, 2), Case(432, 5), Case(54, 112, 2), Case(54, 56), Case(108, 28), Case(216, 14), Case(432, 7), Case(54, 28),
)  # fmt: skip


def by_torch(net: Any) -> Any:
    """A copy of a network that does without the kernel."""
    made = copy.deepcopy(net)
    for module in made.modules():
        if isinstance(module, _Conv):
            module._geometry = None
    return made


def pair(net: Any, clip: torch.Tensor, layout: str, effort: Effort) -> list[str]:
    """A step, and a frame of a chunk, with the kernel and (in brackets) how many times as long without, in one layout of the frames."""
    step_format, clip_format = FORMATS[layout]
    nets, clip = {"kernel": net, "torch": by_torch(net)}, clip.contiguous(memory_format=clip_format)
    frame = clip[:, :, 0].contiguous(memory_format=step_format)
    for n in nets.values():
        n.clean_state()
        for _ in range(net.delay // CHUNK + 1):
            n.forward_steps(clip)
    require_equal(layout, *(n.forward_steps(clip) for n in nets.values()))
    cells = []
    for count, run in ((1, lambda n: n.forward_step(frame)), (CHUNK, lambda n: n.forward_steps(clip))):
        rounds = effort.rounds if count == 1 else max(3, effort.rounds // 3)
        found = alternate([Local(name, lambda n=n, run=run: run(n)) for name, n in nets.items()], rounds, effort.min_block)  # type: ignore[misc]
        ratio = found.ratio("torch", "kernel").median
        cells.append(f"{report.number(1e6 * found.stats('kernel').median / count)} ({ratio:.2f}×)")
    return cells


def row(case: Case, threads: int, effort: Effort) -> tuple[str, ...]:
    """One layer at batch 1."""
    pads = tuple(k // 2 for k in case.kernel)
    stride, channels = (1, case.stride, case.stride), case.channels
    net = co.Conv3d(channels, channels, case.kernel, stride=stride, padding=pads, groups=channels).eval()
    clip = torch.randn(1, channels, CHUNK, case.size, case.size)
    (last, last_chunk), (first, first_chunk) = (pair(net, clip, layout, effort) for layout in FORMATS)
    net.clean_state()
    limit = Limit.of(net, clip[:, :, 0], threads)
    ratio = float(last.split(" ")[0].replace(",", "")) / (1e6 * limit.seconds)
    return (
        case.name, last, first, last_chunk, first_chunk, report.number(1e6 * limit.seconds), limit.bound, f"{ratio:.2f}×"
    )  # fmt: skip


def network(name: str, effort: Effort) -> tuple[str, ...]:
    """A fused network on frames as they come."""
    made = co.models.create(name)
    net = co.fuse(made)
    step, chunk = pair(net, torch.randn(1, 3, CHUNK, *made.card.step(made.card.input_size)[1:]), FIRST, effort)
    return name, "–", step, "–", chunk, "–", "–", "–"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the numbers in Markdown."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.depthwise", description="The kernel for depthwise convolutions.")
    names = [*(c.name for c in CASES), *NETWORKS]
    line.add_argument("--only", choices=names, metavar="ROW", help=f"one of {', '.join(names)}")
    line.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="numbers of threads")
    line.add_argument("--quick", action="store_true", help="short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'depthwise' of a page")
    args = line.parse_args(argv)
    effort, tables = Effort(3, 0.002) if args.quick else Effort(), []
    for threads in args.threads:
        with conditions(threads):
            rows = [row(case, threads, effort) for case in CASES if args.only in (None, case.name)]
            rows += [network(name, effort) for name in NETWORKS if args.only in (None, name)]
        tables.append(f"{threads} thread{'s' * (threads > 1)}\n\n{report.markdown_table(HEADER, rows)}")
    text = "\n\n".join([f"Measured: {report.Machine.here()}; batch 1, µs, medians of alternating blocks.", *tables])
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "depthwise", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
