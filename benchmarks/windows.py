"""Exact windows: what they take over, how much faster a step is than the module on its window, and a picture. One thread.

python -m benchmarks.windows [--only eeg] [--compiled] [--markdown docs/windows.md]
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co

from .window_networks import NETWORKS, Ecg, Network

HEAD = "| network | L | every | reuse | step | compiled | state, KiB |\n|---|---|---|---|---|---|---|"


def least(run: Callable[[], Any], seconds: float = 0.5) -> float:
    """The least time of some runs."""
    spent, end = list[float](), time.perf_counter() + seconds
    with torch.inference_mode():
        run()
        while len(spent) < 5 or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            spent.append(time.perf_counter() - start)
    return min(spent)


def row_of(network: Network, every: int | None, compiled: bool) -> str:
    """A row of the table."""
    module, clip = network.made()
    net: Any = co.continual(module, clip, time_dim=network.dim, every=every)
    report = net.windows
    state = net.init_state(clip.select(network.dim, 0)).nbytes
    step = "recomputed" if report.recomputed else f"{report.ratio:.1f}×"
    more = f"{of_program(module, net, clip, network.dim):.1f}×" if compiled else "–"
    return f"| {network.name} | {report.length} | {report.every} | {report.reuse:.0%} | {step} | {more} | {state / 1024:,.0f} |"


def of_program(module: Any, net: Any, clip: Tensor, dim: int) -> float:
    """How much faster a call of the compiled program is than the compiled module on its window."""
    program = co.compile(net, clip.select(dim, 0))
    state = [program.init_state()]
    frames = clip.narrow(dim, 0, program.chunk) if program.chunk <= clip.shape[dim] else clip

    def call() -> None:
        state[0] = program(frames, state[0])[2]

    torch.backends.mha.set_fastpath_enabled(False)  # torch.compile can't follow it
    whole = torch.compile(module, dynamic=False)
    return least(lambda: whole(clip)) / least(call)


def picture(path: Path) -> None:
    """Scores of one network as exact windows and as a stream, and how far they are from each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    torch.manual_seed(3)
    module, length = Ecg(width=16).eval(), 1000
    clip = torch.randn(1, 12, length)
    steps = 3 * length
    stream = torch.randn(1, 12, steps) * (1 + torch.linspace(0, 12, steps).sin().abs())
    exact: Any = co.continual(module, clip)
    endless: Any = co.continual(module, clip, windows="stream")
    with torch.inference_mode():
        a, b = exact(stream)[0, 0], endless(stream)[0, 0]
    starts = torch.arange(a.shape[0]) * exact.windows.every
    figure, (top, low) = plt.subplots(2, 1, figsize=(8, 4.5), sharex=True)
    top.plot(starts, a, label="exact windows: the module's own score", lw=1.5)
    top.plot(starts, b[: len(a)], label='windows="stream"', lw=1)
    top.set_ylabel("score of one class")
    top.legend(fontsize=8)
    low.plot(starts, 100 * (b[: len(a)] - a).abs() / a.abs().max(), color="black", lw=1)
    low.set_ylabel("difference, %")
    low.set_xlabel("first sample of the window")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def rows(only: str, compiled: bool) -> Iterator[str]:
    """The rows of the table."""
    for network in NETWORKS:
        if only in network.name.lower():
            for every in (None, 1):
                yield row_of(network, every, compiled)


def main() -> None:
    """Print the table, or write it and the picture into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="networks with this in their names")
    parser.add_argument("--compiled", action="store_true", help="compiled programs too, beside the compiled module")
    parser.add_argument("--markdown", type=Path, help="the page whose table is replaced")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for row in rows(args.only.lower(), args.compiled):
        print(row, flush=True)
        if row not in found:
            found.append(row)
    if args.markdown:
        text, table = args.markdown.read_text(encoding="utf-8"), "\n".join([HEAD, *found])
        args.markdown.write_text(re.sub(r"\| network \|.*?\n(?=\n|$)", f"{table}\n", text, flags=re.DOTALL), encoding="utf-8")
        picture(args.markdown.with_name("windows.png"))


if __name__ == "__main__":
    main()
