"""`continual models bench`: the time of a step, compared with recomputing the clip network on its window."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import continual as co

from .errors import one_line
from .tables import show
from .target import BadInput
from .zoo import AsJson, InputSize, Name, alive, built, dumped, threads

SHARE = 0.5  # share of a round for steps


@dataclass(frozen=True)
class Times:
    """Seconds, one number per round.

    Attributes:
        step: of one step, the mean of a block.
        clip: of recomputing the window.
        steps: number from one prediction to the next.
    """

    step: list[float]
    clip: list[float]
    steps: int

    @property
    def ratios(self) -> list[float]:
        """The ratio of recomputing to stepping per prediction, within a round, where both run under the same conditions."""
        return [clip / (self.steps * step) for clip, step in zip(self.clip, self.step, strict=True)]


def bench(
    name: Name,
    input_size: InputSize = None,
    number: Annotated[int, typer.Option("--threads", min=1, metavar="N", help="Of PyTorch.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Rounds; in each, steps and clips alternate.")] = 15,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Streams, side by side.")] = 1,
    clip_length: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Length of the recomputed clip. Default: as published."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure a step of a network, and recomputing its clip network on the window of a prediction.

    Weights are random. Medians of alternating rounds; the ratio is per prediction, within each round. The skeleton networks with a
    star are compared with the networks without, which take less time on a clip, as in their paper.

    Example: `continual models bench cox3d_s --input-size 112 --rounds 7`
    """
    with one_line("models bench"):
        net = alive(built(name, None, input_size))
        whole = alive(built(net.card.clip_network, None, input_size)) if net.card.clip_network else net
        length = clip_length or whole.card.frames
        if whole.timing.ended(length) < 1:
            raise BadInput(f"--clip-length {length}: {whole.card.name} gives nothing for a clip of {length} steps; take more")
        with conditions(number):
            times = race(net, whole, batch, length, rounds)
        if json:
            return typer.echo(dumped(_data(net, whole, times, batch, length, number)))
        show(_table(net, whole, times, batch, length, number))


@contextmanager
def conditions(number: int) -> Iterator[None]:
    """The conditions of a measurement: threads, no gradients, no denormal numbers (silence would cost more), no garbage collection."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_flush_denormal(True)
    try:
        with threads(number), torch.inference_mode():
            yield
    finally:
        torch.set_flush_denormal(False)
        if collecting:
            gc.enable()


def race(net: Any, whole: Any, batch: int, length: int, rounds: int) -> Times:
    """Alternate blocks of steps and of clips, one of each per round; every other round in reverse order."""
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(batch, net.step_shape[0], length, *net.step_shape[1:], generator=generator)
    step = clip[:, :, 0].contiguous()
    period, warm = int(net.timing.period), net.delay + 1
    with _progress() as progress:
        task = progress.add_task("filling the state", total=warm)
        net.clean_state()
        for _ in range(warm):  # before the delay has passed the last layers do not run
            net.forward_step(step)
            progress.advance(task)
        one_step, one_clip = _timed(lambda: net.forward_step(step), period), _timed(lambda: whole(clip), 1)
        steps = period * max(1, round(SHARE * max(one_clip, 0.02) / (one_step * period)))
        clips = max(1, round((1 - SHARE) * 0.02 / one_clip))
        progress.update(task, description="timing           ", total=rounds, completed=0)
        times = Times([], [], max(1, int(net.timing.stride)))
        for i in range(rounds):
            blocks: list[tuple[list[float], Callable[[], object], int]] = [
                (times.step, lambda: net.forward_step(step), steps),
                (times.clip, lambda: whole(clip), clips),
            ]
            for taken, call, count in blocks if i % 2 == 0 else reversed(blocks):
                taken.append(_timed(call, count))
            progress.advance(task)
    net.clean_state()
    return times


def _timed(call: Callable[[], object], count: int) -> float:
    """Mean seconds of a call."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _data(net: Any, whole: Any, times: Times, batch: int, length: int, number: int) -> dict[str, Any]:
    """The figures as JSON holds them: medians, and all rounds in seconds."""
    medians = {"step_ms": 1e3 * statistics.median(times.step), "clip_ms": 1e3 * statistics.median(times.clip)}
    told = {"network": net.card.name, "clip_network": whole.card.name, "step": list(net.step_shape), "clip_length": length}
    told |= {"batch": batch, "threads": number, "steps_a_prediction": times.steps, "ratio": statistics.median(times.ratios)}
    return told | medians | {"rounds": {"step": times.step, "clip": times.clip}}


def _table(net: Any, whole: Any, times: Times, batch: int, length: int, number: int) -> Table:
    step, clip = (statistics.median(t) for t in (times.step, times.clip))
    of_step, of_clip = (co.summary(n, torch.zeros(1, *net.step_shape), clip_length=length).rows[0] for n in (net, whole))
    operations = of_clip.macs_clip / (times.steps * float(of_step.macs_step))
    title = f"{net.card.name} at {' × '.join(map(str, net.step_shape))}: batch {batch}, {_many(number, 'thread')}"
    table = Table(
        "", "median", "of rounds", title=Text(title, "bold"), title_justify="left", caption=f"{_many(len(times.step), 'round')}"
    )
    each = f", {times.steps} steps a prediction" if times.steps > 1 else ""
    table.add_row(f"one step{each}", f"{1e3 * step:.3f} ms", _spread(times.step, 1e3, 3))
    which = "the clip network" if whole is net else f"the clip network {whole.card.name}"
    table.add_row(f"{which} on {length} steps", f"{1e3 * clip:.3f} ms", _spread(times.clip, 1e3, 3))
    table.add_row(
        "ratio, for each prediction", f"{statistics.median(times.ratios):.2f} ×", _spread(times.ratios, 1, 2), style="bold"
    )
    table.add_row("ratio of multiply-adds", f"{operations:.2f} ×", "")
    return table


def _spread(values: list[float], scale: float, digits: int) -> str:
    return f"{scale * min(values):.{digits}f} – {scale * max(values):.{digits}f}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
