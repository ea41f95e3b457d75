"""The result of `co.bench`: a table, a picture, numbers."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from ..pictures import GREY, INK, MARK, OURS, TEXT, THEIRS, figure, grid, save

WITHOUT = ("window", "clip")  # what is done without streaming


@dataclass(frozen=True)
class FormTimes:
    """What was measured of one form. Times in seconds.

    Attributes:
        name: of the form.
        p50, p99: of single calls.
        step: for each step of the stream, the median over the rounds. A window is computed for each output.
        ratio: how many times faster than recomputing the window, the median of the ratios within the rounds; ``None`` without a window.
        real_time: how many times faster than the steps come; ``None`` without a rate.
        streams: how many streams one core keeps up with, at the rate; ``None`` without one.
        state: bytes of the state of all rows; ``None`` where it is not known.
        peak: the most bytes that a call allocates; ``None`` where it is not known.
    """

    name: str
    p50: float
    p99: float
    step: float
    ratio: float | None = None
    real_time: float | None = None
    streams: int | None = None
    state: int | None = None
    peak: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """How fast a network streams here. Prints as a table.

    Attributes:
        network: its name.
        forms: what was measured.
        missing: forms that do not run here, with the reasons.
        step: the shapes of a step.
        window: steps of the window.
        clip: steps of the clip.
        delay: of the network, in steps.
        rate: steps per second; ``None`` if it was not given.
        threads: of PyTorch.
        machine: the processor and the versions.
    """

    network: str
    forms: tuple[FormTimes, ...]
    missing: dict[str, str]
    step: tuple[tuple[int, ...], ...]
    window: int
    clip: int
    delay: int
    rate: float | None
    threads: int
    machine: str
    device: str = "cpu"
    rounds: int = field(default=0, compare=False)

    def __getitem__(self, name: str) -> FormTimes:
        """One form by its name.

        Raises:
            KeyError: it was not measured; the message says why.
        """
        for form in self.forms:
            if form.name == name:
                return form
        raise KeyError(f"{name!r} was not measured: {self.missing.get(name, 'it was not asked for')}")

    @property
    def fastest(self) -> FormTimes:
        """The form that streams with the least time for a step."""
        streams = [form for form in self.forms if form.name not in WITHOUT]
        return min(streams or list(self.forms), key=lambda form: form.step)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON holds them: times in seconds, sizes in bytes."""
        return asdict(self) | {"step": [list(shape) for shape in self.step], "forms": [asdict(form) for form in self.forms]}

    # ---- table ----------------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """The network, its step and the conditions, in a line."""
        steps = " and ".join(str(shape) for shape in self.step)
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        late = "" if self.rate is None else f" ({1000 * self.delay / self.rate:.4g} ms)"
        return f"{self.network}, steps {steps}, {threads} on {self.machine}; delay {self.delay}{late}"

    @property
    def table(self) -> list[list[str]]:
        """The titles of the columns, and a row for each form, as text."""
        clock = ["real time", "streams a core"] if self.rate is not None else []
        titles = ["form", "p50", "p99", "a step", "speed-up", *clock, "state", "peak"]
        return [titles, *(self._cells(form) for form in self.forms)]

    @property
    def notes(self) -> list[str]:
        """What was recomputed, and why forms are missing."""
        measured, again = {form.name for form in self.forms}, list[str]()
        if "window" in measured:
            again.append(f"window: {self.window} steps again for each output, which the speed-up is over")
        if "clip" in measured:
            again.append(f"clip: {self.clip} steps at once, whose outputs wait for its end")
        return [*again, *(f"{name}: {why}" for name, why in self.missing.items())]

    def __str__(self) -> str:
        table = self.table
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in table
        ]
        return "\n".join([self.title, lines[0], "─" * len(lines[0]), *(line.rstrip() for line in lines[1:]), *self.notes])

    def _cells(self, form: FormTimes) -> list[str]:
        clock: list[str] = []
        if self.rate is not None:
            known = form.streams is not None and form.name != "clip"
            clock = [f"{form.real_time:.4g}×", f"{form.streams:,}" if known else "–"]
        return [
            form.name,
            seconds(form.p50),
            seconds(form.p99),
            seconds(form.step),
            "–" if form.ratio is None else f"{form.ratio:.3g}×",
            *clock,
            size(form.state),
            size(form.peak),
        ]

    # ---- picture --------------------------------------------------------------------------------------------------------

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The times as a figure of matplotlib.

        Args:
            path: where to save it, too.

        Raises:
            ImportError: matplotlib is not installed.
        """
        forms = self.forms[::-1]
        made = figure("co.bench(…).plot", 9, 1.7 + 0.42 * len(forms))
        axes = made.subplots()
        for y, form in enumerate(forms):
            colour, end = THEIRS if form.name in WITHOUT else OURS, form.step
            if form.name != "clip":  # a call of the clip is of all its steps
                end = max(end, form.p99)
                axes.plot([1e3 * form.p50, 1e3 * form.p99], [y, y], color=colour, lw=1.5, alpha=0.6)
                axes.plot([1e3 * form.p99], [y], "|", color=colour, ms=9)
            axes.plot([1e3 * form.step], [y], "o", color=colour, ms=8, zorder=3)
            ratio = "" if form.ratio is None or form.name in WITHOUT else f": {form.ratio:.3g}× the speed of the window"
            axes.text(1e3 * end, y, f"   {seconds(form.step)}{ratio}", va="center", fontsize=TEXT, color=INK)
        if self.rate is not None:
            axes.axvline(1e3 / self.rate, color=MARK, lw=1.2)
            axes.text(
                1e3 / self.rate, len(forms) - 0.4, f" a step comes every {seconds(1 / self.rate)}", color=MARK, fontsize=TEXT
            )
        axes.set(xscale="log", yticks=range(len(forms)), yticklabels=[form.name for form in forms])
        axes.set_ylim(-0.6, len(forms) - 0.05)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.45)
        axes.xaxis.set_major_formatter(lambda value, _: seconds(1e-3 * value))
        axes.set_xlabel("for each step (dot), and from the median to the 99th percentile of single calls (line)")
        axes.set_title(self.title, loc="left", fontsize=TEXT, color=GREY)
        grid(axes, "x")
        if path is not None:
            save(made, path)
        return made


def seconds(value: float) -> str:
    """A duration with its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def size(value: int | None) -> str:
    """Bytes with their unit."""
    if value is None:
        return "–"
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value} B"
