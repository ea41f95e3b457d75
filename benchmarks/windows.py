"""Exact windows: what they take over, how much faster a step is than the module on its window, and a picture. One thread.

python -m benchmarks.windows [--only eeg] [--compiled] [--markdown docs/windows.md]
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co

from .window_networks import NETWORKS, Ecg, Network

HEAD = "| network | L | every | reuse | step | compiled | state, KiB |\n|---|---|---|---|---|---|---|"


def least(runs: Sequence[Callable[[], Any]], seconds: float = 0.5) -> list[float]:
    """The least time of each of some runs, which take turns, so that whatever else the machine does meets all of them."""
    spent = [float("inf")] * len(runs)
    with torch.inference_mode():
        for run in runs:
            run()
        end, rounds = time.perf_counter() + seconds * len(runs), 0
        while rounds < 5 or time.perf_counter() < end:
            rounds += 1
            for i, run in enumerate(runs):
                start = time.perf_counter()
                run()
                spent[i] = min(spent[i], time.perf_counter() - start)
    return spent


def row_of(network: Network, every: int | None, compiled: bool) -> str:
    """A row of the table."""
    module, clip = network.made(2)  # rows, by which inputs that are no streams are known to have some
    inputs = tuple(x[:1] for x in (clip if isinstance(clip, tuple) else (clip,)))
    net: Any = co.continual(module, clip, time_dim=network.dim, every=every)
    report = net.windows
    steps = [x if t is None else x.select(t, 0) for x, t in zip(inputs, net.time_dims, strict=True)]
    state = net.init_state(*steps).nbytes
    step = "recomputed" if report.recomputed else f"{of_steps(module, net, inputs):.1f}×"
    more = f"{of_programs(module, net, network, clip, inputs):.1f}×" if compiled else "–"
    return f"| {network.name} | {report.length} | {report.every} | {report.reuse:.0%} | {step} | {more} | {state / 1024:,.0f} |"


def of_steps(module: Any, net: Any, inputs: tuple[Tensor, ...]) -> float:
    """How much faster the steps from one score to the next are than the module on its window, eager."""
    every = net.windows.every
    hop = [x if t is None else x.narrow(t, 0, min(every, x.shape[t])) for x, t in zip(inputs, net.time_dims, strict=True)]
    with torch.inference_mode():
        for _ in range(-(-net.windows.length // every)):  # until windows are full
            net.forward_steps(*hop)
    whole, step = least([lambda: module(*inputs), lambda: net.forward_steps(*hop)])
    return whole / step


def of_programs(module: Any, net: Any, network: Network, clip: Any, inputs: tuple[Tensor, ...]) -> float:
    """How much faster a call of a compiled program is than the compiled module on its window: of the measured plan, or of the one that
    takes over all."""
    torch.backends.mha.set_fastpath_enabled(False)  # torch.compile can't follow it
    whole = torch.compile(module, dynamic=False)
    plans = dict.fromkeys((net.windows.plan, *net.windows.ways[1:2]))
    nets = [co.continual(module, clip, time_dim=network.dim, windows=plan) for plan in plans]
    module_time, *times = least([lambda: whole(*inputs), *(call_of(n, inputs) for n in nets)])
    return module_time / min(times)


def call_of(net: Any, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """A call of the compiled program, which goes on from the one before."""
    steps = [x if t is None else x.select(t, 0) for x, t in zip(inputs, net.time_dims, strict=True)]
    program = co.compile(net, steps if len(steps) > 1 else steps[0])
    frames = [x if t is None else x.narrow(t, 0, program.chunk) for x, t in zip(inputs, net.time_dims, strict=True)]
    state = [program.init_state()]

    def call() -> None:
        state[0] = program(frames if len(frames) > 1 else frames[0], state[0])[2]

    return call


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
            for every in network.every:
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
