"""Step programs: one small network against onnxruntime, recomputing, the other library and the machine; many streams in one program.

    python -m benchmarks.programs [--threads 1] [--only tcn] [--quick] [--markdown FILE]

Needs a C++ compiler; onnxruntime (with onnx and onnxscript) where it is installed. The other library is installed into an environment of
its own at the first run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co

from . import report
from .measure import TOLERANCE, Effort
from .other_library import CantRun, OtherLibrary, install
from .timing import Candidate, Local, Timings, alternate, conditions
from .workloads import Layer, Workload

CHANNELS, BLOCKS, TAPS = 64, 8, 3
CAPACITIES = (1, 8, 64, 256)
BACKEND = "aot"

LEGEND = """\
*aot*, *inductor*: a call of the program. *eager*: `forward_step`. *onnxruntime*: the same step as an ONNX graph of its own (`cat`, `conv`,
states in and out), with IO binding and states that change places. *window*: the plain network on its receptive field. *other library*: its
step of 8 residual convolutions (padded on both sides, as it needs them) and ReLUs, without dilation. *limit*: reading all weights and the
taps of the state once, from a buffer of that size that was just read. Batch 1, float32; medians of alternating runs, ratios to *aot*
taken within each."""
THROUGHPUT = """\
Rows times steps per second, one call after another, by the program (*aot*) and by `forward_step` on a batch in lockstep (*eager*).
*growth*: of the program, over one row."""


def blocks(dilated: bool) -> list[int]:
    """The dilations of the network's blocks."""
    return [2**i if dilated else 1 for i in range(BLOCKS)]


def tcn(dilated: bool = True) -> Any:
    """Residual blocks of a causal convolution and a ReLU."""
    made = []
    for d in blocks(dilated):
        conv = co.Conv1d(CHANNELS, CHANNELS, TAPS, padding=(TAPS - 1) * d, dilation=d)
        made.append(co.Residual(co.Sequential(conv, co.Trim(0, (TAPS - 1) * d), nn.ReLU())))
    return co.Sequential(*made).eval()


class Step(nn.Module):
    """The same network as a step with its states given: what one writes by hand to export it."""

    def __init__(self, net: Any, dilations: list[int]):
        super().__init__()
        self.convs = nn.ModuleList()
        for block, d in zip(net, dilations, strict=True):
            conv = nn.Conv1d(CHANNELS, CHANNELS, TAPS, dilation=d)
            conv.load_state_dict(block[1][0].state_dict())
            self.convs.append(conv)

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """A step ``(B, C, 1)`` and states ``(B, C, 2d)`` to the output and new states."""
        new = []
        for conv, state in zip(self.convs, states, strict=True):
            window = torch.cat((state, x), 2)
            new.append(window[:, :, 1:])
            x = x + F.relu(conv(window))
        return x, *new


@dataclass
class Row:
    """Times of the candidates in microseconds by name, and ratios to the program."""

    name: str
    threads: int
    times: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def program_of(net: Any, step: Tensor, backend: str) -> Callable[[], Any]:
    """A call of a program, again and again."""
    program = co.compile(net, step, backend=backend)
    state, chunk = program.init_state(), torch.randn(*step.shape[:2], program.chunk, *step.shape[2:])

    def run() -> None:
        nonlocal state
        _, _, state = program.run(chunk, state)

    run()
    return run


def onnx_step(step: Step, dilations: list[int]) -> tuple[Callable[[], Any], Callable[[Tensor], Tensor]]:
    """A call of onnxruntime, and one that gives the output.

    Raises:
        CantRun: if it is not installed.
    """
    try:
        import onnxruntime as ort
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CantRun(f"not installed ({error.name})") from error
    states = [torch.zeros(1, CHANNELS, (TAPS - 1) * d) for d in dilations]
    x = torch.randn(1, CHANNELS, 1)
    names = [f"state{i}" for i in range(len(states))]
    outs = [f"new_{n}" for n in names]
    exported = torch.onnx.export(
        step, (x, *states), dynamo=True, input_names=["x", *names], output_names=["y", *outs], verbose=False
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(exported.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    held = [[ort.OrtValue.ortvalue_from_numpy(s.numpy().copy()) for s in states] for _ in range(2)]
    frame, result = (ort.OrtValue.ortvalue_from_numpy(x.numpy().copy()) for _ in range(2))
    bindings = []
    for old, new in (held, held[::-1]):
        binding = session.io_binding()
        for name, value in zip(["x", *names], [frame, *old], strict=True):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(["y", *outs], [result, *new], strict=True):
            binding.bind_ortvalue_output(name, value)
        bindings.append(binding)
    turn = 0

    def run() -> None:
        nonlocal turn
        session.run_with_iobinding(bindings[turn])
        turn = 1 - turn

    def on(step: Tensor) -> Tensor:
        frame.update_inplace(step.numpy())
        run()
        return torch.from_numpy(result.numpy().copy())

    return run, on


def other_step(threads: int) -> tuple[OtherLibrary, Candidate]:
    """The other library's step of eight residual convolutions.

    Raises:
        CantRun: with the reason.
    """
    conv = Layer("Conv1d", (CHANNELS, CHANNELS, TAPS), {"padding": TAPS // 2})
    layers = tuple(x for _ in range(BLOCKS) for x in (Layer("Residual", (conv,)), Layer("ReLU")))
    work = Workload("tcn", layers, (1, CHANNELS), "network")
    plain = nn.Sequential(*(layer.constant_rate() for layer in layers)).eval()
    library = OtherLibrary(install(lambda text: print(text, file=sys.stderr)))
    clip = torch.randn(1, CHANNELS, 40)
    try:
        library.conditions(threads)
        found = library.build(work, plain, clip)
        want = plain(clip)[:, :, clip.shape[2] - 1 - BLOCKS * (TAPS // 2)]  # the last output that no padding at the end is in
        if not torch.allclose(found[:, :, -1], want, atol=1e-3):
            raise CantRun("it gives other outputs than the plain network")
    except BaseException:
        library.close()
        raise
    return library, library.candidate("other library")


def limit(net: Any, dilations: list[int]) -> Callable[[], Any]:
    """Reading what a step must read: weights, biases and the taps that the state is read at."""
    count = sum(p.numel() for p in net.parameters()) + len(dilations) * (TAPS - 1) * CHANNELS
    matrix = torch.randn(count // 192, 192)
    vector, out = torch.randn(192), torch.empty(count // 192)
    return lambda: torch.mv(matrix, vector, out=out)


def measure(dilated: bool, threads: int, effort: Effort) -> Row:
    """Check and time the candidates of one network."""
    row = Row("TCN, dilations 1 … 128" if dilated else "TCN, no dilation", threads)
    dilations = blocks(dilated)
    with torch.inference_mode(False), torch.no_grad():
        net = tcn(dilated)
        clip = torch.randn(1, CHANNELS, net.receptive_field + 8)
        step = Step(net, dilations).eval()
        candidates: list[Candidate] = []
        for backend in (BACKEND, "inductor"):
            program = co.compile(net, clip[:, :, 0], backend=backend)
            close(torch.stack([program.step(clip[:, :, t]) for t in range(clip.shape[2])], 2), net(clip), backend)
            candidates.append(Local(backend, program_of(net, clip[:, :, 0], backend)))
        frame, window = clip[:, :, 0].clone(), clip[:, :, : net.receptive_field].clone()
        for t in range(net.receptive_field):
            net.forward_step(clip[:, :, t])
        candidates += [Local("eager", lambda: net.forward_step(frame)), Local("window", lambda: net(window))]
        candidates.append(Local("limit", limit(net, dilations)))
        try:
            run, on = onnx_step(step, dilations)
            close(torch.cat([on(clip[:, :, t : t + 1]) for t in range(clip.shape[2])], 2), net(clip), "onnxruntime")
            candidates.append(Local("onnxruntime", run))
        except CantRun as error:
            row.missing["onnxruntime"] = str(error)
        library = None
        if not dilated:
            try:
                library, other = other_step(threads)
                candidates.append(other)
            except CantRun as error:
                row.missing["other library"] = str(error)
    try:
        timings = alternate(candidates, effort.rounds, effort.min_block)
    finally:
        if library is not None:
            library.close()
    for candidate in candidates:
        row.times[candidate.name] = 1e6 * timings.stats(candidate.name).median
        row.ratios[candidate.name] = timings.ratio(candidate.name, BACKEND).median
    return row


def close(found: Tensor, want: Tensor, name: str) -> None:
    """Refuse to time what computes something else."""
    off = float((found - want).abs().max()) / max(1.0, float(want.abs().max()))
    if not off <= TOLERANCE:
        raise ArithmeticError(f"{name} differs from the clip network by {off:.1e}")


# ---- many streams ---------------------------------------------------------------------------------------------------------


def networks() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """What is run for many rows, and the shape of a step."""
    encoder = lambda: co.TransformerEncoder(  # noqa: E731
        co.TransformerEncoderLayerFactory(64, 4, 128, sequence_len=64, causal=True), 2
    )
    return {
        "TCN": (tcn, (CHANNELS,)),
        "GRU": (lambda: co.GRU(64, 64, 2), (64,)),
        "10-layer Conv3d": (
            lambda: co.Sequential(*(m for _ in range(10) for m in (co.Conv3d(8, 8, 3, padding=1), nn.ReLU()))),
            (8, 16, 16),
        ),
        "causal transformer": (encoder, (64,)),
    }


def throughput(name: str, rows: int, effort: Effort) -> tuple[float, float]:
    """Rows times steps per second of the program and of ``forward_step``."""
    make, shape = networks()[name]
    with torch.inference_mode(False), torch.no_grad():
        torch.manual_seed(0)
        net = make().eval()
        step = torch.randn(rows, *shape)
        run = program_of(net, step, BACKEND)
        for _ in range(net.receptive_field + net.timing.transient):
            net.forward_step(step)
    timings: Timings = alternate(
        [Local(BACKEND, run), Local("eager", lambda: net.forward_step(step))], effort.rounds, effort.min_block
    )
    fast, slow = (rows / timings.stats(n).median for n in (BACKEND, "eager"))
    return fast, slow


# ---- the command ----------------------------------------------------------------------------------------------------------


def tables(rows: Sequence[Row], streams: dict[str, list[tuple[float, float]]]) -> str:
    """Both tables, as the part of a page."""
    parts = [f"Measured: {report.Machine.here()}."]
    if rows:
        names = [BACKEND, "inductor", "eager", "onnxruntime", "window", "other library", "limit"]
        body = []
        for row in rows:
            shown = [
                f"{report.number(row.times[n])} ({report.number(row.ratios[n])}×)" if n in row.times else row.missing.get(n, "–")
                for n in names
            ]
            body.append([row.name, str(row.threads), *shown])
        parts += [LEGEND, report.markdown_table(["µs (ratio to aot)", "threads", *names], body)]
    if streams:
        header = ["rows × steps per second", *(f"{n} rows" if n > 1 else "1 row" for n in CAPACITIES)]
        body = []
        for name, found in streams.items():
            body.append([f"{name}, aot", *(f"{fast:,.0f}" for fast, _ in found)])
            body.append([f"{name}, eager", *(f"{slow:,.0f}" for _, slow in found)])
            body.append([f"{name}, growth", *(f"{report.number(fast / found[0][0])}×" for fast, _ in found)])
        parts += [THROUGHPUT, report.markdown_table(header, body)]
    return "\n\n".join(parts)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.programs", description="Step programs: speed and throughput.")
    line.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="intra-op threads (default: 1)")
    line.add_argument("--only", metavar="PATTERN", help="rows by a part of the name or a shell pattern")
    line.add_argument("--quick", action="store_true", help="3 rounds of short blocks, the two smallest capacities")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'programs' of a page")
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the tables in Markdown."""
    args = parser().parse_args(argv)
    effort = Effort(3, 0.002) if args.quick else Effort()

    def chosen(name: str) -> bool:
        return not args.only or args.only in name or fnmatch(name, args.only)

    single = [(d, t) for t in args.threads for d in (True, False) if chosen(f"tcn {'dilated' if d else 'plain'}")]
    many = [name for name in networks() if chosen(f"many {name}")]
    if not single and not many:
        parser().error(
            f"no row matches {args.only!r}; there are: tcn dilated, tcn plain, {', '.join(f'many {n}' for n in networks())}"
        )
    capacities = CAPACITIES[:2] if args.quick else CAPACITIES
    rows, streams = [], dict[str, list[tuple[float, float]]]()
    with report.progress(len(single) + len(many) * len(capacities)) as advance:
        for dilated, threads in single:
            advance(f"TCN, {report.plural(threads, 'thread')}")
            with conditions(threads):
                rows.append(measure(dilated, threads, effort))
        for name in many:
            for capacity in capacities:
                advance(f"{name}, {report.plural(capacity, 'row')}")
                with conditions(args.threads[0]):
                    streams.setdefault(name, []).append(throughput(name, capacity, effort))
    text = tables(rows, streams)
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "programs", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
