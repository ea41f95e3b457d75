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
from continual.tools import pictures

from .window_networks import NETWORKS, Ecg, Network

HEAD = "| network | L | every | reuse | step | compiled | state, KiB |\n|---|---|---|---|---|---|---|"


def least(runs: Sequence[Callable[[], Any]], seconds: float = 0.5) -> list[float]:
    """The least CPU time of each of some runs, which take turns: other programs take the processor away from long runs alone."""
    spent = [float("inf")] * len(runs)
    with torch.inference_mode():
        for run in runs:
            run()
        end, rounds = time.perf_counter() + seconds * len(runs), 0
        while rounds < 7 or time.perf_counter() < end:
            rounds += 1
            for i, run in enumerate(runs):
                start = time.thread_time()
                run()
                spent[i] = min(spent[i], time.thread_time() - start)
    return spent


def row_of(network: Network, every: int | None, compiled: bool) -> str:
    """A row of the table: of windows that take over all that they have in common, unless each of them again is faster."""
    module, clip = network.made(2)  # rows, by which inputs that are not streams are known to have some
    inputs = tuple(x[:1] for x in (clip if isinstance(clip, tuple) else (clip,)))
    net: Any = co.continual(module, clip, time_dim=network.dim, windows=co.WindowPlan(every=every))
    report = net.windows
    steps = [x if t is None else x.select(t, 0) for x, t in zip(inputs, net.time_dims, strict=True)]
    state = net.init_state(*steps).nbytes
    found = [shown(of_steps(module, net, inputs)), shown(of_program(module, net, inputs)) if compiled else "–"]
    return (
        f"| {network.name} | {report.length} | {report.every} | {report.reuse:.0%} | {' | '.join(found)} | {state / 1024:,.0f} |"
    )


def shown(ratio: float) -> str:
    """How much faster it is; below 1 windows are computed again instead."""
    return f"{ratio:.1f}×" if ratio >= 1 else "recomputed"


def of_steps(module: Any, net: Any, inputs: tuple[Tensor, ...]) -> float:
    """How much faster the steps from one score to the next are than the module on its window, eager."""
    every = net.windows.every
    hop = [x if t is None else x.narrow(t, 0, min(every, x.shape[t])) for x, t in zip(inputs, net.time_dims, strict=True)]
    with torch.inference_mode():
        for _ in range(-(-net.windows.length // every)):  # until windows are full
            net.forward_steps(*hop)
    whole, step = least([lambda: module(*inputs), lambda: net.forward_steps(*hop)])
    return whole / step


def of_program(module: Any, net: Any, inputs: tuple[Tensor, ...]) -> float:
    """How much faster a call of the compiled program is than the compiled module on its window."""
    torch.backends.mha.set_fastpath_enabled(False)  # torch.compile can't follow it
    whole = torch.compile(module, dynamic=False)
    window, call = least([lambda: whole(*inputs), call_of(net, inputs)])
    return window / call


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
    figure = pictures.figure("benchmarks.windows", 8, 4.5)
    top, low = figure.subplots(2, 1, sharex=True)
    top.plot(starts, a, label="exact windows: the module's own score", lw=1.5)
    top.plot(starts, b[: len(a)], label='windows="stream"', lw=1)
    top.set_ylabel("score of one class")
    pictures.legend(top)
    low.plot(starts, 100 * (b[: len(a)] - a).abs() / a.abs().max(), color=pictures.INK, lw=1)
    low.set_ylabel("difference, % of largest")
    low.set_xlabel("first sample of the window")
    pictures.save(figure, path)


def rows(only: str, compiled: bool) -> Iterator[str]:
    """The rows of the table."""
    for network in NETWORKS:
        if only in network.name.lower():
            for every in network.every:
                yield row_of(network, every, compiled)


def with_rows(page: str, rows: Sequence[str]) -> str:
    """A page whose table has some rows again; it keeps those of the other networks that there are, all in their order."""
    place = {network.name: i for i, network in enumerate(NETWORKS)}
    table = re.search(r"\| network \|.*?\n(?=\n|\Z)", page, re.DOTALL)
    if table is None:
        raise ValueError("the page has no table of networks")
    own = {}
    for row in (*table[0].splitlines()[2:], *rows):
        name, _, every = (cell.strip() for cell in row.split("|")[1:4])
        if name in place:
            own[place[name], -int(every)] = row
    text = "\n".join([HEAD, *(own[key] for key in sorted(own))])
    return f"{page[: table.start()]}{text}\n{page[table.end() :]}"


def main() -> None:
    """Print the table, or write it and the picture into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="networks with this in their names")
    parser.add_argument("--compiled", action="store_true", help="compiled programs too, beside the compiled module")
    parser.add_argument(
        "--markdown", type=Path, help="the page in whose table these rows are put; without --only the picture too"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for row in rows(args.only.lower(), args.compiled):
        print(row, flush=True)
        found.append(row)
    if args.markdown:
        args.markdown.write_text(with_rows(args.markdown.read_text(encoding="utf-8"), found), encoding="utf-8")
        if not args.only:
            picture(args.markdown.with_name("windows.png"))


if __name__ == "__main__":
    main()
