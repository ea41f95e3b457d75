"""One prepared run on a CUDA machine, in less than eight minutes: a TCN and CoX3D-S for 1, 64 and 1,000 streams, against recomputing.

    python -m benchmarks.gpu [--seconds 400] [--json FILE] [--markdown FILE]
    python -m benchmarks.gpu --device cpu --tiny     # the same run, of small networks and few streams, without CUDA

What is proved without a GPU is the run itself: the networks, the checks against the clip network, the deadline, the files. CUDA graphs,
compilation for CUDA, events and running out of memory are not, since no machine with CUDA was there when this was written.

Every form is checked before it is timed. *recomputed*: the clip network on the window (CoX3D: on the published clip) of each stream, in
as many streams at a time as fit. Nothing begins after the deadline; what was not measured says so.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co

from . import report, zoo
from .measure import WrongResult
from .workloads import WORKLOADS

ROWS, TINY_ROWS = (1, 64, 1000), (1, 2, 3)
FORMS = ("eager", "inductor", "aot", "cudagraph", "recomputed")
TOLERANCE = 1e-3  # TF32 and other kernels for other sizes; of the largest output
CALLS, CALL_SECONDS = 200, 2.0  # calls of a form, fewer where they take longer than this
HEADER = ["network", "streams", "form", "µs a step", "µs a stream and step", "over the fastest"]


@dataclass
class Row:
    """A network for so many streams in one form: the median of seconds a step, or why there is none."""

    network: str
    streams: int
    form: str
    seconds: float = 0.0
    missing: str = ""


@dataclass(frozen=True)
class Network:
    """A network on a device: ours, the clip network, a frame's shape without rows, and how many frames are computed again."""

    name: str
    net: Any
    whole: Callable[[Tensor], Tensor]
    frame: tuple[int, ...]
    clip: int


def networks(device: torch.device, tiny: bool) -> list[Callable[[], Network]]:
    """A TCN of dilated convolutions, and CoX3D-S; small ones for a try."""

    def tcn() -> Network:
        plain = next(w for w in WORKLOADS if w.name.startswith("TCN of 8")).constant_rate().to(device)
        net: Any = co.continual(plain)
        return Network("TCN of 8 × Conv1d 64 k3", net, plain, (64,), net.receptive_field)

    def cox3d() -> Network:
        torch.manual_seed(0)
        size = {"input_size": 32} if tiny else {}
        net: Any = zoo.alive(co.models.create("cox3d_s", **size)).to(device)
        return Network("cox3d_s", net, copy.deepcopy(net), net.step_shape, net.card.frames)

    return [tcn, cox3d]


def synchronised(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """The median of seconds a call, each with all that it launches."""
    for _ in range(3):
        call()
    synchronised(device)
    found, begun = [], time.perf_counter()
    while len(found) < 3 or (len(found) < CALLS and time.perf_counter() - begun < CALL_SECONDS):
        start = time.perf_counter()
        call()
        synchronised(device)
        found.append(time.perf_counter() - start)
    return sorted(found)[len(found) // 2]


def checked(form: str, found: Tensor, wanted: Tensor) -> None:
    """Refuse to time what gives something else.

    Raises:
        WrongResult: with the difference.
    """
    apart = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))
    if found.shape != wanted.shape or not apart <= TOLERANCE:
        raise WrongResult(f"{form}: differs from the clip network by {apart:.1e}, allowed are {TOLERANCE:g}")


def stepping(network: Network, streams: int, form: str, device: torch.device) -> Callable[[], Any]:
    """A step of all streams, in the middle of them, checked from a cold start."""
    net, few = network.net, min(streams, 2)
    clip = torch.randn(few, network.frame[0], net.delay + 2, *network.frame[1:], device=device)
    wanted = net(clip)[:, :, 1]
    frame = torch.randn(streams, *network.frame, device=device)
    if form == "eager":
        net.clean_state()
        checked(form, [y for f in clip.unbind(2) if (y := net.forward_step(f)) is not None][1], wanted)
        net.clean_state()
        for _ in range(net.delay + 1):
            net.forward_step(frame)
        return lambda: net.forward_step(frame)
    program = co.compile(net, frame, backend=form)  # type: ignore[arg-type]
    rows = torch.cat([clip, clip[:1].expand(streams - few, *clip.shape[1:])])
    checked(form, [y for f in rows.unbind(2) if (y := program.step(f)) is not None][1][:few], wanted)
    state, chunk = program.init_state(), frame.unsqueeze(2)

    def run() -> None:
        nonlocal state
        _, _, state = program.run(chunk, state)

    return run


def recomputing(network: Network, streams: int, device: torch.device) -> Callable[[], Any]:
    """The window of every stream, in as many parts as the memory needs."""
    parts = 1
    while True:
        window = torch.randn(-(-streams // parts), network.frame[0], network.clip, *network.frame[1:], device=device)
        try:
            network.whole(window)
        except torch.OutOfMemoryError:
            if parts >= streams:
                raise
            parts *= 2
            torch.cuda.empty_cache()
            continue
        break

    def call() -> None:
        for _ in range(parts):
            network.whole(window)

    return call


def measured(network: Network, streams: int, form: str, device: torch.device) -> Row:
    """A form, or why there is none."""
    row = Row(network.name, streams, form)
    if form == "cudagraph" and device.type != "cuda":
        row.missing = "there is no CUDA device"
        return row
    try:
        compiles = form not in ("eager", "recomputed")
        with torch.no_grad(), nullcontext() if compiles else torch.inference_mode():
            made = recomputing(network, streams, device) if form == "recomputed" else stepping(network, streams, form, device)
            row.seconds = timed(made, device)
    except Exception as error:  # the table goes on, and says so
        row.missing = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    finally:
        network.net.clean_state()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return row


def run(device: torch.device, tiny: bool, seconds: float, say: Callable[[str], None]) -> list[Row]:
    """All networks, streams and forms; what compiles comes last, so that a deadline takes nothing else away."""
    end, rows = time.monotonic() + seconds, []
    made = [make() for make in networks(device, tiny)]
    order = sorted(FORMS, key=("eager", "recomputed", "cudagraph", "inductor", "aot").index)
    for form in order:
        for network in made:
            for streams in TINY_ROWS if tiny else ROWS:
                left = end - time.monotonic()
                say(f"{network.name}, {streams:,} streams, {form}; {left:.0f} s to the deadline")
                late = Row(network.name, streams, form, missing="the time was up")
                rows.append(measured(network, streams, form, device) if left > 0 else late)
    return rows


def table(rows: Sequence[Row], where: str) -> str:
    """The rows as Markdown."""
    best: dict[tuple[str, int], float] = {}
    for row in rows:
        if row.seconds:
            key = row.network, row.streams
            best[key] = min(best.get(key, row.seconds), row.seconds)
    names = list(dict.fromkeys(r.network for r in rows))
    body = []
    for row in sorted(rows, key=lambda r: (names.index(r.network), r.streams, FORMS.index(r.form))):
        cells = ["–"] * 3
        if row.seconds:
            over = row.seconds / best[row.network, row.streams]
            cells = [report.number(1e6 * row.seconds), report.number(1e6 * row.seconds / row.streams), f"{over:.2f}×"]
        body.append([row.network, f"{row.streams:,}", row.form, *cells])
    notes = dict.fromkeys(f"- {r.network}, {r.streams:,} streams, {r.form}: {r.missing}" for r in rows if r.missing)
    return "\n\n".join([f"Measured: {where}.", report.markdown_table(HEADER, body), *(["\n".join(notes)] if notes else [])])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Without the device it says so, and that is no failure; a row that gives wrong outputs is one."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Streams on a GPU, in one prepared run.")
    line.add_argument("--device", default="cuda", help="default: cuda")
    line.add_argument("--tiny", action="store_true", help="small networks and few streams: whether the run works")
    line.add_argument("--seconds", type=float, default=400.0, help="nothing begins after so long (default: 400)")
    line.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    args = line.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"benchmarks.gpu: left out, torch {torch.__version__} finds no CUDA device")
        return 0
    rows = run(device, args.tiny, args.seconds, lambda text: print(text, file=sys.stderr, flush=True))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else report.cpu_name()
    where = f"{report.Machine.here().date}, {name}, torch {torch.__version__}"
    text = table(rows, where)
    print(text)
    for path, content in ((args.markdown, text + "\n"), (args.json, json.dumps([asdict(r) for r in rows], indent=1))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    return int(any(r.missing.startswith("WrongResult") for r in rows))


if __name__ == "__main__":
    sys.exit(main())
