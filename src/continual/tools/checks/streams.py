"""Plays a clip as a stream, in pieces of all sizes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from ...core.state import Wire
from .compare import flat
from .subject import Subject
from .wires import Plan, cut, frames_in, joined


@dataclass
class Run:
    """A stream from its cold start on: its outputs, and the number of outputs after each number of inputs.

    Attributes:
        parts: the outputs, chunk by chunk.
        counts: pairs of inputs and outputs so far.
        ndims: the numbers of dimensions of the outputs of steps, and the first step that returned each.
    """

    parts: list[Wire] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    ndims: dict[int, int] = field(default_factory=dict)

    @property
    def outputs(self) -> Wire | None:
        """All outputs so far."""
        if len(self.parts) > 1:
            self.parts = [cast(Wire, joined(self.parts))]
        return self.parts[0] if self.parts else None

    @property
    def sent(self) -> int:
        """The number of outputs so far."""
        return self.counts[-1][1]

    def take(self, y: Wire | None, inputs: int) -> None:
        """Record the outputs of a call."""
        if y is not None:
            self.parts.append(y)
        n, sent = self.counts[-1]
        self.counts.append((n + inputs, sent + frames_in(y)))


class Streams(Subject):
    """A module that plays clips."""

    clip: Wire
    length: int
    random: random.Random
    chunk_rows: int | None  # the most steps times rows in a chunk

    def play(self, plan: Plan, x: Wire | None = None, clean: bool = True) -> Run:
        """Stream a clip in the pieces of a plan, from a cold start."""
        if clean:
            self.clean()
        run = Run()
        self.feed(run, plan, self.clip if x is None else x, 0)
        return run

    def feed_on(self, plan: Plan, x: Wire) -> Run:
        """Stream a clip on the running stream."""
        run = Run()
        self.feed(run, plan, x, 0)
        return run

    def feed(self, run: Run, plan: Plan, x: Wire, at: int) -> int:
        """Stream the pieces of a plan from a step on, dividing pieces that exceed memory. Returns the step after them."""
        most = frames_in(x) + 1 if self.chunk_rows is None else max(1, self.chunk_rows // flat(x)[0].shape[0])
        for kind, n in plan:
            if kind == "step":
                y = self.step(cut(x, at, at + 1))
                if y is not None:
                    run.ndims.setdefault(self.step_ndim, at)
                run.take(y, 1)
                at += 1
                continue
            while n > most:
                run.take(self.steps(cut(x, at, at + most)), most)
                at, n = at + most, n - most
            run.take(self.steps(cut(x, at, at + n), **({"pad_end": True} if kind == "end" else {})), n)
            at += n
        return at

    def stand(self, phases: list[int], act: Callable[[int, Run], int | None], x: Wire | None = None) -> Run:
        """Stream a clip to its end and act at each phase.

        After a phase come a step, a chunk of two and what is left to the next phase.

        Args:
            phases: numbers of steps, ascending.
            act: called with a phase and the stream so far. It may stream on itself, note what came, and return how many steps it took:
                phases that it passed are left out.
            x: the clip, if it is not :attr:`clip`.
        """
        x = self.clip if x is None else x
        self.clean()
        run, at = Run(), 0
        for phase in phases:
            if phase >= at:
                at = self.feed(run, pieces(phase - at), x, at)
                at += act(phase, run) or 0
        self.feed(run, pieces(frames_in(x) - at, end=True), x, at)
        return run

    def random_plan(self, length: int | None = None) -> Plan:
        """A split that mixes sizes 0, 1, 2, … and both methods; it ends with ``pad_end=True``."""
        plan: list[tuple[str, int]] = []
        left = total = self.length if length is None else length
        # some chunks of at least length/60, so that a long clip has a short plan
        long = max(5, total // 60)
        while left:
            n = min(left, self.random.choice((0, 1, 1, 1, 2, 2, 3, 4, long, self.random.randint(0, 3 * long))))
            plan.append(("step" if n == 1 and self.random.random() < 0.6 else "chunk", n))
            left -= n
        if plan[-1][0] == "step" or self.random.random() < 0.3:
            return [*plan, ("end", 0)]
        return [*plan[:-1], ("end", plan[-1][1])]


def pieces(steps: int, end: bool = False) -> Plan:
    """So many steps: a step, a chunk of two, and the rest, with the end of the stream if it is asked for."""
    plan: list[tuple[str, int]] = []
    if steps > end:
        plan.append(("step", 1))
        steps -= 1
    if steps > 2:
        plan.append(("chunk", 2))
        steps -= 2
    if steps or end:
        plan.append(("end" if end else "chunk", steps))
    return plan
