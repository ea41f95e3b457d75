"""A module, a clip and its `forward`: the values that all checks share, each computed once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn

from ...core.state import Wire, rewire
from ...errors import ShapeMismatch
from .compare import changed, flat, largest_error, mismatch, state_bytes, tolerance_of
from .effort import EFFORTS, Effort
from .layout import Layout
from .memory import LARGE, MORE, Meter, gib, give_back
from .streams import Run, Streams
from .subject import Broken, Skipped
from .wires import Plan, bytes_in, cut, frames_in, lengthened, noise, shapes, two_rows

__all__ = ["CHECKS", "Broken", "Run", "Skipped", "ContractRun", "contract", "kept"]

CHECKS: list[tuple[int, str, Callable[[ContractRun], str]]] = []


def contract(point: int, name: str) -> Callable[[Callable[[ContractRun], str]], Callable[[ContractRun], str]]:
    """Register a check. It returns what it measured, or raises :class:`Broken` or :class:`Skipped`."""

    def registered(check: Callable[[ContractRun], str]) -> Callable[[ContractRun], str]:
        CHECKS.append((point, name, check))
        return check

    return registered


@dataclass
class Split:
    """A split that was played: the counts of outputs, and the difference from ``forward`` as text and as a number."""

    plan: Plan
    counts: list[tuple[int, int]]
    found: str
    worst: float


class ContractRun(Streams):
    """A module, a clip and its ``forward``.

    Args:
        net: the object under test.
        clip: ``(B, C, T, *S)``, or a list of such for several streams.
        reference: the clip computation, if the object has none of its own (or in addition).
        effort: the number of attempts.
        splits: how many random splits; ``None`` for those of the effort.
        tolerance: ``None`` for the one of the dtype.
        seed: for all random choices.

    Attributes:
        user_clip: the clip with which `co.verify` was called.
        clip: two rows at least, long enough for outputs, and short enough for memory.
        allowed: bytes of tensors that may be there at any time.
        notes: what was changed of the clip, and what was cut short, in words.
    """

    def __init__(
        self,
        net: Any,
        clip: Wire,
        reference: Any = None,
        effort: Effort = EFFORTS["full"],
        splits: int | None = None,
        tolerance: float | None = None,
        seed: int = 0,
    ):
        super().__init__(net, Layout(net, clip), reference)
        self.effort, self.splits = effort, effort.splits if splits is None else splits
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.notes: list[str] = []
        self.user_clip: Wire = rewire(torch.clone, self.layout.clip)
        self.floating = all(t.is_floating_point() for t in flat(self.user_clip))
        raw, self.forward_bytes = self._measured()
        self.allowed = self.forward_bytes + MORE
        self._pristine = self._clip_to_use(raw)
        self.renew()
        self.batch, self.length = flat(self.clip)[0].shape[0], frames_in(self.clip)
        several, ndim = isinstance(raw, (tuple, list)), flat(raw)[0].ndim
        del raw
        self._look_at_stream(several, ndim)
        self.expected = self.truth(self.clip)
        self.own_ndim = self.own_ndim or flat(self.expected)[0].ndim
        parameters = [p.dtype for p in self.parameters() if p.is_floating_point()]
        outs = [t.dtype for t in (*flat(self.clip), *flat(self.expected))]
        self.tolerance = tolerance_of(*outs, *parameters) if tolerance is None else tolerance
        self._prefixes: dict[int, Wire | None] = {}
        self._counts: dict[int, int] = {}
        self._undisturbed: dict[tuple[int, ...], Wire | None] = {}

    @cached_property
    def takes_nan(self) -> bool:
        """Whether forward computes with NaN. Integers can't be NaN, and eigenvalues and factors of matrices refuse it."""
        if not self.floating:
            return False
        nothing = rewire(lambda v: torch.full_like(v, torch.nan), self.alone)
        for steps in (min(self.length, (self.delay or 0) + 8), self.length):  # short clips cost less, and some modules take none
            try:
                self.truth(cut(nothing, 0, steps))
            except Exception:
                continue
            return True
        return False

    def renew(self) -> None:
        """Undo changes of the clip by a wrong module."""
        self.clip = rewire(torch.clone, self._pristine)

    def cold(self) -> None:
        """Prepare a clip computation; one that is large takes memory that others have left."""
        if self.forward_bytes > LARGE:
            give_back()
        super().cold()

    # ---- setting up -----------------------------------------------------------------------------------------------------

    def _measured(self) -> tuple[Any, int]:
        """``forward`` of the clip of the user, and the bytes that it allocates."""
        if not self.has_forward and self.reference is None:
            raise TypeError(f"co.verify: {type(self.net).__name__} has no `forward`; give the clip computation as `reference`")
        try:
            with Meter() as meter:
                y = self.raw_forward(self.user_clip)
        except Exception as error:
            raise ShapeMismatch(
                f"co.verify: forward refuses the clip {shapes(self.user_clip)} ({type(error).__name__}: {error}). "
                "Give one that it takes, a few receptive fields long"
            ) from error
        return y, meter.peak

    def _clip_to_use(self, y: Any) -> Wire:
        """At least two rows, some steps more than the delay, and no more of both than fit into memory."""
        clip = self.user_clip
        rows, length = flat(clip)[0].shape[0], frames_in(clip)
        each = self.forward_bytes / (rows * length)  # bytes per step and row
        each += (8 * bytes_in(clip) + 10 * sum(t.numel() * t.element_size() for t in flat(y) if t.ndim > 1)) / (rows * length)
        fits = int(self.allowed / each)
        needed = 0 if self.delay is None else self.delay + 1 + max(8, 2 * self.period)
        if rows == 1 != self.fixed_batch:
            if 2 * min(length, max(needed, 8)) <= fits:
                clip, rows = rewire(two_rows, clip), 2
            else:
                self.notes.append(f"a single row: two take more than {gib(self.allowed)}")
        elif rows > 2 and rows * length > fits and self.fixed_batch is None:
            self.notes.append(f"2 of {rows} rows: more take more than {gib(self.allowed)}")
            clip, rows = rewire(lambda t: t[:2], clip), 2
        if length < needed:
            longer = self.alike(needed, length)
            if longer * rows > fits:
                self.notes.append(
                    f"the clip of {length} steps is shorter than the delay; {longer} take more than {gib(self.allowed)}"
                )
            elif self._takes(longer_clip := lengthened(clip, longer, self.generator)):
                self.notes.append(
                    f"the clip was lengthened from {length} to {longer} steps, by its own content: the delay is {self.delay}"
                )
                return longer_clip
            else:
                self.notes.append(f"the clip of {length} steps is shorter than the delay, and forward refuses {longer}")
        shorter = length - max(0, length - max(fits // rows, needed, 8)) // self.period * self.period
        if shorter < length:
            self.notes.append(f"of {length} steps the first {shorter} are used: all take more than {gib(self.allowed)}")
            clip = rewire(lambda t: t[:, :, :shorter], clip)
        return rewire(torch.clone, clip)

    def _takes(self, x: Wire) -> bool:
        """Whether ``forward`` accepts a clip."""
        try:
            self.raw_forward(self.narrow(x))
        except Exception:
            return False
        return True

    def alike(self, least: int, length: int | None = None) -> int:
        """The least length from ``least`` on whose distance from the length of the clip (or ``length``) is a multiple of the period."""
        length = self.length if length is None else length
        return length + -(-(least - length) // self.period) * self.period

    def _look_at_stream(self, several: bool, ndim: int) -> None:
        """The layout of its outputs and the size of chunks, from a stream in chunks that double while memory suffices.

        Args:
            several: whether forward returns several tensors.
            ndim: dimensions of what forward returns.
        """
        room, most = self.allowed // 2, 0
        at, size = 0, 1
        try:
            self.clean()
            while at < self.length:
                n = min(size, self.length - at)
                ends: dict[str, Any] = {"pad_end": True} if at + n == self.length else {}
                with Meter() as meter:
                    y = self._call("forward_steps", self.moved(rewire(torch.clone, cut(self.clip, at, at + n))), ends)
                at, most = at + n, max(most, meter.peak)
                if y is not None:
                    self.own_ndim = flat(y)[0].ndim
                    self._takes_first = several and not isinstance(y, (tuple, list))
                size = n if 2 * meter.peak > room else 2 * size
            self.state_bytes = state_bytes(self.state())
            self.chunk_rows = size * self.batch if most * 2 > room else None
        except Exception:  # the checks report it
            self.own_ndim, self.state_bytes, self.chunk_rows, self._takes_first = 0, 0, None, False
            return
        if self.chunk_rows is not None:
            self.notes.append(f"chunks have {size} steps at most: more take more than {gib(room)}")
        self._clip_level = ndim == self.own_ndim - 1

    # ---- clips of other lengths, of one row -----------------------------------------------------------------------------

    def narrow(self, x: Wire) -> Wire:
        """The first row, for checks that do not depend on rows; all rows if the object takes a fixed number."""
        return x if self.fixed_batch is not None else rewire(lambda t: t[:1], x)

    @cached_property
    def alone(self) -> Wire:
        """The first row of the clip; all rows if ``forward`` of a single row differs."""
        row = self.narrow(self.clip)
        try:
            same = not mismatch(self.truth(row), rewire(lambda y: y[: flat(row)[0].shape[0]], self.expected), self.tolerance)
        except Exception:
            same = False
        return row if same else rewire(torch.clone, self.clip)

    def prefix(self, n: int) -> Wire | None:
        """``forward`` of the first ``n`` steps of :attr:`alone`; ``None`` where it refuses the clip or has no output."""
        if n in self._prefixes:
            return self._prefixes[n]
        try:
            y = self.truth(cut(self.alone, 0, n)) if n else None
        except Exception:
            y = None
        y = y if frames_in(y) else None
        self._counts[n] = frames_in(y)
        if bytes_in(y) + sum(bytes_in(p) for p in self._prefixes.values()) <= self.allowed // 8:
            self._prefixes[n] = y
        return y

    def count(self, n: int) -> int:
        """The number of outputs of ``forward`` of the first ``n`` steps."""
        if n not in self._counts:
            self.prefix(n)
        return self._counts[n]

    @cached_property
    def places(self) -> list[int]:
        """The lengths of clips to test: all, if they are few; else those around the first outputs, over a period, and some more."""
        limit, length, first = self.effort.places, self.length, self.first
        if length < limit:
            return list(range(length + 1))
        middle = self.random.randint(first, max(first, length - self.period))
        if limit < 12:
            return sorted({0, first - 1, first, middle, middle + 1, length} & set(range(length + 1)))
        least = next((n for n in range(first) if self.timing is not None and self.timing.ended(n)), 1)
        drawn = [self.random.randint(0, length - 1) for _ in range(2)]
        found = {0, 1, 2, least - 1, least, first - 1, first, first + 1, length - 1, length, *drawn, *(n + 1 for n in drawn)}
        return sorted((found | set(range(middle, middle + min(self.period, 6) + 1))) & set(range(length + 1)))

    # ---- streams that several checks look at ----------------------------------------------------------------------------

    @cached_property
    def single(self) -> Run:
        """The stream in single steps with its end."""
        return self.play([*[("step", 1)] * self.length, ("end", 0)])

    @cached_property
    def mixed(self) -> tuple[Plan, Run]:
        """A random split, played."""
        plan = self.random_plan()
        return plan, self.play(plan)

    @cached_property
    def sent(self) -> list[int]:
        """The numbers of outputs after 0, 1, … single steps."""
        return [sent for _, sent in self.single.counts[: self.length + 1]]

    @cached_property
    def first(self) -> int:
        """The number of inputs up to the first output; half of the clip if there is none."""
        return next((n for n, sent in enumerate(self.sent) if sent), max(1, self.length // 2))

    @cached_property
    def played(self) -> list[Split]:
        """Splits of all kinds."""
        n, singles = self.length, min(self.length - 1, self.first + 16)
        found = [self._split([*[("step", 1)] * n, ("end", 0)], self.single)]
        ones = [("chunk", 1)] * singles
        plans: list[Plan] = [[("end", n)], [("chunk", n), ("end", 0)], [*ones, ("end", n - singles)]]
        found += [self._split(plan, self.play(plan)) for plan in plans]
        found.append(self._split(*self.mixed))
        drawn = [self.random_plan() for _ in range(self.splits - 1)]
        return found + [self._split(plan, self.play(plan)) for plan in drawn]

    def _split(self, plan: Plan, run: Run) -> Split:
        differs = mismatch(run.outputs, self.expected, self.tolerance)
        return Split(plan, run.counts, differs, 0.0 if differs else largest_error(cast(Wire, run.outputs), self.expected))

    @cached_property
    def phases(self) -> list[int]:
        """The phases to test: cold, after 1 and 2 steps, in the middle, at the first output, and random ones."""
        last, first = self.length - 1, min(self.first, self.length - 1)
        count = max(3, min(self.effort.phases, self.allowed // 4 // max(1, self.state_bytes)))
        drawn = [self.random.randint(first, last) for _ in range(2)]
        wanted = [0, 1, self.middle, 2, min(first + 1, last), *drawn]
        return sorted({p for p in wanted[:count] if p <= last})

    @property
    def middle(self) -> int:
        """The middle of the clip, or the first output if that is later."""
        return min(max(self.length // 2, self.first), self.length - 1)

    def room(self, phase: int) -> int:
        """Steps from a phase to the next one, or to the end."""
        return next((p for p in self.phases if p > phase), self.length) - phase

    def some(self, phase: int, least: int = 3) -> int:
        """The number of steps from a phase to the next output, at most the remaining ones."""
        return min(self.length - phase, max(least, 2 * self.period + 2, self.chunk + 1))

    def to_an_end(self, phase: int) -> Wire:
        """A few steps after which the stream may end; branches of unequal lengths refuse other lengths."""
        stop = min(phase + 3, self.length)
        return cut(self.clip, phase, self.length - (self.length - stop) // self.period * self.period)

    # ---- standing in mid-stream -----------------------------------------------------------------------------------------

    def unharmed(self, act: Callable[[int], None], what: Callable[[int], str], phases: list[int] | None = None) -> None:
        """Act at each phase of a stream; then all its outputs must equal those of an undisturbed stream."""

        def stream(at: list[int]) -> str:
            run = self.stand(at, lambda phase, _: act(phase))
            return mismatch(run.outputs, self.undisturbed(at), self.tolerance)

        phases = self.phases if phases is None else phases
        if found := stream(phases):
            for phase in phases if len(phases) > 1 else ():
                if alone := stream([phase]):
                    raise Broken(f"{what(phase)}, the stream continues differently: {alone}")
            raise Broken(f"{what(phases[0])}, the stream continues differently: {found}")

    def undisturbed(self, phases: list[int] | None = None) -> Wire | None:
        """The outputs of a stream that is played as :meth:`stand` does, without actions."""
        key = tuple(self.phases if phases is None else phases)
        if key not in self._undisturbed:
            self._undisturbed = {key: self.stand(list(key), lambda *_: None).outputs}  # one, to save memory
        return self._undisturbed[key]

    def noise(self, x: Wire, scale: float = 3.0) -> Wire:
        """Noise of ``scale`` times the largest value."""
        return noise(x, scale, self.generator)

    def affords(self, steps: int) -> bool:
        """Whether ``forward`` of so many steps of a row fits into memory."""
        rows, length = flat(self.user_clip)[0].shape[0], frames_in(self.user_clip)
        return steps * self.forward_bytes / (rows * length) <= self.allowed


def kept(run: ContractRun, before: dict[str, Any], what: str) -> None:
    """Check that the state is bit-identical to an earlier one."""
    if found := changed(before, run.look()):
        raise Broken(f"{what} changed the state: {found}")


def is_module(run: ContractRun) -> bool:
    """Whether the object is a module."""
    return isinstance(run.net, nn.Module)
