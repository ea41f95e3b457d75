"""`continual demo`: train, convert, verify, stream, compare, draw."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

import continual as co

from .denoise import denoiser, noise, train
from .figure import Story, draw
from .recording import BadRecording, Recording, load
from .tables import pairs, show
from .zoo import dumped

LEAST = 300  # samples: a few receptive fields of the network
SEEN = 0.6  # share of the recording for training
FIGURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    input: Path | None
    out: Path
    rate: float | None
    column: str | None
    steps: int
    seed: int
    json: bool = False


@dataclass(frozen=True)
class Streamed:
    """The result of streaming: outputs in order, and by the sample with which they came."""

    outputs: Tensor
    arrived: np.ndarray


def run(options: Options) -> None:
    """The whole demonstration.

    Raises:
        BadRecording: the recording can't be used, or the figure can't be saved there.
    """
    out = options.out / "ecg_stream.png" if options.out.is_dir() else options.out
    folder = out.absolute().parent
    if out.suffix.lower() not in FIGURES or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BadRecording(
            f"can't save the figure as '{out}': give a file in a folder that can be written to, ending in {', '.join(FIGURES)}"
        )
    recording = load(options.input, options.rate, options.column, LEAST)
    clean = scaled(recording)
    console = Console(stderr=options.json)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the fastest setting for so small a network
    try:
        story = _tell(options, recording, clean, console)
    finally:
        torch.set_num_threads(threads)
    try:
        draw(story, out)
    except OSError as error:
        raise BadRecording(f"can't save the figure as '{out}' ({error.strerror or error})") from error
    console.print(f"figure: {escape(str(out))}", soft_wrap=True)


def scaled(recording: Recording) -> Tensor:
    """The samples minus the median of the training part, in its standard deviations."""
    _, exponent = np.frexp(np.abs(recording.samples).max())
    samples = np.ldexp(recording.samples, -exponent)  # exact; later squares neither overflow nor vanish
    learnt = samples[: int(SEEN * samples.size)]
    if np.ptp(learnt) == 0:
        raise BadRecording(
            f"'{recording.name}': its first {learnt.size} samples are all {recording.samples[0]:g}; there is nothing to learn from"
        )
    return torch.tensor((samples - np.median(learnt)) / learnt.std(), dtype=torch.float32)


def _tell(options: Options, recording: Recording, clean: Tensor, console: Console) -> Story:
    name = f"[bold]{escape(recording.name)}[/]"
    console.print(f"{name}: {recording.samples.size} samples at {recording.rate:g} per second", soft_wrap=True)
    for note in recording.notes:
        console.print(f"  {escape(note)}", soft_wrap=True)
    if options.input is not None:
        console.print("  taken as the clean signal; noise is added to it")
    generator = torch.Generator().manual_seed(options.seed)
    held_out = int(SEEN * clean.numel())
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        plain = denoiser()
    _train(plain, clean[:held_out], recording.rate, options.steps, generator, console)

    net = co.continual(plain)
    noisy = clean + noise((1, clean.numel()), recording.rate, generator)[0]
    clip = noisy.view(1, 1, -1)
    report = co.verify(net, clip[:, :, : 4 * net.receptive_field], reference=plain)
    passed = sum(check.outcome == "passed" for check in report.checks)
    console.print(f"[green]✓[/] co.verify: {passed} checks passed, {len(report.checks) - passed} not applicable, 0 failed")

    with torch.inference_mode():
        streamed = _stream(net, clip, console)
        expected = plain(clip)
        difference = (streamed.outputs - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        ours, window = _race(net, plain, clip)
    state = net.get_state()
    gain = _gain(clean[held_out:], noisy[held_out:], streamed.outputs[0, 0, held_out:])
    delay_ms = 1000 * net.delay / recording.rate
    rows = (
        ("largest difference to the clip network", f"{difference:.1e} of the largest output, over {expected.numel()} samples"),
        ("delay", f"{net.delay} steps = {delay_ms:.0f} ms"),
        ("receptive field", f"{net.receptive_field} steps"),
        ("state", f"{state.nbytes if state else 0:,} bytes"),
        ("one step", f"{ours:.0f} µs"),
        (
            "recomputing the window",
            f"{window:.0f} µs, {window / ours:.1f} times as long (medians of alternating blocks, 1 thread)",
        ),
        ("noise removed", f"{gain:+.1f} dB signal-to-noise on the {100 - 100 * SEEN:.0f} % not seen in training"),
    )
    show(pairs("The same network, sample by sample", rows), console)
    if options.json:
        told = {
            "recording": recording.name,
            "samples": recording.samples.size,
            "rate": recording.rate,
            "notes": list(recording.notes),
        }
        told |= {"checks_passed": passed, "largest_difference": difference, "delay": net.delay, "delay_ms": delay_ms}
        told |= {"receptive_field": net.receptive_field, "state_bytes": state.nbytes if state else 0, "gain_db": gain}
        typer.echo(dumped(told | {"microseconds_a_step": ours, "microseconds_a_window": window, "figure": str(options.out)}))
    facts = (
        f"delay {net.delay} steps = {delay_ms:.0f} ms   ·   largest difference to the clip network {difference:.0e}   ·   "
        f"{ours:.0f} µs a step, recomputing takes {window / ours:.1f}× as long"
    )
    title = f"{recording.name}: a clip network, run sample by sample"
    return Story(title, noisy.numpy(), clean.numpy(), streamed.arrived, recording.rate, net.delay, held_out, facts)


def _progress(console: Console, *columns: str) -> Progress:
    shown = [TextColumn(c) for c in ("{task.description}", *columns)]
    return Progress(shown[0], BarColumn(), MofNCompleteColumn(), *shown[1:], TimeRemainingColumn(), console=console)


def _train(net: nn.Module, clean: Tensor, rate: float, steps: int, generator: torch.Generator, console: Console) -> None:
    with _progress(console, "loss {task.fields[loss]:.3f}") as progress:
        task = progress.add_task("training on clips ", total=steps, loss=float("nan"))
        train(net, clean, rate, steps, generator, lambda loss: progress.update(task, advance=1, loss=loss))


def _stream(net: co.CoModule, clip: Tensor, console: Console) -> Streamed:
    """Stream every sample, then the end of the clip."""
    outputs: list[Tensor] = []
    arrived = np.full(clip.shape[2], np.nan)
    net.clean_state()
    started = time.perf_counter()
    with _progress(console, "{task.fields[speed]:.0f} µs a sample, {task.fields[late]} steps late") as progress:
        task = progress.add_task("streaming samples", total=clip.shape[2], speed=0.0, late=0)
        for t, sample in enumerate(clip.unbind(2)):
            y = net.forward_step(sample)
            if y is not None:
                outputs.append(y.unsqueeze(2))
                arrived[t] = y.item()
            if t % 16 == 15:
                speed = 1e6 * (time.perf_counter() - started) / (t + 1)
                progress.update(task, completed=t + 1, speed=speed, late=t + 1 - len(outputs))
        progress.update(task, completed=clip.shape[2])
    if (rest := net.forward_steps(clip[:, :, :0], pad_end=True)) is not None:
        outputs.append(rest)
    return Streamed(torch.cat(outputs, 2), arrived)


def _race(net: co.CoModule, plain: nn.Module, clip: Tensor) -> tuple[float, float]:
    """Microseconds of a step, and of the plain network on a shifting buffer of the receptive field."""
    sample, size = clip[:, :, 0], net.receptive_field
    buffer = [clip[:, :, :size]]

    def recompute() -> None:
        buffer[0] = torch.cat((buffer[0][:, :, 1:], sample.unsqueeze(2)), 2)
        plain(buffer[0])

    blocks: tuple[list[float], list[float]] = ([], [])
    for _ in range(25):
        for taken, call in zip(blocks, (lambda: net.forward_step(sample), recompute), strict=True):
            taken.append(_timed(call, 40))
    return statistics.median(blocks[0]), statistics.median(blocks[1])


def _timed(call: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call()
    return 1e6 * (time.perf_counter() - started) / times


def _gain(clean: Tensor, noisy: Tensor, output: Tensor) -> float:
    """The gain of the signal-to-noise ratio from input to output, in decibels."""
    return float(10 * torch.log10((noisy - clean).square().mean() / (output - clean).square().mean()))
