"""A server under load on the loopback: sockets, multiplexed streams, the first frame, and the end of a stream with a long delay.

python -m benchmarks.serving [--seconds 8] [--markdown docs/serving.md] [--figure docs/serving.png]

The server runs in a process of its own, with one thread of torch; its CPU seconds are those that the kernel counts. Clients run in this
process, and share the machine with it: on two cores latencies are those of a machine that does both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import continual as co
from continual.tools import pictures

from .report import Machine
from .serving_loads import an_end, beside_faults, first_frame, multiplexed, sockets

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    """A measurement.

    Attributes:
        what: was done.
        frames: that took their step, a second.
        asked: frames a second that clients sent.
        cpu: µs of CPU time of the server for each frame.
        p50, p99: milliseconds from a frame to its answer.
        latencies: all of them, in milliseconds.
    """

    what: str
    frames: float
    asked: float
    cpu: float
    p50: float
    p99: float
    latencies: Any


def small(channels: int = 16) -> Any:
    """8 numbers to 4 by two causal convolutions."""
    torch.manual_seed(0)
    return co.Sequential(co.Conv1d(8, channels, 3), nn.ReLU(), co.Conv1d(channels, 4, 3)).eval()


def delayed() -> Any:
    """A delay of 255: the end of a stream brings 255 outputs."""
    torch.manual_seed(0)
    return co.Sequential(co.Conv1d(8, 8, 256, padding=255), co.Delay(255), nn.ReLU()).eval()


def _serve(make: Callable[[], Any], options: dict[str, Any], pipe: Connection) -> None:
    """The process of a server."""
    torch.set_num_threads(1)

    async def main() -> None:
        engine = co.serve.Engine(make(), torch.zeros(1, 8), **options)
        async with co.serve.Server(engine, port=0, grace=0.1) as server:
            pipe.send((server.url, os.getpid()))
            while not pipe.poll():
                await asyncio.sleep(0.05)

    _run(main())


def _echo(make: Callable[[], Any], options: dict[str, Any], pipe: Connection) -> None:
    """The process of a server that sends back what it gets: what the transport costs alone."""
    from websockets.asyncio.server import serve

    async def each(socket: Any) -> None:
        shape = {"shape": [[8]], "dtype": ["float32"]}
        await socket.recv()
        await socket.send(json.dumps({"type": "opened", **shape, "outputs": shape}))
        async for message in socket:
            await socket.send(message)

    async def main() -> None:
        async with serve(each, "127.0.0.1", 0, subprotocols=["continual.v1"], compression=None) as server:
            pipe.send((f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream", os.getpid()))
            while not pipe.poll():
                await asyncio.sleep(0.05)

    _run(main())


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def served(
    make: Callable[[], Any],
    options: dict[str, Any],
    load: Callable[[str], Coroutine[Any, Any, Any]],
    server: Callable[..., None] = _serve,
) -> tuple[Any, float, float]:
    """Start a server, run a load, and stop it. Returns the load's result, the server's CPU seconds and the seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=server, args=(make, options, there))
    process.start()
    try:
        if not here.poll(240):
            raise SystemExit("the server did not start")
        url, pid = here.recv()
        before, started = cpu_of(pid), time.perf_counter()
        found = asyncio.run(load(url))
        return found, cpu_of(pid) - before, time.perf_counter() - started
    finally:
        here.send("stop")
        process.join(20)
        if process.is_alive():
            process.kill()


def load(
    what: str,
    rate: float,
    options: dict[str, Any],
    run: Callable[[str], Coroutine[Any, Any, Any]],
    server: Callable[..., None] = _serve,
) -> Row:
    """A row of the table."""
    (frames, latencies), cpu, seconds = served(small, options, run, server)
    times = 1000 * np.array(latencies)
    p50, p99 = np.percentile(times, [50, 99])
    return Row(what, frames / seconds, rate, 1e6 * cpu / frames, float(p50), float(p99), times)


def alternately(*measure: Callable[[], Row], times: int = 3) -> list[Row]:
    """Measurements in turn, so that what else the machine does falls on all of them; of each the one with the median of CPU time."""
    turns = [[m() for m in measure] for _ in range(times)]
    return [sorted(own, key=lambda row: row.cpu)[times // 2] for own in zip(*turns, strict=True)]


def measured(seconds: float, backend: str) -> tuple[list[Row], list[str]]:
    """All measurements, and what else is to be said."""
    rows = [
        *alternately(
            lambda: load(
                "64 sockets, 50 frames/s each",
                64 * 50,
                {"capacity": 64, "backend": backend},
                lambda url: sockets(url, 64, 50, seconds),
            ),
            lambda: load("the same, sent back by a bare server", 64 * 50, {}, lambda url: sockets(url, 64, 50, seconds), _echo),
        ),
        load(
            "1,000 streams on one socket, 30 frames/s each",
            30_000,
            {"capacity": 1000, "backend": backend},
            lambda url: multiplexed(url, 1000, 30, seconds),
        ),
        load(
            "1,000 streams, with checkpoints on disk",
            30_000,
            {"capacity": 1000, "backend": backend, "store": _folder()},
            lambda url: multiplexed(url, 1000, 30, seconds),
        ),
    ]
    (first, median), _, _ = served(small, {"capacity": 64, "backend": backend}, first_frame)
    (before, beside), _, _ = served(delayed, {"capacity": 64, "backend": backend}, an_end)
    (alone, among), _, _ = served(small, {"capacity": 64, "backend": backend}, lambda url: beside_faults(url, seconds))
    notes = [
        f"A frame on a socket of its own costs {rows[0].cpu / rows[1].cpu:.2f} times what it costs the bare server.",
        f"The first frame of a server that is ready takes {first:.2f} ms, the median of the next 200 {median:.2f} ms.",
        f"Beside a stream, eight others end one after another with a delay of 255: its median latency is {before:.2f} ms without and "
        f"{beside:.2f} ms with them.",
        f"Clients flood without reading, send NaN, garbage and 4 MB, and vanish, again and again. Beside them the p99 of a stream with 50 "
        f"frames a second is {among:.1f} ms, and {alone:.1f} ms without them.",
    ]
    return rows, notes


def _folder() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="continual-bench-")


def table(rows: list[Row], notes: list[str]) -> str:
    """As Markdown."""
    busy = f"a load of {os.getloadavg()[1]:.1f} in the mean of five minutes"
    notes = [*notes, f"{Machine.here()}; {os.cpu_count()} cores, and {busy}."]
    lines = ["| load | frames/s | server CPU a frame | p50 | p99 |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.what} | {r.frames:,.0f} of {r.asked:,.0f} | {r.cpu:.1f} µs | {r.p50:.1f} ms | {r.p99:.1f} ms |" for r in rows
    ]
    return "\n".join([*lines, "", *(textwrap.fill(note, 120) + "\n" for note in notes)])


def draw(rows: list[Row], path: Path) -> None:
    """The distributions of latencies."""
    figure = pictures.figure("benchmarks.serving", 8, 3.8)
    axis = figure.subplots()
    for row in rows:
        times = np.sort(row.latencies)
        axis.plot(times, 100 * np.arange(1, len(times) + 1) / len(times), label=f"{row.what} ({row.cpu:.1f} µs of CPU a frame)")
    axis.set(xscale="log", xlabel="milliseconds from a frame to its answer", ylabel="% of frames", ylim=(0, 100))
    pictures.grid(axis)
    pictures.legend(figure, loc="outside lower center", ncols=2)
    pictures.save(figure, path)


def main() -> None:
    """Measure, print the table, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--backend", default="aot")
    parser.add_argument(
        "--markdown", type=Path, help="replace the table between <!-- load --> and <!-- end of load --> in this file"
    )
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    rows, notes = measured(given.seconds, given.backend)
    text = table(rows, notes)
    print(text)
    if given.markdown is not None:
        page = given.markdown.read_text()
        head, rest = page.split("<!-- load -->\n", 1)
        given.markdown.write_text(f"{head}<!-- load -->\n{text}\n{rest[rest.index('<!-- end of load -->') :]}")
    if given.figure is not None:
        draw(rows, given.figure)


if __name__ == "__main__":
    sys.exit(main())
